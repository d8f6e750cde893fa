//! What steps are for: the beginning of what is forwarded stays from request to request, and with it the provider's
//! prompt cache.

use bytes::Bytes;
use fastrand::Rng;
use pillion::window::{self, Counter, Encoding, Policy};

use crate::histories::{Made, Maker, Role, Taste};
use crate::strict::Dialect;

/// Turns of at most this many messages.
const LONGEST: usize = 6;

#[test]
fn the_beginning_stays_for_a_step() {
    let counter = Counter::new();
    for dialect in Dialect::ALL {
        let (mut requests, mut moves) = (0_usize, 0_usize);
        for number in 0..crate::properties::histories() / 200 {
            let mut rng = Rng::with_seed(number);
            let step = rng.usize(2..20);
            let policy = Policy {
                enabled: true,
                shadow: false,
                dialect: crate::properties::dialect(dialect),
                // So that a place at a step is always among what may stay.
                max_messages: step + LONGEST,
                step,
                max_bytes: 0,
                max_tokens: 0,
                encoding: Encoding::Auto,
            };
            let (sent, times) = grow(dialect, rng, &policy, &counter);
            requests += sent;
            moves += times;
        }
        println!("{dialect:?}, in steps: the beginning moved {moves} times in {requests} requests");
        assert!(moves > 0, "{dialect:?}: {moves} of {requests}");
    }
}

/// How many requests there were, and how often the beginning moved.
fn grow(dialect: Dialect, mut rng: Rng, policy: &Policy, counter: &Counter) -> (usize, usize) {
    let taste = Taste { thinks: false, breakpoints: false, late: false };
    let mut maker = Maker::new(dialect, rng.fork(), taste);
    maker.head();
    let head = maker.made.iter().take_while(|made| made.role == Role::Author).count();
    let (mut before, mut at, mut moves, mut requests) = (String::new(), 0, 0, 0);
    for _ in 0..40 {
        let turn = maker.made.len();
        maker.ask();
        if rng.bool() {
            maker.answer(true);
        }
        let asked = maker.made.len();
        maker.answer(false);
        if maker.made.len() - turn > LONGEST {
            maker.made.truncate(turn);
            continue;
        }
        let (sent, removed) = forwarded(dialect, &maker.made[..asked], policy, counter);
        requests += 1;
        if removed == at {
            assert!(sent.starts_with(&before), "what was sent before begins what is sent\n{before}\n{sent}");
        } else {
            // It moved over at least one multiple, to the first turn behind the last of them.
            let multiple = removed / policy.step * policy.step;
            let first = (multiple..asked - head).find(|n| maker.made[head + n].turn);
            assert!(at < multiple, "from {at} to {removed} in steps of {}", policy.step);
            assert_eq!(first, Some(removed), "from {at} in steps of {}", policy.step);
            moves += 1;
        }
        (before, at) = (sent, removed);
    }
    let most = maker.made.len() / policy.step;
    assert!(moves <= most, "moved {moves} times, not {most}, in steps of {}", policy.step);
    (requests, moves)
}

/// What is forwarded, up to and with its last message, and how many messages are left out.
fn forwarded(dialect: Dialect, made: &[Made], policy: &Policy, counter: &Counter) -> (String, usize) {
    let messages: Vec<&str> = made.iter().map(|made| made.text.as_str()).collect();
    let body = format!(r#"{{"model":"m","{}":[{}"#, dialect.member(), messages.join(","));
    let whole = Bytes::from(format!("{body}]}}"));
    let reading = window::read(&whole, policy, counter, &[]);
    assert_eq!(reading.untouched, None);
    let sent = match reading.cut {
        Some(cut) => window::splice(&whole, &cut).concat(),
        None => whole.to_vec(),
    };
    let sent = String::from_utf8(sent).unwrap();
    (sent.trim_end_matches("]}").to_owned(), reading.removed)
}
