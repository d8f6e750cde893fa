//! A bot's searches and writes through two instances, on a fixed schedule: an open loop that says of each request what
//! came of it.
//!
//! Of 100 requests 1 writes; 19 ask what nobody has asked, 19 ask through the other instance what was asked half a second
//! ago, and the rest ask one of a few questions again. Each request goes through an instance that the schedule names.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _, stdout};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, request};
use crate::options::{Failure, Options};
use crate::stats::{Random, now};

const NAMESPACES: u64 = 64;
/// Questions that are asked again and again.
const USUAL: u64 = 128;
/// One asked through one instance is asked through the other so many requests later, and is stored by then.
const LATER: u64 = 519;
/// Writes may wait for a second each, and must not make searches late: they have connections of their own.
const SEARCHING: u64 = 48;
const WRITING: u64 = 16;

/// What the schedule has at one place.
struct Turn {
    write: bool,
    instance: usize,
    namespace: u64,
    question: u64,
}

fn turn(at: u64) -> Turn {
    let mut random = Random(at);
    let question = |number: u64| Turn {
        write: false,
        instance: (number % 2) as usize,
        namespace: Random(number).below(NAMESPACES),
        question: number,
    };
    match at % 100 {
        0 => Turn {
            write: true,
            instance: (at / 100 % 2) as usize,
            namespace: random.below(NAMESPACES),
            question: 0,
        },
        1..=19 => question(at),
        20..=38 if at >= LATER => {
            let before = question(at - LATER);
            Turn { instance: 1 - before.instance, ..before }
        }
        _ => Turn { instance: random.below(2) as usize, ..question(u64::MAX - random.below(USUAL)) },
    }
}

/// A question as 64 numbers: the same question is the same bytes.
fn search(question: u64) -> String {
    let mut random = Random(question);
    let mut body = String::from("{\"topK\":5,\"vector\":[");
    for at in 0..64 {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(body, "{comma}0.{:08}", random.below(100_000_000));
    }
    body.push_str("]}");
    body
}

/// A line for each request: when it was due (nanoseconds since 1970), when it was sent and answered (after that), `w` or
/// `s`, instance, namespace, status (0: none), the version that the store told, and what the cache says.
fn ask(
    connection: &mut Connection,
    turn: &Turn,
    path: &str,
    due: Instant,
    stamp: u64,
    out: &mut String,
) -> bool {
    let asked = if turn.write {
        request(&format!("{path}/upsert/n{}", turn.namespace), &[], b"[{\"id\":\"1\",\"vector\":[0.5]}]")
    } else {
        request(&format!("{path}/query/n{}", turn.namespace), &[], search(turn.question).as_bytes())
    };
    let (sent, mut content) = (due.elapsed(), Vec::new());
    let answered = (|| {
        connection.write(&asked)?;
        let head = connection.head()?;
        connection.content(&head, |piece| content.extend_from_slice(piece))?;
        Ok::<_, std::io::Error>(head)
    })();
    let (status, cache) = answered.as_ref().map_or((0, ""), |head| (head.status(), head.cache.as_str()));
    let _ = writeln!(
        out,
        "{stamp},{},{},{},{},{},{status},{},{cache}",
        sent.as_nanos(),
        due.elapsed().as_nanos(),
        if turn.write { 'w' } else { 's' },
        turn.instance,
        turn.namespace,
        version(&content),
    );
    answered.is_ok()
}

/// `"v":NUMBER`, or -1.
fn version(content: &[u8]) -> i64 {
    let text = std::str::from_utf8(content).unwrap_or_default();
    let told = text.split_once("\"v\":").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    told.flatten().and_then(|digits| digits.parse().ok()).unwrap_or(-1)
}

/// `--rate` requests a second for `--seconds`, through two `--to`. Says when it begins, and at the end what came of it.
pub(crate) fn mix(options: &Options) -> Result<(), Failure> {
    let [one, two] = options.all("to") else { return Err("two instances are asked".into()) };
    let path = options.text("path")?;
    let rate: f64 = options.number("rate", 1000.0)?;
    let count = (rate * options.number("seconds", 10.0)?) as u64;
    let (begin, stamp) = (Instant::now() + Duration::from_millis(100), now() + 100_000_000);
    println!("{stamp}");
    let lane = |number: u64| {
        let (to, path) = ([one.clone(), two.clone()], path.to_owned());
        let mine = move |at: &u64| match at % 100 {
            0 => SEARCHING + at / 100 % WRITING == number,
            _ => at % SEARCHING == number,
        };
        move || -> Result<String, Failure> {
            let mut connections = [Connection::to(&to[0])?, Connection::to(&to[1])?];
            let mut out = String::new();
            for at in (0..count).filter(mine) {
                let (turn, after) = (turn(at), Duration::from_secs_f64(at as f64 / rate));
                // Its slack is in every phase alike; to spin would keep the core from those who are to answer.
                thread::sleep((begin + after).saturating_duration_since(Instant::now()));
                let stamp = stamp + after.as_nanos() as u64;
                if !ask(&mut connections[turn.instance], &turn, &path, begin + after, stamp, &mut out) {
                    connections[turn.instance] = Connection::to(&to[turn.instance])?;
                }
            }
            Ok(out)
        }
    };
    let lanes: Vec<_> = (0..SEARCHING + WRITING).map(|number| thread::spawn(lane(number))).collect();
    let mut out = BufWriter::new(stdout());
    for lane in lanes {
        out.write_all(lane.join().map_err(|_| "a thread panicked")??.as_bytes())?;
    }
    Ok(out.flush()?)
}
