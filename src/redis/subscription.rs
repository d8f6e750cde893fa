//! A connection that listens to channels.
//!
//! Its messages are handed over one by one in the order in which Redis sent them, by the task that reads them: whoever
//! takes a message for a sign that all before it have come may do so.

use redis::{Cmd, Value};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::link::failure;
use super::stream::{self, Stream};
use super::{Address, CONNECT, Failure, Tls};

/// Who listens. Called by the task that reads, so it must not wait.
pub trait Listen: Send + Sync {
    /// Every channel is confirmed: what is published from now on is heard.
    fn subscribed(&self);

    /// A message.
    fn message(&self, channel: &[u8], text: &[u8]);
}

/// Subscribes, within [`CONNECT`], and listens until the connection ends. Tells why it did.
pub async fn listen(address: &Address, tls: &Tls, channels: &[&str], listener: &dyn Listen) -> Failure {
    // Holds what was read beyond a value: one for the whole connection.
    #[expect(clippy::default_trait_access, reason = "its type is of a crate that is not named here")]
    let mut decoder = Default::default();
    let opening = async {
        let mut stream = BufReader::new(stream::open(address, tls).await?);
        for command in greeting(address) {
            write(&mut stream, &command).await?;
            read(redis::parse_redis_value_async(&mut decoder, &mut stream).await)?;
        }
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(channels);
        write(&mut stream, &subscribe).await?;
        for _ in channels {
            read(redis::parse_redis_value_async(&mut decoder, &mut stream).await)?;
        }
        Ok(stream)
    };
    let mut stream = match timeout(CONNECT, opening).await.unwrap_or(Err(Failure::Timeout)) {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    listener.subscribed();
    loop {
        match read(redis::parse_redis_value_async(&mut decoder, &mut stream).await) {
            Ok(Value::Array(parts) | Value::Push { data: parts, .. }) => {
                if let [Value::BulkString(kind), Value::BulkString(channel), Value::BulkString(text)] =
                    &parts[..]
                    && kind == b"message"
                {
                    listener.message(channel, text);
                }
            }
            Ok(_) => {}
            Err(failure) => return failure,
        }
    }
}

/// Who we are, and in which database. Channels know no database, but the user may be bound to one.
fn greeting(address: &Address) -> Vec<Cmd> {
    let mut commands = Vec::new();
    if let Some(password) = address.password() {
        let mut command = redis::cmd("AUTH");
        if let Some(user) = address.user() {
            command.arg(user);
        }
        command.arg(password);
        commands.push(command);
    }
    if address.database() != 0 {
        let mut command = redis::cmd("SELECT");
        command.arg(address.database());
        commands.push(command);
    }
    commands
}

async fn write(stream: &mut BufReader<Stream>, command: &Cmd) -> Result<(), Failure> {
    let lost = |e: std::io::Error| Failure::Lost(format!("the connection broke: {e}"));
    stream.write_all(&command.get_packed_command()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)
}

fn read(value: redis::RedisResult<Value>) -> Result<Value, Failure> {
    match value {
        Ok(Value::ServerError(error)) => Err(failure(&error.into())),
        Ok(value) => Ok(value),
        Err(error) => Err(failure(&error)),
    }
}
