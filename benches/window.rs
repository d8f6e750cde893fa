//! What the window does to a provider's prompt cache: a conversation of 200 turns, of which each request is cut as Pillion
//! cuts it, and priced by how much of it begins as the request before did. `make bench-window` prints it, and fails where
//! `step: 10` keeps less than [`BAR`] on an unchanged prefix.
//!
//! The model: a provider bills at full price what does not stand at the same place in the request before, whole messages
//! counted. System prompt and tools are 1,600 tokens, a message is 150 on average, of four bytes each.

#![expect(clippy::unwrap_used, reason = "a bench fails as tests do")]

use std::fmt::Write as _;
use std::process::ExitCode;

use bytes::Bytes;
use pillion::window::{self, Counter, Dialect, Encoding, Policy};
use serde::Deserialize;
use serde_json::value::RawValue;

const TURNS: usize = 200;
const SYSTEM: u64 = 1600;
const BAR: f64 = 0.8;

/// Name, messages at most and the step.
const WINDOWS: [(&str, usize, usize); 6] = [
    ("none", 0, 1),
    ("20", 20, 1),
    ("20, step: 5", 20, 5),
    ("20, step: 10", 20, 10),
    ("30, step: 10", 30, 10),
    ("40, step: 20", 40, 20),
];

/// What all requests of the conversation come to.
#[derive(Default)]
struct Bill {
    prompt: u64,
    unchanged: u64,
    most: usize,
    /// After the window was full for the first time.
    fewest: Option<usize>,
    messages: usize,
}

fn main() -> ExitCode {
    println!(
        "{:16}{:>14}{:>22}{:>19}{:>26}",
        "max_messages", "prompt tokens", "on unchanged prefix", "at full price", "messages forwarded"
    );
    let mut held = true;
    for (name, most, step) in WINDOWS {
        let bill = bill(most, step);
        let share = bill.unchanged as f64 / bill.prompt as f64;
        let full = bill.prompt - bill.unchanged;
        let messages = format!(
            "{} to {}, mean {:.1}",
            bill.fewest.unwrap_or(1),
            bill.most,
            bill.messages as f64 / TURNS as f64
        );
        println!(
            "{name:16}{:>14}{:>21.1}%{:>19}{messages:>26}",
            thousands(bill.prompt),
            100.0 * share,
            thousands(full)
        );
        if step == 10 && share < BAR {
            println!("below {BAR}");
            held = false;
        }
        if most > 0 && bill.most > most {
            println!("{} messages were forwarded", bill.most);
            held = false;
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bill(max_messages: usize, step: usize) -> Bill {
    let policy = Policy {
        enabled: true,
        shadow: false,
        dialect: Dialect::Chat,
        max_messages,
        step,
        max_bytes: 20 << 20,
        max_tokens: 0,
        encoding: Encoding::Auto,
    };
    let (counter, mut random) = (Counter::new(), fastrand::Rng::with_seed(200));
    let (mut bill, mut messages, mut before) = (Bill::default(), String::new(), Vec::new());
    for turn in 0..TURNS {
        if turn > 0 {
            say(&mut messages, "assistant", &mut random);
        }
        say(&mut messages, "user", &mut random);
        let body = Bytes::from(format!(
            r#"{{"model":"gpt-4o","messages":[{{"role":"system","content":"Be brief."}}{messages}]}}"#
        ));
        let reading = window::read(&body, &policy, &counter, &[]);
        let forwarded = reading.cut.map_or(body.to_vec(), |cut| window::splice(&body, &cut).concat());
        let forwarded = history(&forwarded);
        let tokens =
            |messages: &[String]| messages.iter().map(|message| message.len() as u64 / 4).sum::<u64>();
        let same = forwarded.iter().zip(&before).take_while(|(now, before)| now == before).count();
        bill.prompt += SYSTEM + tokens(&forwarded);
        // Of the first request nothing is known.
        let (unchanged, _) = forwarded.split_at(same);
        bill.unchanged += if turn == 0 { 0 } else { SYSTEM + tokens(unchanged) };
        bill.most = bill.most.max(forwarded.len());
        bill.messages += forwarded.len();
        if reading.removed > 0 {
            bill.fewest = Some(bill.fewest.unwrap_or(usize::MAX).min(forwarded.len()));
        }
        before = forwarded;
    }
    bill
}

/// Adds a message of 100 to 200 tokens.
fn say(messages: &mut String, role: &str, random: &mut fastrand::Rng) {
    let text: String = (0..4 * random.usize(90..190)).map(|_| random.alphanumeric()).collect();
    write!(messages, r#",{{"role":"{role}","content":"{text}"}}"#).unwrap();
}

/// The messages behind the system prompt.
fn history(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Chat<'a> {
        #[serde(borrow)]
        messages: Vec<&'a RawValue>,
    }
    let chat: Chat<'_> = serde_json::from_slice(body).unwrap();
    chat.messages.iter().skip(1).map(|message| message.get().to_owned()).collect()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}
