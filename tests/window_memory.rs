//! What trimming takes besides the request itself. In a process of its own, because its allocator counts.

use bytes::Bytes;
use pillion::window::{self, Counter, Dialect, Encoding, Policy};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Bytes at most, besides the request.
const MOST: usize = 64 * 1024;

fn policy(dialect: Dialect) -> Policy {
    Policy {
        enabled: true,
        shadow: false,
        dialect,
        max_messages: 20,
        step: 1,
        max_bytes: 20 << 20,
        max_tokens: 0,
        encoding: Encoding::Auto,
    }
}

/// A conversation of so many messages of about so many bytes.
fn conversation(dialect: Dialect, messages: usize, length: usize) -> Bytes {
    let history = if dialect == Dialect::Responses { "input" } else { "messages" };
    let text = "the bot said \\\"so\\\", and went on \\u00e9 ünd\\n".repeat(length / 44);
    let messages: Vec<String> = (0..messages)
        .map(|n| {
            format!(r#"{{"role":"{}","content":"{text}"}}"#, if n % 2 == 0 { "user" } else { "assistant" })
        })
        .collect();
    format!(r#"{{"model":"m","{history}":[{}]}}"#, messages.join(",")).into()
}

/// The most that was taken at a time while this ran.
fn most(work: impl FnOnce()) -> usize {
    let before = dhat::HeapStats::get();
    assert_eq!(before.max_bytes, before.curr_bytes, "it would not be seen");
    work();
    dhat::HeapStats::get().max_bytes - before.curr_bytes
}

#[test]
fn a_long_conversation_takes_no_more_than_a_short_one() {
    // What is copied is seen.
    let body = conversation(Dialect::Chat, 200, 1_000);
    let profiler = dhat::Profiler::builder().testing().build();
    let mut copy = Vec::new();
    let taken = most(|| copy = body.to_vec());
    drop(profiler);
    assert!(taken >= copy.len() && copy.len() > MOST, "{taken}");

    for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Messages] {
        for (messages, length) in [(200, 1_000), (2_000, 10_000), (20_000, 100)] {
            let body = conversation(dialect, messages, length);
            let (policy, counter) = (policy(dialect), Counter::new());
            let mut forwarded = 0;
            let profiler = dhat::Profiler::builder().testing().build();
            let taken = most(|| {
                let reading = window::read(&body, &policy, &counter, &[]);
                let pieces = window::splice(&body, &reading.cut.unwrap());
                forwarded = pieces.iter().map(Bytes::len).sum();
            });
            drop(profiler);
            assert!(forwarded < body.len() / 5 && forwarded > 0);
            assert!(taken < MOST, "{dialect:?}: {messages} of {length}: {taken} bytes");
            println!("{dialect:?}: {messages} messages of {length}, {} bytes: {taken} taken", body.len());
        }
    }
}
