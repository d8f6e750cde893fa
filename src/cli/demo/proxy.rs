//! The real Pillion of the demo, configured as a user would: from YAML.

use std::net::SocketAddr;

use crate::app::Running;
use crate::config::{self, Environment};

/// Ports for `--serve`: those of the built-in default.
const PORTS: [u16; 2] = [8080, 9901];

/// A running Pillion.
#[derive(Debug)]
pub(super) struct Pillion {
    /// Its data listener.
    pub(super) data: SocketAddr,
    /// Its admin listener.
    pub(super) admin: SocketAddr,
    running: Running,
}

impl Pillion {
    /// Starts it in front of the model and the index; on the usual ports if asked and they are free.
    pub(super) async fn start(
        model: SocketAddr,
        vector: SocketAddr,
        usual_ports: bool,
    ) -> Result<Self, String> {
        let usual = if usual_ports { start(model, vector, PORTS).await.ok() } else { None };
        let running = match usual {
            Some(running) => running,
            None => start(model, vector, [0, 0]).await?,
        };
        Ok(Self { data: running.data_addr(), admin: running.admin_addr(), running })
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        self.running.stop().await;
    }
}

async fn start(model: SocketAddr, vector: SocketAddr, ports: [u16; 2]) -> Result<Running, String> {
    let text = configuration(model, vector, ports);
    // Not the environment of whoever runs the demo: its figures are those of this text alone.
    let config = config::parse(&text, Some("the demo".into()), &Environment::new())
        .map_err(|problems| problems.to_string())?;
    Running::start(config).await.map_err(|error| error.to_string())
}

fn configuration(model: SocketAddr, vector: SocketAddr, [data, admin]: [u16; 2]) -> String {
    format!(
        "version: 1\n\
         listen: 127.0.0.1:{data}\n\
         admin:\n  listen: 127.0.0.1:{admin}\n\
         routes:\n\
         - name: openai\n  path: /openai\n  upstream: http://{model}\n  preset: openai\n\
         - name: vector\n  path: /vector\n  upstream: http://{vector}\n  preset: upstash-vector\n  \
           cache:\n    settle: 0s\n"
    )
}
