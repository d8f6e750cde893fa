use std::future::{pending, ready};
use std::pin::pin;

use super::*;

fn answered() -> Forwarded {
    Error::new(Kind::NoRoute, "as told").into()
}

#[tokio::test]
async fn a_panic_is_an_answer_and_no_more() {
    let panicked = catch_panic(pin!(async { panic!("a defect") })).await;
    assert_eq!(panicked.unwrap_err().kind, Kind::Internal);
    // After having waited, too: the poll that panics is not the first.
    let later = pin!(async {
        tokio::task::yield_now().await;
        panic!("a later defect")
    });
    let error = catch_panic(later).await.unwrap_err();
    assert_eq!(error.kind.status(), http::StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!error.detail.contains("later"), "what it said may hold anything: {}", error.detail);
}

#[tokio::test]
async fn what_does_not_panic_is_passed() {
    let outcome = catch_panic(pin!(ready(Ok(answered())))).await.unwrap();
    assert_eq!(outcome.result.unwrap_err().detail, "as told");
    let failed = catch_panic(pin!(ready(Err(Error::new(Kind::Loop, "l"))))).await;
    assert_eq!(failed.unwrap_err().kind, Kind::Loop);
    assert!(is_pending(catch_panic(pin!(pending()))).await);
}

/// Polls once.
async fn is_pending<F: Future>(future: F) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}
