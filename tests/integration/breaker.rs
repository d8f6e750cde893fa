//! Who waits for an upstream that is left alone, and who hears at once.

use std::net::SocketAddr;

use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::support::{Answer, Client, Pillion, Upstream, eventually};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"messages":[{"role":"user","content":"a"}]}"#;

/// Before a port that is taken, and refuses until somebody listens on it.
async fn before_nobody(more: &str) -> (TcpSocket, Pillion) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    let yaml =
        format!("routes: [{{name: r, path: /, upstream: 'http://{address}', preset: openai{more}}}]\n");
    (socket, Pillion::start(&yaml, &[]).await)
}

async fn asking(pillion: &Pillion, clients: usize) -> Vec<Client> {
    let mut asking = Vec::new();
    for _ in 0..clients {
        let mut client = pillion.connect().await;
        client.ask("POST", CHAT, &[], BODY).await;
        asking.push(client);
    }
    asking
}

#[tokio::test]
async fn an_upstream_that_restarts_costs_a_small_bot_nothing() {
    let (socket, pillion) = before_nobody("").await;
    let clients = asking(&pillion, 5).await;
    pillion.metric_is("pillion_breaker_open", &[], 1.0).await;
    let upstream = Upstream::on(socket.listen(16).unwrap(), |_| Answer::ok("{}"));
    for mut client in clients {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(upstream.count(), 5);
    pillion.metric_is("pillion_breaker_open", &[], 0.0).await;
    pillion.metric_is("pillion_failures_shown_total", &[], 0.0).await;
    pillion.metric_is("pillion_errors_total", &[], 0.0).await;
}

#[tokio::test]
async fn of_many_a_few_wait_and_the_others_hear_at_once() {
    let breaker = ", breaker: {connects: 1, open: 9s, max_open: 9s}, retry: {attempts: 1}";
    let (_socket, pillion) = before_nobody(breaker).await;
    assert_eq!(pillion.post(CHAT, BODY).await.status, 502);
    pillion.metric_is("pillion_breaker_open", &[], 1.0).await;
    let mut answers = JoinSet::new();
    for mut client in asking(&pillion, 11).await {
        answers.spawn(async move { client.response().await });
    }
    for _ in 0..6 {
        let refused = answers.join_next().await.unwrap().unwrap();
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert!(refused.header("proxy-status").unwrap().contains("error=destination_unavailable"));
        assert_eq!(refused.header("x-should-retry"), None, "to come back costs the upstream nothing");
    }
    assert!(answers.try_join_next().is_none());
    // Whoever leaves gives its place to another.
    answers.shutdown().await;
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
    let waiting = asking(&pillion, 5).await;
    eventually("five who wait", async || pillion.metric("pillion_in_flight", &[]).await >= 5.0).await;
    assert_eq!(pillion.post(CHAT, BODY).await.status, 503);
    drop(waiting);
    pillion.metric_is("pillion_upstream_attempts_total", &[], 1.0).await;
}
