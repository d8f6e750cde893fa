//! The real binary as a child process: watched line by line, ended by its handle, never waited for without a bound.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own, removed at the end.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Short, because the path of a Unix socket has 107 bytes at most.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pillion-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and tells its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `pillion` with nothing of this process's environment.
fn command(folder: &Folder, arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion"));
    command
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub(crate) async fn run(folder: &Folder, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let output = command(folder, arguments, env).output();
    timeout(PATIENCE, output).await.expect("the command ends").unwrap()
}

/// The text of one of its outputs.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A `pillion run` under way.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// Standard error so far.
    pub(crate) seen: Vec<String>,
}

impl Running {
    /// Starts `pillion run` with this configuration, and waits until it accepts.
    pub(crate) async fn start(folder: &Folder, yaml: &str, env: &[(&str, &str)]) -> Self {
        let file = folder.write("given.yaml", yaml);
        let mut running = Self::spawn(folder, &["run", "--config", file.to_str().unwrap()], env);
        running.ready().await;
        running
    }

    /// Starts it with these arguments, and waits for nothing.
    pub(crate) fn spawn(folder: &Folder, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = command(folder, arguments, env).spawn().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        let mut reader = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = reader.next_line().await {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of standard error that contains this.
    pub(crate) async fn line(&mut self, part: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line.clone());
                if line.contains(part) {
                    return Some(line);
                }
            }
            None
        });
        let found = found.await.ok().flatten();
        found.unwrap_or_else(|| panic!("no line with `{part}` in:\n{}", self.seen.join("\n")))
    }

    /// Waits until the admin listener says that requests are welcome.
    pub(crate) async fn ready(&mut self) {
        let admin = self.admin().await;
        let (status, _) = get(admin, "/readyz").await;
        assert_eq!(status, 200);
    }

    /// The address that the banner shows with this label.
    pub(crate) async fn address(&mut self, label: &str) -> SocketAddr {
        let line = self.line(&format!(" ({label})")).await;
        let url = line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
        url.split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn data(&mut self) -> SocketAddr {
        self.address("data").await
    }

    pub(crate) async fn admin(&mut self) -> SocketAddr {
        self.address("admin").await
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it still runs")
    }

    /// Sends a signal by its name (`TERM`). There is no safe call for it in std, and every system has a shell.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and reads the rest of its output.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it still runs:\n{}", self.seen.join("\n"))).unwrap();
        while let Some(line) = self.lines.recv().await {
            self.seen.push(line);
        }
        status
    }
}

/// One GET over a connection of its own: the status and the content.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(TcpStream::connect(address).await.unwrap(), path).await
}

/// The same over a Unix socket.
pub(crate) async fn get_unix(socket: &Path, path: &str) -> (u16, String) {
    exchange(UnixStream::connect(socket).await.unwrap(), path).await
}

async fn exchange<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: S,
    path: &str,
) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    let answer = text(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}
