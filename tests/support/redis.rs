//! A real redis-server, on a port and in a folder of its own, and things that look like one. `PILLION_REDIS_SERVER` names
//! another than the installed one: an older, a newer, a Valkey.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::{PATIENCE, within};

/// A server. Dropping it ends it, stopped or not.
pub(crate) struct Redis {
    child: Child,
    folder: PathBuf,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments: `--maxmemory 1mb`.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pillion-redis-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // A server cannot choose its port: one that was free a moment ago may be taken, then it is another.
        loop {
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
            let child = spawn(&folder, port, &arguments);
            let mut this = Self { child, folder: folder.clone(), port, arguments: arguments.clone() };
            if this.answers().await {
                return this;
            }
            std::mem::take(&mut this.folder);
        }
    }

    /// Waits until it accepts; false if it has ended.
    async fn answers(&mut self) -> bool {
        let begun = std::time::Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server does not answer");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        // Its own limit is half a second, which a busy machine does not keep.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        within("a connection to Redis", connecting).await.unwrap()
    }

    /// One command, its words apart.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.ask_bytes(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>()).await
    }

    pub(crate) async fn ask_bytes<T: FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut command = redis::Cmd::new();
        command.arg(words);
        within("an answer of Redis", command.query_async(&mut self.connect().await)).await.unwrap()
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        self.ask(&["KEYS", "*"]).await
    }

    /// Everything that lies there, as bytes: the names of keys, and what is in them.
    pub(crate) async fn everything(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for key in self.keys().await {
            all.extend_from_slice(key.as_bytes());
            let kind: String = self.ask(&["TYPE", &key]).await;
            let verb = if kind == "hash" { "HGETALL" } else { "GET" };
            collect(&self.ask::<Value>(&[verb, &key]).await, &mut all);
        }
        all
    }

    /// Sends a signal by its name (`STOP`). There is no safe call for it in std, and every system has a shell.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it still runs");
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Ends it at once, as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port, &self.arguments);
        assert!(self.answers().await, "the port is taken");
    }
}

fn spawn(folder: &PathBuf, port: u16, arguments: &[String]) -> Child {
    Command::new(std::env::var("PILLION_REDIS_SERVER").as_deref().unwrap_or("redis-server"))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is installed (tests/setup tests)")
}

fn collect(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::BulkString(bytes) => out.extend_from_slice(bytes),
        Value::Array(values) => values.iter().for_each(|value| collect(value, out)),
        _ => {}
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// What accepts and gives every command the same answer, or none. Its URL.
pub(crate) async fn pretender(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if let Some(answer) = answer {
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    url
}
