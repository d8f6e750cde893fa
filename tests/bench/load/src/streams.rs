//! Streams of events: how late each arrives, and what an open one costs.

use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::options::{Failure, Options};
use crate::stats::{Samples, now};

const MARK: &[u8] = b"\"t\":";
/// Digits of nanoseconds since 1970, until the year 2286.
const DIGITS: usize = 19;

/// The upstream's stamps in whole content.
pub(crate) fn stamps(content: &[u8]) -> impl Iterator<Item = u64> + '_ {
    content.windows(MARK.len() + DIGITS).filter(|window| window.starts_with(MARK)).filter_map(|window| {
        std::str::from_utf8(&window[MARK.len()..]).ok().and_then(|digits| digits.parse().ok())
    })
}

#[derive(Default)]
struct Heard {
    streams: u64,
    events: u64,
    reads: u64,
    errors: u64,
    first: Samples,
    delay: Samples,
}

/// `--connections` clients, each hearing one stream after the other for `--seconds`.
pub(crate) fn streams(options: &Options) -> Result<(), Failure> {
    let to = options.text("to")?.to_owned();
    let request = Arc::new(options.request()?);
    let expected: u64 = options.number("events", 40)?;
    let connections: u64 = options.number("connections", 32)?;
    let length = Duration::from_secs_f64(options.number("seconds", 4.0)?);
    let end = Instant::now() + length;
    let threads: Vec<_> = (0..connections)
        .map(|lane| {
            let (to, request) = (to.clone(), Arc::clone(&request));
            thread::spawn(move || -> Result<Heard, Failure> {
                let mut heard = Heard::default();
                let mut connection = Connection::to(&to)?;
                // Spread, or the events of all streams come at the same moment.
                thread::sleep(Duration::from_micros(lane * 200_000 / connections));
                while Instant::now() < end {
                    let (reads, asked) = (connection.reads, now());
                    connection.write(&request)?;
                    let head = connection.head()?;
                    let (mut events, mut rest) = (0, Vec::new());
                    connection.content(&head, |piece| {
                        let arrived = now();
                        rest.extend_from_slice(piece);
                        for stamp in stamps(&rest) {
                            if events == 0 {
                                heard.first.0.push(arrived.saturating_sub(asked));
                            }
                            heard.delay.0.push(arrived.saturating_sub(stamp));
                            events += 1;
                        }
                        // The end of a piece may cut a stamp, and none is to be found twice.
                        let last = rest.windows(MARK.len()).rposition(|window| window == MARK);
                        let open = rest.len().saturating_sub(MARK.len() + DIGITS - 1);
                        rest.drain(..last.filter(|at| *at >= open).unwrap_or(open));
                    })?;
                    heard.streams += 1;
                    heard.events += events;
                    heard.reads += connection.reads - reads;
                    heard.errors += u64::from(head.status() != 200 || events != expected);
                }
                Ok(heard)
            })
        })
        .collect();
    let mut all = Heard::default();
    for thread in threads {
        let heard = thread.join().map_err(|_| "a thread panicked")??;
        all.streams += heard.streams;
        all.events += heard.events;
        all.reads += heard.reads;
        all.errors += heard.errors;
        all.first.0.extend(heard.first.0);
        all.delay.0.extend(heard.delay.0);
    }
    println!(
        "{{\"streams\":{},\"events\":{},\"reads\":{},\"errors\":{},{},{}}}",
        all.streams,
        all.events,
        all.reads,
        all.errors,
        all.first.members("first"),
        all.delay.members("delay")
    );
    Ok(())
}

/// Opens `--connections` streams, reports when each has had its first event, holds them until stdin ends.
pub(crate) fn hold(options: &Options) -> Result<(), Failure> {
    let to = options.text("to")?;
    let request = options.request()?;
    let wanted: usize = options.number("connections", 1000)?;
    let mut open = Vec::with_capacity(wanted);
    let mut errors = 0;
    for _ in 0..wanted {
        let opened = Connection::to(to).and_then(|mut connection| {
            connection.write(&request)?;
            let head = connection.head()?;
            Ok((connection, head))
        });
        match opened {
            Ok((connection, head)) if head.status() == 200 => open.push(connection),
            _ => errors += 1,
        }
    }
    println!("{{\"open\":{},\"errors\":{errors}}}", open.len());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}
