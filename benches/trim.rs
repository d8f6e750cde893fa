//! What trimming a conversation to 20 messages costs, beside a parser that does the same with `RawValue`s, one that reads
//! and writes it as `serde_json::Value`, and copying the bytes: in one process and in turns, so that the ratio holds on any
//! machine. `make bench-trim` fails where a conversation of the lab's prose, 200 KB of 200 messages or 20 MB of 2,000,
//! costs more than [`RAW`] of the one or [`TREE`] of the other.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails as tests do")]

use std::borrow::Cow;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillion::window::{self, Counter, Dialect, Encoding, Policy};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Of the time with `RawValue`s; of 20 MB, which no cache of a CPU holds, a third.
const RAW: [f64; 2] = [0.22, 1.0 / 3.0];
/// Of the time with a tree.
const TREE: f64 = 0.2;
/// For 200 KB; fewer for what takes longer.
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
    println!(
        "{:18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}{:>9}{:>9}",
        "microseconds", "bytes", "trim", "RawValue", "Value", "copy", "of Raw", "of Value", "MB/s"
    );
    let mut held = true;
    for (at, (name, words)) in texts().iter().enumerate() {
        let sizes: &[_] = if at == 0 { &[(200, 935), (KEPT, 935), (2000, 9_900)] } else { &[(200, 935)] };
        for &(messages, length) in sizes {
            let body = chat(messages, length, words);
            let [of_raw, of_tree] = compared(name, messages, &body);
            let bar = RAW[usize::from(messages > 200)];
            if at == 0 && messages > KEPT && (of_raw > bar || of_tree > TREE) {
                println!("above {bar:.2} of RawValue, or {TREE:.2} of Value");
                held = false;
            }
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a row; tells the ratios to `RawValue` and to `Value`.
fn compared(name: &str, messages: usize, body: &Bytes) -> [f64; 2] {
    let policy = Policy {
        enabled: true,
        shadow: false,
        dialect: Dialect::Chat,
        max_messages: KEPT,
        step: 1,
        max_bytes: 20 << 20,
        max_tokens: 0,
        encoding: Encoding::Auto,
    };
    let (state, counter) = (vec!["store".to_owned()], Counter::new());
    let trim = |body: &Bytes| {
        let reading = window::read(body, &policy, &counter, &state);
        reading.cut.map(|cut| window::splice(body, &cut))
    };
    let trimmed = trim(body).map(|pieces| pieces.concat());
    assert_eq!(trimmed.as_deref(), parsed(body).as_deref());
    assert_eq!(trimmed.is_some(), messages > KEPT);
    assert_eq!(tree(body).is_some(), messages > KEPT);
    let mut pieces: [&mut dyn FnMut(); 4] = [
        &mut || drop(black_box(trim(black_box(body)))),
        &mut || drop(black_box(parsed(black_box(body)))),
        &mut || drop(black_box(tree(black_box(body)))),
        &mut || drop(black_box(black_box(&body[..]).to_vec())),
    ];
    let rounds = if body.len() > 1 << 20 { ROUNDS / 10 } else { ROUNDS };
    let [trim, raw, tree, copy] = medians(&mut pieces, rounds);
    let (of_raw, of_tree, speed) = (trim / raw, trim / tree, body.len() as f64 / trim);
    let name = if messages > KEPT { name } else { "  of 20 messages" };
    let name = if messages > 200 { "  of 2,000 messages" } else { name };
    println!(
        "{name:18}{:>11}{trim:>11.1}{raw:>11.1}{tree:>11.1}{copy:>11.1}{of_raw:>9.3}{of_tree:>9.3}{speed:>9.0}",
        body.len()
    );
    [of_raw, of_tree]
}

/// Each in turn, round by round: what disturbs a machine disturbs all of them.
fn medians<const N: usize>(pieces: &mut [&mut dyn FnMut(); N], rounds: usize) -> [f64; N] {
    let mut taken = [(); N].map(|()| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (piece, taken) in pieces.iter_mut().zip(&mut taken) {
            let begun = Instant::now();
            piece();
            taken.push(begun.elapsed());
        }
    }
    taken.map(|mut taken: Vec<Duration>| {
        taken.sort_unstable();
        taken[rounds / 2].as_secs_f64() * 1e6
    })
}

/// A chat of so many messages of about so many bytes, spelled as Python's `json` does.
fn chat(messages: usize, length: usize, words: &[&str]) -> Bytes {
    let mut random = fastrand::Rng::with_seed(200);
    let mut turns = vec![r#"{"role": "system", "content": "Be brief."}"#.to_owned()];
    for at in 1..messages {
        let role = if at % 2 == 1 { "user" } else { "assistant" };
        let mut text = String::new();
        while text.len() < length {
            text.push_str(random.choice(words).unwrap());
        }
        turns.push(format!(r#"{{"role": "{role}", "content": "{text}"}}"#));
    }
    format!(r#"{{"model": "gpt-4o", "messages": [{}]}}"#, turns.join(", ")).into()
}

/// The same as most would write it: read, cut, written.
fn tree(body: &[u8]) -> Option<Vec<u8>> {
    let mut chat: Value = serde_json::from_slice(body).unwrap();
    let messages = chat["messages"].as_array_mut().unwrap();
    let is = |message: &Value, roles: &[&str]| roles.contains(&message["role"].as_str().unwrap());
    let head = messages.iter().take_while(|message| is(message, &["system", "developer"])).count();
    let surplus = (messages.len() - head).checked_sub(KEPT).filter(|surplus| *surplus > 0)?;
    let cut = (head + surplus..messages.len()).find(|at| is(&messages[*at], &["user"]))?;
    messages.drain(head..cut);
    Some(serde_json::to_vec(&chat).unwrap())
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
