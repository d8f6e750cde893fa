//! Requests on a schedule, and many at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::options::{Failure, Options};
use crate::stats::{Samples, now};

/// Sleeps to shortly before, then spins: a timer's slack would be measured along otherwise.
fn wait_until(due: Instant) {
    const SPIN: Duration = Duration::from_micros(150);
    while let Some(left) = due.checked_duration_since(Instant::now()) {
        match left.checked_sub(SPIN) {
            Some(rest) if !rest.is_zero() => thread::sleep(rest),
            _ => std::hint::spin_loop(),
        }
    }
}

/// An open loop: `--rate` requests a second, each timed from when it was due, not from when its turn came.
pub(crate) fn rate(options: &Options) -> Result<(), Failure> {
    let to = options.text("to")?.to_owned();
    let request = Arc::new(options.request()?);
    let rate: f64 = options.number("rate", 300.0)?;
    let seconds: f64 = options.number("seconds", 4.0)?;
    let connections: usize = options.number("connections", 8)?;
    let each = (rate * seconds / connections as f64).ceil() as usize;
    let begin = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0..connections)
        .map(|lane| {
            let (to, request) = (to.clone(), Arc::clone(&request));
            thread::spawn(move || -> Result<(Vec<u64>, u64), Failure> {
                let mut connection = Connection::to(&to)?;
                let (mut taken, mut errors) = (Vec::with_capacity(each), 0);
                for turn in 0..each {
                    let due = begin + Duration::from_secs_f64((turn * connections + lane) as f64 / rate);
                    wait_until(due);
                    let answered = (|| {
                        connection.write(&request)?;
                        let head = connection.head()?;
                        connection.content(&head, |_| ())?;
                        Ok::<_, std::io::Error>(head.status())
                    })();
                    match answered {
                        Ok(200) => taken.push(due.elapsed().as_nanos() as u64),
                        Ok(_) => errors += 1,
                        Err(_) => {
                            errors += 1;
                            connection = Connection::to(&to)?;
                        }
                    }
                }
                Ok((taken, errors))
            })
        })
        .collect();
    let (mut samples, mut errors) = (Samples::default(), 0);
    for thread in threads {
        let (taken, failed) = thread.join().map_err(|_| "a thread panicked")??;
        // The first of each connection pays for the proxy's own connect.
        samples.0.extend(taken.into_iter().skip(1));
        errors += failed;
    }
    println!("{{{},\"errors\":{errors}}}", samples.members("latency"));
    Ok(())
}

/// The same request on every connection at once; how long after the upstream's answer each was answered.
pub(crate) fn herd(options: &Options) -> Result<(), Failure> {
    let to = options.text("to")?.to_owned();
    let request = Arc::new(options.request()?);
    let connections: usize = options.number("connections", 64)?;
    let start = Arc::new(Barrier::new(connections));
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (to, request, start) = (to.clone(), Arc::clone(&request), Arc::clone(&start));
            thread::spawn(move || -> Result<(u16, u64), Failure> {
                let opened = Connection::to(&to);
                start.wait();
                let mut connection = opened?;
                connection.write(&request)?;
                let head = connection.head()?;
                let mut content = Vec::new();
                connection.content(&head, |piece| content.extend_from_slice(piece))?;
                let arrived = now();
                let stamp = crate::streams::stamps(&content).next().ok_or("an answer without stamp")?;
                Ok((head.status(), arrived.saturating_sub(stamp)))
            })
        })
        .collect();
    let (mut samples, mut errors) = (Samples::default(), 0);
    for thread in threads {
        match thread.join().map_err(|_| "a thread panicked")? {
            Ok((200, delay)) => samples.0.push(delay),
            _ => errors += 1,
        }
    }
    println!("{{{},\"errors\":{errors}}}", samples.members("delay"));
    Ok(())
}

/// `--count` different requests, each once: the seven `#` in the content are the number of each.
pub(crate) fn fill(options: &Options) -> Result<(), Failure> {
    const MARK: &[u8] = b"#######";
    let to = options.text("to")?.to_owned();
    let request = options.request()?;
    let mark = request.windows(MARK.len()).position(|window| window == MARK).ok_or("nothing to number")?;
    let count: usize = options.number("count", 1000)?;
    let connections: usize = options.number("connections", 32)?;
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (to, mut request, next) = (to.clone(), request.clone(), Arc::clone(&next));
            thread::spawn(move || -> Result<usize, Failure> {
                let mut connection = Connection::to(&to)?;
                let mut errors = 0;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(errors);
                    }
                    request[mark..mark + MARK.len()].copy_from_slice(format!("{number:07}").as_bytes());
                    connection.write(&request)?;
                    let head = connection.head()?;
                    connection.content(&head, |_| ())?;
                    errors += usize::from(head.status() != 200);
                }
            })
        })
        .collect();
    let mut errors = 0;
    for thread in threads {
        errors += thread.join().map_err(|_| "a thread panicked")??;
    }
    println!("{{\"asked\":{count},\"errors\":{errors}}}");
    Ok(())
}
