//! Drives and feeds what the lab measures: plain threads and blocking sockets, one JSON line of figures on stdout.
//!
//! `upstream` answers; `rate`, `streams`, `herd`, `hold`, `fill` and `day` ask. Every one of them is bounded in connections
//! and in time. What wrk does well (as many requests as possible) is left to wrk.

mod ask;
mod day;
mod http;
mod mix;
mod options;
mod relay;
mod stats;
mod streams;
mod upstream;
mod watch;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let done = Options::read(words).and_then(|options| match command.as_str() {
        "upstream" => upstream::run(&options),
        "rate" => ask::rate(&options),
        "herd" => ask::herd(&options),
        "streams" => streams::streams(&options),
        "hold" => streams::hold(&options),
        "fill" => ask::fill(&options),
        "day" => day::day(&options),
        "mix" => mix::mix(&options),
        "relay" => relay::relay(&options),
        "watch" => watch::watch(&options),
        _ => {
            Err("usage: bench-load upstream|rate|herd|streams|hold|fill|day|mix|relay|watch --to ADDRESS ..."
                .into())
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-load {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
