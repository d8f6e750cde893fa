//! A day of a bot, without its pauses: searches of which most were asked before, chats that grow, a few writes.
//!
//! Of 100 requests 1 writes; half of the others search (70 % of them what this client has asked lately, the rest what
//! nobody has), half go on with one of some 20 conversations, which begin anew after 200 messages.
//!
//! `least` in what it prints is how many searches a cache without a flaw would leave: those that nobody has asked since
//! the last write into their namespace.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::http::{Connection, request};
use crate::options::{Failure, Options};
use crate::stats::Random;

const NAMESPACES: u64 = 20;
/// What a client asks again is one of its last so many questions.
const LATELY: usize = 30;
const MESSAGES: u64 = 200;

/// A question as 64 numbers: the same question is the same bytes.
fn search(question: u64) -> String {
    let mut random = Random(question);
    let mut body = String::from("{\"vector\":[");
    for at in 0..64 {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(body, "{comma}0.{:08}", random.below(100_000_000));
    }
    body.push_str("],\"topK\":5,\"includeMetadata\":true}");
    body
}

fn chat(conversation: u64, messages: u64) -> String {
    let mut body =
        String::from("{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}");
    for at in 0..messages {
        let role = if at % 2 == 0 { "user" } else { "assistant" };
        let _ = write!(
            body,
            ",{{\"role\":\"{role}\",\"content\":\"conversation {conversation}, message {at}: {}\"}}",
            "word ".repeat(60)
        );
    }
    body.push_str("]}");
    body
}

/// `--requests` in all, from `--connections` clients, to `--chat` and `--vector`, which are paths.
pub(crate) fn day(options: &Options) -> Result<(), Failure> {
    let to = options.text("to")?.to_owned();
    let chat_path = options.text("chat")?.to_owned();
    let vector_path = options.text("vector")?.to_owned();
    let requests: u64 = options.number("requests", 20_000)?;
    let connections: u64 = options.number("connections", 16)?;
    let seed: u64 = options.number("seed", 1)?;
    let extra: Arc<Vec<String>> = Arc::new(options.all("header").to_vec());
    let [searches, least, chats, writes, errors] = [(); 5].map(|()| Arc::new(AtomicU64::new(0)));
    let written: Arc<Vec<AtomicU64>> = Arc::new((0..NAMESPACES).map(|_| AtomicU64::new(0)).collect());
    let threads: Vec<_> = (0..connections)
        .map(|lane| {
            let (to, chat_path, vector_path) = (to.clone(), chat_path.clone(), vector_path.clone());
            let extra = Arc::clone(&extra);
            let [searches, least, chats, writes, errors] =
                [&searches, &least, &chats, &writes, &errors].map(Arc::clone);
            let written = Arc::clone(&written);
            thread::spawn(move || -> Result<(), Failure> {
                let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
                let mut random = Random(seed.wrapping_mul(1_000_003) + lane);
                let mut lengths = vec![1; (20 / connections).max(1) as usize];
                // Namespace, question, and how often the namespace had been written to when it was asked.
                let mut lately: VecDeque<(u64, u64, u64)> = VecDeque::new();
                let mut connection = Connection::to(&to)?;
                for _ in 0..requests / connections {
                    let namespace = random.below(NAMESPACES);
                    let asked = match random.below(200) {
                        0 | 1 => {
                            writes.fetch_add(1, Ordering::Relaxed);
                            written[namespace as usize].fetch_add(1, Ordering::Relaxed);
                            let body = format!("[{{\"id\":\"{}\",\"data\":\"new\"}}]", random.below(1000));
                            request(
                                &format!("{vector_path}/upsert-data/n{namespace}"),
                                &extra,
                                body.as_bytes(),
                            )
                        }
                        2..=100 => {
                            searches.fetch_add(1, Ordering::Relaxed);
                            let again = random.below(100) < 70 && !lately.is_empty();
                            let at = if again {
                                random.below(lately.len() as u64) as usize
                            } else {
                                lately.push_front((namespace, random.next(), u64::MAX));
                                lately.truncate(LATELY);
                                0
                            };
                            let (namespace, question, asked_at) = &mut lately[at];
                            let now = written[*namespace as usize].load(Ordering::Relaxed);
                            least.fetch_add(u64::from(*asked_at != now), Ordering::Relaxed);
                            *asked_at = now;
                            request(
                                &format!("{vector_path}/query/n{namespace}"),
                                &extra,
                                search(*question).as_bytes(),
                            )
                        }
                        _ => {
                            chats.fetch_add(1, Ordering::Relaxed);
                            let at = random.below(lengths.len() as u64) as usize;
                            let body = chat(lane * 100 + at as u64, lengths[at]);
                            lengths[at] = if lengths[at] >= MESSAGES { 1 } else { lengths[at] + 2 };
                            request(&chat_path, &extra, body.as_bytes())
                        }
                    };
                    let answered = (|| {
                        connection.write(&asked)?;
                        let head = connection.head()?;
                        connection.content(&head, |_| ())?;
                        Ok::<_, std::io::Error>(head.status())
                    })();
                    if !matches!(answered, Ok(200)) {
                        errors.fetch_add(1, Ordering::Relaxed);
                        connection = Connection::to(&to)?;
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    let [searches, least, chats, writes, errors] =
        [&searches, &least, &chats, &writes, &errors].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{{\"searches\":{searches},\"least\":{least},\"chats\":{chats},\"writes\":{writes},\"errors\":{errors}}}"
    );
    Ok(())
}
