//! Thousands of conversations under as many limits.

use std::sync::Mutex;

use bytes::Bytes;
use fastrand::Rng;
use pillion::window::{self, Counter, Encoding, Policy, Reading};
use serde_json::Value;

use crate::expected::{Expected, Places, expect};
use crate::histories::{self, Element, Feature, History, Role};
use crate::signing::sign;
use crate::strict::{self, Dialect};
use crate::tally::Tally;
use crate::{python, tokens};

/// Of each dialect, for another parser.
const SAMPLE: usize = 2000;

pub(crate) fn histories() -> u64 {
    std::env::var("PILLION_WINDOW_HISTORIES").map_or(4_000, |count| count.parse().unwrap())
}

#[test]
fn chat_completions() {
    hold(Dialect::Chat);
}

#[test]
fn responses() {
    hold(Dialect::Responses);
}

#[test]
fn messages() {
    hold(Dialect::Messages);
}

fn hold(dialect: Dialect) {
    let (count, threads) = (histories(), std::thread::available_parallelism().map_or(1, usize::from) as u64);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let tally = &tally;
            scope.spawn(move || {
                let mut own = Tally::default();
                let counter = Counter::new();
                for number in (thread..count).step_by(threads as usize) {
                    check(dialect, number, &counter, &mut own);
                }
                tally.lock().unwrap().add(own);
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    tally.print(&format!("{dialect:?}"));
    tally.at_least("cut", tally.cut, 40.0);
    tally.at_least("kept more than the last turn", tally.within_limits, 15.0);
    tally.at_least("taken by the vendor's rules", tally.taken, 70.0);
    let thinking = tally.features.get(&Feature::Thinking).copied().unwrap_or_default();
    tally.at_least("with thinking", thinking, 10.0);
    let rare =
        ["bom", "invalid_json", "too_deep", "duplicate_member", "unreadable_message"].map(|why| (why, 0.2));
    let often = [("not_utf8", 0.1), ("thinking", 1.5), ("cache_breakpoint", 2.5)];
    let own: &[(&str, f64)] = match dialect {
        Dialect::Chat => &[("no_user_turn", 0.1)],
        Dialect::Responses => {
            &[("no_user_turn", 0.1), ("server_state", 0.2), ("item_reference", 0.2), ("compaction", 0.2)]
        }
        Dialect::Messages => &[("server_state", 0.2), ("compaction", 0.2)],
    };
    for (why, percent) in rare.iter().chain(&often).chain(own) {
        tally.at_least(why, tally.untouched.get(why).copied().unwrap_or_default(), *percent);
    }
    let sample = &tally.sample[..tally.sample.len().min(SAMPLE)];
    python::agrees(dialect, sample);
}

pub(crate) fn dialect(dialect: Dialect) -> window::Dialect {
    match dialect {
        Dialect::Chat => window::Dialect::Chat,
        Dialect::Responses => window::Dialect::Responses,
        Dialect::Messages => window::Dialect::Messages,
    }
}

/// The policy of a number: mostly limits that cut.
fn policy(dialect: Dialect, rng: &mut Rng) -> Policy {
    let max_messages = if rng.u8(..6) == 0 { 0 } else { rng.usize(1..20) };
    let max_bytes = if rng.u8(..4) > 0 { 0 } else { rng.u64(100..8_000) };
    let max_tokens = if rng.u8(..4) > 0 { 0 } else { rng.u64(20..3_000) };
    let counted = [Encoding::Auto, Encoding::O200k, Encoding::Cl100k];
    Policy {
        enabled: true,
        shadow: rng.u8(..32) == 0,
        dialect: self::dialect(dialect),
        max_messages,
        step: if rng.bool() { 1 } else { rng.usize(0..16) },
        max_bytes,
        max_tokens,
        // Counting takes longer than all the rest.
        encoding: if rng.u8(..12) > 0 { Encoding::Estimate } else { counted[rng.usize(..3)] },
    }
}

/// One conversation under one policy.
struct Case<'c> {
    number: u64,
    policy: &'c Policy,
    history: &'c History,
    reading: &'c Reading,
}

impl Case<'_> {
    /// Fails with all that it takes to see it again.
    fn holds(&self, what: &str, is: bool) {
        let Self { number, policy, history, reading } = self;
        assert!(
            is,
            "{what}\n{:?} {number} {}, {policy:?}\n{reading:?}\n{}",
            history.dialect,
            history.shape(),
            String::from_utf8_lossy(&history.body)
        );
    }
}

