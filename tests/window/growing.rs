//! Conversations as they grow, request by request: a bot that sends all of it each time, the window, and a vendor that
//! binds what it thinks to what it was sent.

use std::sync::Mutex;

use bytes::Bytes;
use fastrand::Rng;
use pillion::window::{self, Counter, Encoding, Policy, Untouched};
use serde_json::Value;

use crate::histories::{Made, Maker, Role, Taste, UNSIGNED};
use crate::strict::binding::{self, Prefix};
use crate::strict::{self, Dialect};

/// Which messages the bot marks for the prompt cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    None,
    /// The user's last.
    Last,
    /// And the one before it, as the vendor advises for long conversations.
    LastTwo,
}

/// Stands where a mark goes, in the messages that may have one.
const MARK: &str = ",\"mark\":0";

#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    cut: u64,
    /// Cut, and thinking is kept.
    bound: u64,
    /// Where thinking kept the cut from where the limits are.
    frozen: u64,
    /// Marks kept it whole.
    whole: u64,
    /// Reasoning of earlier turns that Responses would leave out.
    forgotten: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.cut += other.cut;
        self.bound += other.bound;
        self.frozen += other.frozen;
        self.whole += other.whole;
        self.forgotten += other.forgotten;
    }
}

#[test]
fn no_vendor_refuses_what_it_thought_itself() {
    let conversations = crate::properties::histories() / 80;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    for dialect in Dialect::ALL {
        let tally = Mutex::new(Tally::default());
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let tally = &tally;
                scope.spawn(move || {
                    let (counter, mut own) = (Counter::new(), Tally::default());
                    for number in (thread..conversations).step_by(threads as usize) {
                        Growing::new(dialect, number).run(&counter, &mut own);
                    }
                    tally.lock().unwrap().add(&own);
                });
            }
        });
        let tally = tally.into_inner().unwrap();
        println!("{dialect:?}, growing: {conversations} conversations, 0 refused of {tally:?}");
        assert!(tally.cut * 3 > tally.requests, "{dialect:?}: {tally:?}");
        assert!(tally.bound * 20 > tally.requests, "{dialect:?}: {tally:?}");
        assert!(tally.frozen * 50 > tally.requests, "{dialect:?}: {tally:?}");
    }
}

struct Growing {
    number: u64,
    dialect: Dialect,
    rng: Rng,
    policy: Policy,
    marks: Marks,
    maker: Maker,
}

impl Growing {
    fn new(dialect: Dialect, number: u64) -> Self {
        let mut rng = Rng::with_seed(number ^ 0xB07);
        let marks = [Marks::None, Marks::None, Marks::None, Marks::None, Marks::Last, Marks::LastTwo];
        let marks = marks[rng.usize(..marks.len())];
        let max_messages = if rng.u8(..4) == 0 { 0 } else { rng.usize(1..20) };
        let taste = Taste { thinks: rng.u8(..8) > 0, breakpoints: false, late: false };
        let policy = Policy {
            enabled: true,
            shadow: false,
            dialect: crate::properties::dialect(dialect),
            max_messages,
            step: if rng.bool() { 1 } else { rng.usize(1..12) },
            max_bytes: if rng.u8(..4) > 0 && max_messages > 0 { 0 } else { rng.u64(500..5_000) },
            max_tokens: if rng.u8(..4) > 0 { 0 } else { rng.u64(100..2_000) },
            encoding: Encoding::Estimate,
        };
        let maker = Maker::new(dialect, rng.fork(), taste);
        Self { number, dialect, rng, policy, marks, maker }
    }

    fn run(mut self, counter: &Counter, tally: &mut Tally) {
        self.maker.head();
        for turn in 0..self.rng.usize(3..20) {
            self.ask(turn);
            // A bot may think better of a question, and ask another in its place.
            if self.rng.u8(..10) == 0 {
                self.request(counter, tally);
                self.maker.made.pop();
                self.ask(turn);
            }
            // Thinking comes in phases, as effort and models do.
            self.maker.taste.thinks &= self.rng.u8(..30) > 0;
            for _ in 0..[0, 0, 1, 2, 5][self.rng.usize(..5)] {
                self.answer(true, counter, tally);
            }
            self.answer(false, counter, tally);
        }
    }

