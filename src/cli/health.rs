//! `pillion health`: the probe for containers that have no other client.

use std::time::Duration;

use super::http::{self, Base};

/// A probe that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// What `pillion health` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The admin listener of the Pillion to ask
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    pub admin: String,
}

/// Asks `/readyz`; an error when it is not ready or does not answer.
pub async fn run(args: &Args) -> Result<(), String> {
    let base: Base = args.admin.parse()?;
    let answer = http::get(&base, "/readyz", None, PATIENCE)
        .await
        .map_err(|error| format!("{error}\nIs Pillion running, and is this its admin listener (--admin)?"))?;
    if answer.status == 200 {
        return Ok(());
    }
    Err(format!("not ready: {}", String::from_utf8_lossy(&answer.content).trim()))
}
