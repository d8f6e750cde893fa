//! `pillion check`: what is in force, or everything that is wrong with it.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{self, Config, Environment};
use crate::redis::{Link, Tls};
use crate::upstream;

/// The exit code of a configuration that does not hold (`EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;

/// Round trips that are measured.
const PINGS: usize = 9;
/// One of them, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints the effective configuration, or every problem, and returns the exit code. With `probe` it also asks what the
/// configuration names and Pillion could do without.
pub fn run(config: Option<&Path>, probe: bool, env: &Environment) -> u8 {
    match config::load(config, env) {
        Ok(config) => {
            // A reader that went away, such as `head`, is no failure.
            let _ = write!(std::io::stdout(), "{}", config::effective(&config));
            if probe { super::told(super::block_on(1, probe_redis(&config))) } else { 0 }
        }
        Err(problems) => {
            let _ = writeln!(std::io::stderr(), "{problems}");
            EX_CONFIG
        }
    }
}

/// Measures round trips to Redis, if there is one.
async fn probe_redis(config: &Config) -> Result<(), String> {
    let Some(redis) = &config.redis else {
        let _ = writeln!(std::io::stdout(), "# Probe: no redis.url, nothing to ask.");
        return Ok(());
    };
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", redis.address);
    let (tls, _) = upstream::Tls::new(config.tls_ca.as_deref())?;
    let tls = Tls(tls.of_another_protocol());
    let link = Link::open(&redis.address, &tls).await.map_err(|why| failed(&why))?;
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = Instant::now();
        link.ping(PATIENCE).await.map_err(|why| failed(&why))?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let shown = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let (median, longest) = (times.get(PINGS / 2), times.last());
    let _ = writeln!(
        std::io::stdout(),
        "# Probe: {} answers in {:.2} ms, {:.2} ms at most of {PINGS} times; redis.timeout is {} ms.",
        redis.address,
        shown(median),
        shown(longest),
        redis.timeout.as_millis()
    );
    if longest.is_some_and(|longest| *longest >= redis.timeout) {
        return Err(failed(&"redis.timeout is too short for it: searches would go upstream"));
    }
    Ok(())
}