    fn ask(&mut self, turn: usize) {
        let kind = if self.dialect == Dialect::Responses { "input_text" } else { "text" };
        let text = format!(r#"{{"role":"user","content":[{{"type":"{kind}","text":"{turn}?"{MARK}}}]}}"#);
        self.maker.made.push(Made {
            text,
            role: Role::User,
            turn: true,
            thinking: 0,
            breakpoint: false,
            opaque: 0,
            media: 0,
        });
    }

    /// Asks the vendor, and takes its answer into the conversation.
    fn answer(&mut self, calls: bool, counter: &Counter, tally: &mut Tally) {
        let sent = self.request(counter, tally);
        let before = self.maker.made.len();
        self.maker.answer(calls);
        let mut prefix = Prefix::all(self.dialect, &sent);
        for made in &mut self.maker.made[before..] {
            let element: Value = serde_json::from_str(&made.text).unwrap();
            if made.thinking == 0 {
                prefix.add(self.dialect, &element);
                continue;
            }
            if self.dialect == Dialect::Messages {
                prefix.role("assistant");
                for block in element["content"].as_array().unwrap() {
                    let mut block = block.clone();
                    for member in ["signature", "data"] {
                        if block[member] == UNSIGNED {
                            let signature = prefix.signature();
                            made.text = made.text.replacen(UNSIGNED, &signature, 1);
                            block[member] = signature.into();
                        }
                    }
                    prefix.block(&block);
                }
            } else {
                let signature = prefix.signature();
                made.text = made.text.replacen(UNSIGNED, &signature, 1);
                prefix.add(self.dialect, &serde_json::from_str(&made.text).unwrap());
            }
        }
    }

    /// The request as the vendor gets it; it must take it.
    fn request(&mut self, counter: &Counter, tally: &mut Tally) -> Value {
        let body = Bytes::from(self.body());
        let reading = window::read(&body, &self.policy, counter, &[]);
        let known = [None, Some(Untouched::Thinking), Some(Untouched::CacheBreakpoint)];
        assert!(known.contains(&reading.untouched), "{reading:?}");
        let sent = match &reading.cut {
            Some(cut) => window::splice(&body, cut).concat(),
            None => body.to_vec(),
        };
        let request: Value = serde_json::from_slice(&sent).unwrap();
        let told = |what: &str| {
            let body = String::from_utf8_lossy(&body);
            format!(
                "{what}: {:?} {} {:?} {:?}\n{reading:?}\n{body}",
                self.dialect, self.number, self.marks, self.policy
            )
        };
        if let Err(rejection) = strict::check(self.dialect, &request) {
            panic!("{}", told(&rejection.message));
        }
        self.keeps_its_reasoning(&request, tally, &told);
        let head = self.maker.made.iter().take_while(|made| made.role == Role::Author).count();
        let kept = self.maker.made.iter().skip(head + reading.removed);
        tally.requests += 1;
        tally.cut += u64::from(reading.cut.is_some());
        tally.bound += u64::from(reading.cut.is_some() && kept.into_iter().any(|made| made.thinking > 0));
        tally.frozen += u64::from(reading.untouched == Some(Untouched::Thinking));
        tally.whole += u64::from(reading.untouched == Some(Untouched::CacheBreakpoint));
        request
    }

    /// Responses refuses no reasoning, but that of the turn under way must not be lost.
    fn keeps_its_reasoning(&self, request: &Value, tally: &mut Tally, told: &dyn Fn(&str) -> String) {
        if self.dialect != Dialect::Responses {
            return;
        }
        let lost = binding::mismatches(request);
        tally.forgotten += lost.len() as u64;
        let items = request["input"].as_array().unwrap();
        let turn = items.iter().rposition(|item| item["role"] == "user").unwrap();
        let current = |id: &String| items[turn..].iter().any(|item| item["id"] == **id);
        assert!(!lost.iter().any(current), "{}", told("reasoning of the turn under way is lost"));
    }

    fn body(&self) -> String {
        let member = self.dialect.member();
        let author = if self.dialect == Dialect::Responses { "instructions" } else { "system" };
        let mut body =
            format!(r#"{{"model":"m","{author}":"be brief","tools":[{{"name":"f"}}],"{member}":["#);
        let asked = self.maker.made.iter().enumerate().filter(|(_, made)| made.role == Role::User);
        let marks = match self.marks {
            Marks::None => 0,
            Marks::Last => 1,
            Marks::LastTwo => 2,
        };
        let marked: Vec<usize> = asked.map(|(n, _)| n).rev().take(marks).collect();
        let mark = match self.dialect {
            Dialect::Messages => r#","cache_control":{"type":"ephemeral"}"#,
            _ => r#","prompt_cache_breakpoint":{"type":"ephemeral"}"#,
        };
        for (n, made) in self.maker.made.iter().enumerate() {
            body.push_str(if n == 0 { "" } else { "," });
            body.push_str(&made.text.replace(MARK, if marked.contains(&n) { mark } else { "" }));
        }
        body.push_str("]}");
        body
    }
}
