//! How it stops: nothing is cut, and nothing waits for what is not there.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::one_route;
use super::process::{Folder, PATIENCE, Running, get};
use super::upstream::{Reader, Streams};

#[tokio::test]
async fn an_idle_one_leaves_at_once_with_0() {
    for signal in ["TERM", "INT"] {
        let folder = Folder::new();
        let mut pillion = Running::start(&folder, &one_route(([127, 0, 0, 1], 9).into(), ""), &[]).await;
        // An idle connection is no reason to stay. One that is known: the first who comes after it finds it accepted.
        let _idle = TcpStream::connect(pillion.data().await).await.unwrap();
        assert_eq!(get(pillion.data().await, "/nowhere").await.0, 404);
        let begun = Instant::now();
        pillion.signal(signal).await;
        assert_eq!(pillion.exit().await.code(), Some(0), "{signal}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{signal}: {:?}", begun.elapsed());
        pillion.line(&format!("SIG{signal}: draining")).await;
        pillion.line("drained").await;
    }
}

/// pingora's timer is a thread that wakes a hundred times a second from its first use on: a sidecar is idle most of the
/// day.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_thread_wakes_without_work() {
    let folder = Folder::new();
    let mut pillion = Running::start(&folder, &one_route(([127, 0, 0, 1], 9).into(), ""), &[]).await;
    let (data, admin) = (pillion.data().await, pillion.admin().await);
    assert_eq!((get(data, "/openai/v1/models").await.0, get(admin, "/readyz").await.0), (502, 200));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pillion.id())).unwrap();
    let names: Vec<String> =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("pillion")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("Timer")), "{names:?}");
}

/// Asks `/readyz` until it says so. Nothing else tells that the signal has arrived.
async fn not_ready(pillion: &mut Running) {
    let admin = pillion.admin().await;
    let refused = async { while get(admin, "/readyz").await.0 != 503 {} };
    timeout(PATIENCE, refused).await.expect("readiness goes off");
}

#[tokio::test]
async fn while_it_drains_it_is_live_not_ready_and_takes_no_connection() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    let mut pillion = Running::start(&folder, &one_route(upstream.address, ""), &[]).await;
    let (data, admin) = (pillion.data().await, pillion.admin().await);
    let reader = Reader::begin(data).await;
    pillion.signal("TERM").await;
    not_ready(&mut pillion).await;
    let refused = async { while TcpStream::connect(data).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the data port closes");
    assert_eq!(get(admin, "/livez").await.0, 200);
    assert!(
        get(admin, "/metrics").await.1.contains("pillion_in_flight{operation=\"other\",route=\"openai\"} 1")
    );
    assert!(pillion.is_running());

    upstream.finish();
    assert!(reader.end().await, "the stream was cut");
    assert_eq!(pillion.exit().await.code(), Some(0));
}

#[tokio::test]
async fn two_hundred_live_streams_end_uncut() {
    const STREAMS: usize = 200;
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    let mut pillion = Running::start(&folder, &one_route(upstream.address, ""), &[]).await;
    let data = pillion.data().await;
    let mut beginning = JoinSet::new();
    for _ in 0..STREAMS {
        beginning.spawn(Reader::begin(data));
    }
    let readers = timeout(PATIENCE, beginning.join_all()).await.expect("all begin");
    upstream.begun(STREAMS).await;
    pillion.signal("TERM").await;
    not_ready(&mut pillion).await;
    let mut ending = JoinSet::new();
    for reader in readers {
        ending.spawn(reader.end());
    }
    assert!(pillion.is_running());
    upstream.finish();
    let ended = timeout(PATIENCE, ending.join_all()).await.expect("all end");
    let last = Instant::now();
    let cut = ended.iter().filter(|whole| !**whole).count();
    assert_eq!(pillion.exit().await.code(), Some(0));
    let stayed = last.elapsed();
    println!("{STREAMS} streams, {cut} cut, exit {stayed:?} after the last one's end");
    assert_eq!(cut, 0);
    assert!(stayed < Duration::from_secs(1), "{stayed:?}");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    let mut pillion = Running::start(&folder, &one_route(upstream.address, ""), &[]).await;
    let reader = Reader::begin(pillion.data().await).await;
    pillion.signal("TERM").await;
    pillion.line("draining").await;
    let begun = Instant::now();
    pillion.signal("INT").await;
    assert_eq!(pillion.exit().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    pillion.line("a second signal").await;
    assert!(!reader.end().await, "nobody could have ended it");
}

#[tokio::test]
async fn when_the_drains_time_is_up_the_rest_is_cut() {
    const DRAIN: Duration = Duration::from_millis(300);
    let (folder, upstream) = (Folder::new(), Streams::start().await);
    let mut pillion = Running::start(&folder, &one_route(upstream.address, "drain: 300ms\n"), &[]).await;
    let reader = Reader::begin(pillion.data().await).await;
    let begun = Instant::now();
    pillion.signal("TERM").await;
    assert_eq!(pillion.exit().await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= DRAIN && took < DRAIN + Duration::from_secs(2), "{took:?}");
    pillion.line("the drain's time is up").await;
    assert!(!reader.end().await, "nobody could have ended it");
}
