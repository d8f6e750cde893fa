//! One connection for commands. Calls share it; one that gives up harms none of the others.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisError, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Address, CONNECT, Failure, Reply, Script, Tls, stream};

/// Calls that wait for the socket to take them.
const WAITING: usize = 1024;

/// Refusals that mean something here, where they come out of a script.
const INNER: [&str; 4] = ["OOM", "READONLY", "MISCONF", "NOPERM"];

/// A connection that was greeted.
#[derive(Clone)]
pub struct Link {
    connection: MultiplexedConnection,
    driver: Arc<Driver>,
    server: Option<Arc<str>>,
}

/// Ends the connection with its last user.
struct Driver {
    task: AbortHandle,
    /// Closed with the connection.
    open: watch::Receiver<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Connects, says who we are, and asks which server it is; within [`CONNECT`].
    pub async fn open(address: &Address, tls: &Tls) -> Result<Self, Failure> {
        let opening = async {
            let stream = stream::open(address, tls).await?;
            let config =
                AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(WAITING);
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&address.greeting(), stream, config)
                    .await
                    .map_err(|e| failure(&e))?;
            let (closes, open) = watch::channel(());
            let task = tokio::spawn(async move {
                driver.await;
                drop(closes);
            });
            let driver = Arc::new(Driver { task: task.abort_handle(), open });
            let mut link = Self { connection, driver, server: None };
            link.server = link.ask_server().await?;
            Ok(link)
        };
        timeout(CONNECT, opening).await.unwrap_or(Err(Failure::Timeout))
    }

    /// A name of the server's process and of what it holds: another one after a restart, a failover, or when it was filled
    /// from another server. `None` where it does not tell.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Waits for the end of the connection.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut open = self.driver.open.clone();
        async move { while open.changed().await.is_ok() {} }
    }

    pub(super) fn is_same(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }

    async fn ask_server(&self) -> Result<Option<Arc<str>>, Failure> {
        // Of all sections: before Redis 7 it takes one name or none, and two are needed.
        match self.send(&redis::cmd("INFO")).await {
            Ok(reply) => Ok(reply.text().and_then(name_of)),
            // A user may lack the permission, a proxy the command.
            Err(Failure::Refused { code, .. }) if code == "NOPERM" || code == "ERR" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The time of one round trip: `PING`.
    pub async fn ping(&self, within: Duration) -> Result<(), Failure> {
        timeout(within, self.send(&redis::cmd("PING"))).await.unwrap_or(Err(Failure::Timeout)).map(|_| ())
    }

    /// Runs a script within that time. One that Redis has not seen before takes a second round trip.
    pub async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
        within: Duration,
    ) -> Result<Reply, Failure> {
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(keys.len());
            for key in keys {
                command.arg(*key);
            }
            for argument in arguments {
                command.arg(*argument);
            }
            command
        };
        let running = async {
            match self.send(&command("EVALSHA", &script.name)).await {
                Err(failure) if failure.is("NOSCRIPT") => self.send(&command("EVAL", script.text)).await,
                done => done,
            }
        };
        timeout(within, running).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn send(&self, command: &Cmd) -> Result<Reply, Failure> {
        match self.connection.clone().send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(failure(&RedisError::from(error))),
            Ok(value) => Ok(Reply::of(value)),
            Err(error) => Err(failure(&error)),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The name of a server in what it says of itself. Its own process, and what it was filled with last: one that follows
/// another for a while forgets what it had, and is the same process.
fn name_of(info: &str) -> Option<Arc<str>> {
    let field = |name| info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
    let process = field("run_id")?;
    Some(Arc::from(field("master_replid").map_or(process.to_owned(), |data| format!("{process}.{data}"))))
}

/// What an error of the crate comes to.
pub(super) fn failure(error: &RedisError) -> Failure {
    if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        return Failure::Lost(format!("the connection broke: {error}"));
    }
    let text = error.to_string();
    let code = error.code().unwrap_or("ERR");
    // Redis before 7 says of a script's error that it is one, and what it was behind that.
    let inner = INNER.iter().find(|word| code == "ERR" && text.contains(&format!("-{word} ")));
    Failure::Refused { code: inner.copied().unwrap_or(code).to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_process_and_what_it_holds() {
        for (info, name) in [
            (
                "# Server\r\nrun_id:a1\r\n# Replication\r\nmaster_replid:b2\r\nmaster_replid2:c3\r\n",
                Some("a1.b2"),
            ),
            ("master_replid2:c3\r\nrun_id:a1\r\n", Some("a1")),
            ("master_replid:b2\r\n", None),
            ("", None),
        ] {
            assert_eq!(name_of(info).as_deref(), name, "{info:?}");
        }
    }
}
