//! How many requests an upstream gets at a time: the place of each is free when its answer is over.

use std::time::Duration;

use http_body_util::BodyExt;
use pillion::error::Kind;
use pillion::upstream::Resolver;

use crate::support::direct::{Direct, text};
use crate::support::{Answer, Gate, Upstream, advance};

fn direct(upstream: &Upstream, max_in_flight: usize) -> Direct {
    Direct::new(&upstream.addr.to_string(), Resolver::system(), max_in_flight)
}

#[tokio::test]
async fn a_place_is_held_to_the_end_of_the_content() {
    let upstream = Upstream::start().await;
    let (feed, answer) = Answer::fed(200, &[]);
    upstream.push(answer);
    upstream.push(Answer::ok("second"));
    let direct = direct(&upstream, 1);
    let first = direct.send(false).await.unwrap();
    let mut second = Box::pin(direct.get());
    // The head is here, and the second waits all the same.
    tokio::select! {
        biased;
        _ = &mut second => panic!("both at a time"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
    }
    assert_eq!(upstream.count(), 1);
    feed.send(Answer::chunk("first")).unwrap();
    feed.send(b"0\r\n\r\n".to_vec()).unwrap();
    drop(feed);
    assert_eq!(text(first).await, "first");
    assert_eq!(second.await, "second");
}

#[tokio::test]
async fn an_answer_that_is_dropped_frees_its_place() {
    let upstream = Upstream::answering(|_| Answer::ok("next")).await;
    let (_feed, answer) = Answer::fed(200, &[]);
    upstream.push(answer);
    let direct = direct(&upstream, 1);
    drop(direct.send(false).await.unwrap());
    assert_eq!(direct.get().await, "next");
    // So does the end of the content, whoever keeps the rest.
    let mut body = direct.send(false).await.unwrap().into_body();
    while body.frame().await.is_some() {}
    assert_eq!(direct.get().await, "next");
}

#[tokio::test]
async fn beyond_the_queue_the_no_is_fast_and_in_it_it_takes_a_second() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.push(Answer::ok("first").held(&gate));
    let direct = direct(&upstream, 1);
    let (mut first, mut second) = (Box::pin(direct.get()), Box::pin(direct.send(false)));
    tokio::select! {
        biased;
        _ = &mut first => panic!("the gate is closed"),
        _ = &mut second => panic!("it waits"),
        _ = upstream.seen(1) => {}
    }
    let third = direct.send(false).await.unwrap_err();
    assert_eq!(third.error.kind, Kind::ConnectionLimit);
    advance(Duration::from_millis(1001)).await;
    let second = second.await.unwrap_err();
    assert_eq!(second.error.kind, Kind::ConnectionLimit);
    gate.open();
    assert_eq!(first.await, "first");
    assert_eq!(upstream.count(), 1);
}
