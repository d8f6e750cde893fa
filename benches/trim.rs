//! What trimming a conversation of 200 KB to 20 messages costs, beside a parser that does the same with `RawValue`s and
//! beside copying the bytes: in one process and in turns, so that the ratio holds on any machine. `make bench-trim`
//! fails where the lab's conversation costs more than [`BAR`] of the parser's time.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails as tests do")]

use std::borrow::Cow;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillion::window::{self, Policy};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Of the parser's time.
const BAR: f64 = 0.22;
const ROUNDS: usize = 300;
const KEPT: usize = 20;

const PROSE: [&str; 11] =
    ["the ", "bot ", "said ", "that ", "every ", "answer ", "is ", "somewhere ", "in ", "an ", "index "];

/// Name, and what messages are made of at random, as it stands in JSON. The first two are what S3 and S3d of the lab send
/// (tests/bench/lab/wire.py), and S3's is what is held to the bar.
fn texts() -> [(&'static str, Vec<&'static str>); 8] {
    let prose = [PROSE.repeat(29), vec!["\\n "; 22], vec!["\\\"so\\\" "; 9]].concat();
    let dense = [&PROSE[..], &["\\n ", "\\\"so\\\" ", "ünd "]].concat();
    let code = "```rust\\nfn main() {\\n    println!(\\\"{}\\\", \\\"a\\\\n\\\");\\n\\treturn;\\n}\\n```\\n";
    [
        ("the lab's prose", prose),
        ("the lab's, dense", dense),
        ("nothing escaped", vec!["the bot said yes, and then it went on: a line ends here. "]),
        ("many escapes", vec!["the bot said \\\"yes\\\", and then it went on: a line ends here.\\n "]),
        ("code", vec![code]),
        ("Chinese", vec!["你好，世界。这是一个很长的句子，机器人说了很多话。\\n"]),
        ("emoji", vec!["so 😀 it said, and then it went on until the line ended, somewhere in the text\\n"]),
        ("Chinese, escaped", vec!["\\u4f60\\u597d\\uff0c\\u4e16\\u754c"]),
    ]
}

fn main() -> ExitCode {
    let policy = Policy { enabled: true, shadow: false, max_messages: KEPT, step: 1, max_bytes: 20 << 20 };
    let state = vec!["store".to_owned()];
    println!(
        "{:18}{:>9}{:>11}{:>11}{:>9}{:>9}",
        "microseconds", "bytes", "trim", "RawValue", "copy", "ratio"
    );
    let mut ratios = Vec::new();
    for (name, words) in &texts() {
        for messages in [200, KEPT] {
            let body = chat(messages, words);
            let trimmed = window::read(&body, &policy, &state).content;
            assert_eq!(trimmed.as_deref(), parsed(&body).as_deref());
            assert_eq!(trimmed.is_some(), messages > KEPT);
            let mut pieces: [&mut dyn FnMut(); 3] = [
                &mut || drop(black_box(window::read(black_box(&body), &policy, &state))),
                &mut || drop(black_box(parsed(black_box(&body)))),
                &mut || drop(black_box(black_box(&body[..]).to_vec())),
            ];
            let [trim, parser, copy] = medians(&mut pieces);
            let ratio = trim / parser;
            ratios.push(ratio);
            let name = if messages > KEPT { name } else { "  of 20 messages" };
            println!("{name:18}{:>9}{trim:>11.1}{parser:>11.1}{copy:>9.1}{ratio:>9.3}", body.len());
        }
    }
    let [gated, ..] = ratios[..] else { return ExitCode::FAILURE };
    if gated <= BAR {
        return ExitCode::SUCCESS;
    }
    println!("{gated:.3} of the parser's time on the lab's prose is above {BAR}");
    ExitCode::FAILURE
}

/// Each in turn, round by round: what disturbs a machine disturbs all of them.
fn medians(pieces: &mut [&mut dyn FnMut(); 3]) -> [f64; 3] {
    let mut taken = [(); 3].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (piece, taken) in pieces.iter_mut().zip(&mut taken) {
            let begun = Instant::now();
            piece();
            taken.push(begun.elapsed());
        }
    }
    taken.map(|mut taken: Vec<Duration>| {
        taken.sort_unstable();
        taken[ROUNDS / 2].as_secs_f64() * 1e6
    })
}

/// A chat of so many messages of about 1 KB, spelled as Python's `json` does.
fn chat(messages: usize, words: &[&str]) -> Bytes {
    let mut random = fastrand::Rng::with_seed(200);
    let mut turns = vec![r#"{"role": "system", "content": "Be brief."}"#.to_owned()];
    for at in 1..messages {
        let role = if at % 2 == 1 { "user" } else { "assistant" };
        let mut text = String::new();
        while text.len() < 935 {
            text.push_str(random.choice(words).unwrap());
        }
        turns.push(format!(r#"{{"role": "{role}", "content": "{text}"}}"#));
    }
    format!(r#"{{"model": "gpt-4o", "messages": [{}]}}"#, turns.join(", ")).into()
}

/// The same without a scanner of one's own.
fn parsed(body: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Chat<'a> {
        #[serde(borrow)]
        messages: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
    }
    let Chat { messages } = serde_json::from_slice(body).unwrap();
    let message = |raw| serde_json::from_str::<Message<'_>>(RawValue::get(raw)).unwrap();
    let roles: Vec<_> = messages.iter().copied().map(|raw| message(raw).role).collect();
    let head = roles.iter().take_while(|role| **role == "system" || **role == "developer").count();
    let surplus = (messages.len() - head).checked_sub(KEPT).filter(|surplus| *surplus > 0)?;
    let cut = (head + surplus..messages.len()).find(|at| roles[*at] == "user")?;
    let offset = |at: usize| messages[at].get().as_ptr().addr() - body.as_ptr().addr();
    Some([&body[..offset(head)], &body[offset(cut)..]].concat())
}
