//! One upstream as a route has it, without the rest of Pillion.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use pillion::body::Outgoing;
use pillion::upstream::{
    Failed, Limit, Phase, Resolver, ResponseBody, Target, Timeouts, Tls, Upstream as Connections,
};
use tokio::time::Instant;

/// Sends, and tells what came of it.
pub(crate) struct Direct {
    connections: Connections,
    timeouts: Timeouts,
}

impl Direct {
    /// To this authority, in the clear, by this resolver.
    pub(crate) fn new(authority: &str, resolver: Resolver, max_in_flight: usize) -> Self {
        let target = Target {
            scheme: http::uri::Scheme::HTTP,
            authority: authority.parse().unwrap(),
            base_path: String::new(),
        };
        let (tls, _) = Tls::new(None).unwrap();
        let second = Duration::from_secs(1);
        let timeouts =
            Timeouts { connect: 5 * second, first_byte: 20 * second, idle: 20 * second, total: 60 * second };
        Self { connections: Connections::new(target, tls, Limit::new(max_in_flight), resolver), timeouts }
    }

    /// One GET; `anew`: on a new connection.
    pub(crate) async fn send(&self, anew: bool) -> Result<Response<ResponseBody>, Failed> {
        let mut request = Request::get("/").header("host", "a").body(Outgoing::full(Bytes::new())).ok();
        let deadline = Instant::now() + self.timeouts.total;
        let permit = self.connections.limit().enter(deadline).await;
        let permit = permit.map_err(|error| Failed { error, phase: Phase::NeverSent })?;
        self.connections.send(&mut request, &self.timeouts, deadline, Instant::now(), anew, permit).await
    }

    /// The content of the answer to one GET.
    pub(crate) async fn get(&self) -> String {
        text(self.send(false).await.unwrap()).await
    }

    /// How one GET fails.
    pub(crate) async fn phase(&self, anew: bool) -> Option<Phase> {
        self.send(anew).await.err().map(|failed| failed.phase)
    }
}

/// The whole content. After it, the connection is free.
pub(crate) async fn text(response: Response<ResponseBody>) -> String {
    use http_body_util::BodyExt;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