fn check(dialect: Dialect, number: u64, counter: &Counter, tally: &mut Tally) {
    let mut history = histories::generate(dialect, number);
    let mut rng = Rng::with_seed(!number);
    let policy = policy(dialect, &mut rng);
    let is_taken = history.hindrance().is_none();
    if is_taken {
        sign(&mut history, |_| 0);
        taken(&history, &history.body, number);
        tally.taken += 1;
    }
    let original = history.clone();
    let by = tokens::encoding(&policy, original.model);
    let places = Places::new(&original, &policy, |element| {
        // Where the body is cut short there is nothing to weigh.
        tokens::weigh(by, element, original.body.get(element.span.clone()).unwrap_or_default())
    });
    if is_taken && history.has(Feature::Thinking) {
        sign(&mut history, |n| places.frozen(n));
    }
    let body = Bytes::copy_from_slice(&history.body);
    let reading = window::read(&body, &policy, counter, &[]);
    tally.count(&reading, body.len());
    for feature in &history.features {
        *tally.features.entry(*feature).or_default() += 1;
    }

    if is_taken {
        figures(&history, &reading, number);
    }
    let case = Case { number, policy: &policy, history: &history, reading: &reading };
    let expected = expect(&history, &places);
    let Reading { removed, forwarded, untouched, .. } = reading;
    let is_expected = expected == Expected { removed, forwarded, untouched };
    case.holds(&format!("the longest that the limits allow: {expected:?}"), is_expected);
    case.holds("what is left out has bytes", reading.cut.is_some() == (removed > 0 && !policy.shadow));
    if reading.cut.is_some() {
        trimmed(&case, &body, counter, tally);
    }
}

/// What is told of a conversation, beside where it is cut.
fn figures(history: &History, reading: &Reading, number: u64) {
    let estimate = |element: &Element| tokens::weigh(None, element, &history.body[element.span.clone()]);
    let count =
        |is: fn(&Element) -> bool| history.elements.iter().filter(|element| is(element)).count() as u64;
    let elements = history.behind_head();
    let bytes =
        elements.first().zip(elements.last()).map_or(0, |(first, last)| last.span.end - first.span.start);
    let figures = reading.figures;
    let told = [figures.messages, figures.user, figures.assistant, figures.tokens, figures.bytes];
    let known = [
        history.elements.len() as u64,
        count(|element| element.role == Role::User),
        count(|element| element.role == Role::Assistant),
        history.elements.iter().map(estimate).sum(),
        bytes as u64,
    ];
    assert_eq!(
        told,
        known,
        "{:?} {number} {}\n{}",
        history.dialect,
        history.shape(),
        String::from_utf8_lossy(&history.body)
    );
    let gone = &elements[..reading.removed];
    assert_eq!(figures.removed_tokens, gone.iter().map(estimate).sum::<u64>());
    let bytes = gone.first().map_or(0, |first| elements[gone.len()].span.start - first.span.start);
    assert_eq!(figures.removed_bytes, bytes as u64);
}

/// What is forwarded in place of a conversation that is cut.
fn trimmed(case: &Case<'_>, body: &Bytes, counter: &Counter, tally: &mut Tally) {
    let Case { policy, history, reading, number } = case;
    let cut = reading.cut.clone().unwrap_or_default();
    let elements = history.behind_head();
    let (gone, kept) = elements.split_at(reading.removed);
    let (first, last) = (&kept[0], &kept[kept.len() - 1]);

    // Outside of the cut nothing is changed, and the cut is whole messages with what separates them from the next.
    let sent = window::splice(body, &cut).concat();
    case.holds("it begins at a message", cut.start == gone[0].span.start);
    case.holds("it ends before one", cut.end == first.span.start);
    let put_back = [&sent[..cut.start], &body[cut.clone()], &sent[cut.start..]].concat();
    case.holds("left out and kept are the original", put_back == *body);
    case.holds("the head stays", history.elements[..history.head].iter().all(|e| e.span.end <= cut.start));
    case.holds("a turn begins what is kept", first.turn);
    let last_turn = elements.iter().rposition(|element| element.turn).unwrap_or_default();
    case.holds("the last turn stays", reading.removed <= last_turn);

    // More than the last turn stays only within the limits, but for thinking.
    if reading.untouched.is_none() && reading.removed < last_turn {
        tally.within_limits += 1;
        let bytes = (last.span.end - first.span.start) as u64;
        case.holds("no more messages", policy.max_messages == 0 || kept.len() <= policy.max_messages);
        case.holds("no more bytes", policy.max_bytes == 0 || bytes <= policy.max_bytes);
    }

    // Steps are counted from the first message, which is another now: thinking may be found to have begun elsewhere.
    let again = window::read(&Bytes::from(sent.clone()), policy, counter, &[]);
    let is_steady = policy.step <= 1 || !history.has(Feature::Thinking);
    case.holds("trimmed again it stays", !is_steady || (again.cut.is_none() && again.removed == 0));
    let parsed: Result<Value, _> = serde_json::from_slice(&sent);
    case.holds("it is JSON", parsed.is_ok());
    taken(history, &sent, *number);
    if tally.sample.len() < SAMPLE {
        tally.sample.push((body.to_vec(), sent));
    }
}

fn taken(history: &History, body: &[u8], number: u64) {
    let request: Value = serde_json::from_slice(body).unwrap();
    if let Err(rejection) = strict::check(history.dialect, &request) {
        let body = String::from_utf8_lossy(body);
        let whole = String::from_utf8_lossy(&history.body);
        panic!("{:?} {number} is refused: {}\n{body}\nout of\n{whole}", history.dialect, rejection.message);
    }
}
