//! `pillion demo`: the whole story on one machine, with nothing else installed.
//!
//! The same seeded traffic runs twice over real sockets in real time: once from a scripted bot straight to an embedded
//! upstream that fails 5 % of calls, once through a real Pillion in front of a fresh copy of that upstream. Every
//! figure is measured at the bot or at the upstream, none is Pillion's own word, save that a hit is told by its
//! `Cache-Status`. A claim that does not hold ends the demo with 1.

mod bot;
mod chat;
mod checker;
mod corpus;
mod faults;
mod figures;
mod index;
mod proxy;
mod table;
mod traffic;
mod upstream;

use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use self::bot::Target;
use self::checker::Checker;
use self::figures::Side;
use self::proxy::Pillion;
use self::traffic::Script;
use self::upstream::Upstream;

/// What `pillion demo` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Print the figures as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Leave the upstream and Pillion running afterwards, for curl
    #[arg(long)]
    pub serve: bool,
    /// Another traffic with other faults
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Conversations side by side
    #[arg(long, default_value_t = 24, value_name = "N", hide = true)]
    pub conversations: usize,
    /// Turns of each conversation
    #[arg(long, default_value_t = 60, value_name = "N", hide = true)]
    pub turns: usize,
}

/// Ports for `--serve`, so that the lines to try can be remembered: the model, the index.
const UPSTREAM_PORTS: [u16; 2] = [9801, 9802];

/// Runs the demo; an error when a claim did not hold.
pub async fn run(args: &Args) -> Result<(), String> {
    let script = Script::new(args.seed, args.conversations, args.turns);
    eprintln!(
        "{} conversations of {} turns; {:.0} % of the searches repeat an earlier one; seed {}.",
        args.conversations,
        args.turns,
        script.repeat_share * 100.0,
        args.seed
    );
    let upstream = Upstream::start(args.seed, [0, 0]).await?;
    let target = target(upstream.model, "/v1", upstream.vector, "")?;
    let direct = side("directly", &script, &target, &upstream, false).await;
    drop(upstream);

    let upstream = Upstream::start(args.seed, if args.serve { UPSTREAM_PORTS } else { [0, 0] }).await?;
    let pillion = Pillion::start(upstream.model, upstream.vector, args.serve).await?;
    let target = self::target(pillion.data, "/openai/v1", pillion.data, "/vector")?;
    let through = side("through Pillion", &script, &target, &upstream, true).await;

    let claims = table::claims(&direct, &through);
    let text = if args.json {
        format!("{}\n", json!({"direct": direct, "pillion": through}))
    } else {
        let notes = table::notes(script.repeat_share, &direct, &through);
        format!("\n{}\n{notes}\n{}", table::render(&direct, &through), table::verdicts(&claims))
    };
    // Whoever closed the pipe wants no more of it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if args.serve {
        serve(args.json, &pillion, &upstream).await?;
    }
    pillion.stop().await;
    let broken: Vec<String> =
        claims.into_iter().filter(|claim| !claim.held).map(|claim| claim.text).collect();
    if broken.is_empty() { Ok(()) } else { Err(format!("not as claimed: {}", broken.join("; "))) }
}

fn target(
    chat: SocketAddr,
    chat_path: &str,
    vector: SocketAddr,
    vector_path: &str,
) -> Result<Target, String> {
    Ok(Target {
        chat: format!("http://{chat}{chat_path}").parse()?,
        vector: format!("http://{vector}{vector_path}").parse()?,
    })
}

/// One run of the script, with its progress on standard error.
async fn side(name: &str, script: &Script, target: &Target, upstream: &Upstream, cached: bool) -> Side {
    let checker = Arc::new(Checker::new(Arc::clone(&upstream.index)));
    let turns = Arc::new(AtomicUsize::new(0));
    let watching = tokio::spawn(progress(name.to_owned(), script.turns(), Arc::clone(&turns)));
    let start = Instant::now();
    let records = bot::play(script, target, &checker, &turns).await;
    let took = start.elapsed();
    watching.abort();
    let end = if std::io::stderr().is_terminal() { "\r" } else { "" };
    eprintln!("{end}{name}: {} turns in {:.0} s        ", script.turns(), took.as_secs_f64());
    Side::new(&records, &upstream.seen, checker.tally(), took, cached)
}

async fn progress(name: String, of: usize, turns: Arc<AtomicUsize>) {
    let terminal = std::io::stderr().is_terminal();
    // In a log file a line now and then is enough.
    let every = Duration::from_millis(if terminal { 200 } else { 10_000 });
    loop {
        tokio::time::sleep(every).await;
        let done = turns.load(Ordering::Relaxed);
        if terminal {
            eprint!("\r{name}: {done} of {of} turns ");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{name}: {done} of {of} turns");
        }
    }
}

/// Prints what to try and waits for Ctrl-C.
async fn serve(json: bool, pillion: &Pillion, upstream: &Upstream) -> Result<(), String> {
    let (data, admin) = (pillion.data, pillion.admin);
    let program = std::env::args().next().unwrap_or_else(|| "pillion".to_owned());
    let text = format!(
        "\nLeft running, faults and all, until Ctrl-C. To try:\n\n\
         # Twice: the second time `Cache-Status` says hit.\n\
         curl -i http://{data}/vector/query-data/help \\\n  \
           -d '{{\"topK\":3,\"includeData\":true,\"data\":\"Where is my parcel?\"}}'\n\
         # A write; the search after it is a miss and finds what was written.\n\
         curl -i http://{data}/vector/upsert-data/help \\\n  \
           -d '[{{\"id\":\"mine\",\"data\":\"Your parcel is on the moon.\"}}]'\n\
         # A chat call, streamed.\n\
         curl -iN http://{data}/openai/v1/chat/completions -d '{{\"model\":\"gpt-4o\",\n  \
           \"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello?\"}}]}}'\n\
         # What Pillion measured.\n\
         curl -s http://{admin}/metrics | grep -vE '^#|_bucket|[ ]0$'\n\
         {program} report --admin http://{admin}\n\n\
         The upstream itself: model http://{}/v1, index http://{}\n",
        upstream.model, upstream.vector
    );
    // Standard output is the figures' alone when they are JSON.
    let _ = if json {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    };
    tokio::signal::ctrl_c().await.map_err(|error| format!("cannot wait for Ctrl-C: {error}"))
}

#[cfg(test)]
mod tests;
