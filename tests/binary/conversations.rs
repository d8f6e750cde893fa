//! Conversations of many megabytes: how much of them is forwarded, and whether their memory is given back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::one_route;
use super::process::{Folder, PATIENCE, Running, get};

const MIB: usize = 1 << 20;

/// An upstream that keeps of a request its length only.
async fn measuring() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, length) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let told = Arc::clone(&length);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(measure(stream, Arc::clone(&told)));
        }
    });
    (address, length)
}

async fn measure(mut stream: TcpStream, length: Arc<AtomicUsize>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut left: usize = announced.map_or(0, |length| length.trim().parse().unwrap());
        length.store(left, SeqCst);
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let most = left.min(buffer.len());
            let Ok(read @ 1..) = stream.read(buffer.get_mut(..most).unwrap()).await else { return };
            left -= read;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.is_err() {
            return;
        }
    }
}

/// Resident memory of a process, in bytes.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<usize>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn of_25_megabytes_20_mib_of_history_are_forwarded_and_the_memory_is_given_back() {
    let (upstream, length) = measuring().await;
    let folder = Folder::new();
    let more = "defaults: {window: {max_messages: 0}, timeouts: {total: 1m}}\n";
    let mut pillion = Running::start(&folder, &one_route(upstream, more), &[]).await;
    let (data, admin, id) = (pillion.data().await, pillion.admin().await, pillion.id());
    // Five hundred messages of 50 KB.
    let text = "a line of text\\n".repeat(3125);
    let messages: Vec<String> = (0..500)
        .map(|n| {
            format!(r#"{{"role":"{}","content":"{text}"}}"#, if n % 2 == 0 { "user" } else { "assistant" })
        })
        .collect();
    let body = format!(r#"{{"model":"m","messages":[{}]}}"#, messages.join(","));
    assert!(body.len() > 25_000_000);
    let message = messages[0].len().max(messages[1].len());
    assert_eq!(get(data, "/openai/v1/models").await.0, 200);
    let before = resident(id);
    let head = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-conversation-id: large\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for round in 1..=8 {
        let mut stream = TcpStream::connect(data).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("pillion-trimmed:"), "{answer}");
        let forwarded = length.load(SeqCst);
        // As much as fits: another turn would not.
        let around = r#"{"model":"m","messages":[]}"#.len();
        assert!((20 * MIB - 2 * message - 2..=20 * MIB).contains(&(forwarded - around)), "{forwarded}");
        let (status, told) = get(admin, "/conversations/large").await;
        assert_eq!(status, 200);
        assert!(told.contains(&format!(r#""requests":{round},"#)), "{told}");
    }
    // Without another request: on a small box there may be none for long.
    let begun = Instant::now();
    loop {
        let now = resident(id);
        if now < before + 12 * MIB {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{} MiB at first, {} now", before / MIB, now / MIB);
        tokio::task::yield_now().await;
    }
}
