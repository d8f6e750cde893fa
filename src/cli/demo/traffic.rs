//! The script that the bot follows: who asks what, in which turn, and what is written in between.
//!
//! It is a function of the seed, written before the first call is made, so the direct run and the run through Pillion
//! get the very same traffic. Questions repeat the way people's do: now and then somebody asks something new, else
//! something that was asked before, the more likely the more often it was asked (Simon's model of 1955, whose
//! popularity comes out as Zipf's law).

use std::time::Duration;

use super::corpus::{SECTIONS, Section};
use super::faults::mix;

/// Of a hundred questions, how many nobody asked before.
const NEW: u32 = 11;
/// Of a hundred turns of one conversation, how many put a tool call and its result into the history.
const TOOLS: u32 = 15;
/// Of a hundred chat calls, how many are streamed.
const STREAMED: u32 = 30;
/// Turns for one write, on average.
const TURNS_PER_WRITE: usize = 60;
/// How often each section is searched, and written to: what is written often is searched less.
const SEARCHED: [u32; 4] = [35, 30, 27, 8];
const WRITTEN: [u32; 4] = [5, 5, 5, 85];

/// A document written in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Where to.
    pub(super) namespace: &'static str,
    /// Its id; no other write has it.
    pub(super) id: String,
    /// Its text: close to a question that was asked before, so that the right answer to it changes.
    pub(super) data: String,
}

/// One turn of one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// What the person waits before asking.
    pub(super) pause: Duration,
    /// What is written first, in some turns.
    pub(super) write: Option<Write>,
    /// Where the search goes.
    pub(super) namespace: &'static str,
    /// What is asked.
    pub(super) question: String,
    /// The chat's answer is streamed.
    pub(super) streamed: bool,
    /// What was found goes into the history as a tool call with its result.
    pub(super) tool: bool,
}

/// The whole of it: the turns of each conversation.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Conversations run side by side, the turns of one after each other.
    pub(super) conversations: Vec<Vec<Turn>>,
    /// Of all questions, the part that had been asked before.
    pub(super) repeat_share: f64,
}

/// What is known of one section while the script is written.
struct Asked {
    section: &'static Section,
    /// Not asked yet, in the order in which they will be.
    fresh: Vec<String>,
    /// Every question asked so far, as often as it was.
    history: Vec<String>,
    writes: usize,
}

impl Asked {
    fn ask(&mut self, rng: &mut fastrand::Rng) -> (String, bool) {
        let fresh = if self.history.is_empty() || rng.u32(..100) < NEW { self.fresh.pop() } else { None };
        let new = fresh.is_some();
        let question = fresh.or_else(|| rng.choice(&self.history).cloned()).unwrap_or_default();
        self.history.push(question.clone());
        (question, !new)
    }

    /// Writes about something that was asked before, and says what.
    fn write(&mut self, rng: &mut fastrand::Rng) -> Option<(Write, String)> {
        let question = rng.choice(&self.history)?.clone();
        self.writes += 1;
        let write = Write {
            namespace: self.section.name,
            id: format!("{}-update-{}", self.section.name, self.writes),
            data: format!("{question} Update {}: this has changed today.", self.writes),
        };
        self.history.push(question.clone());
        Some((write, question))
    }
}

impl Script {
    /// The script of a seed. Turns are written in the order in which they come when all conversations keep pace.
    pub(super) fn new(seed: u64, conversations: usize, turns: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(mix(seed, 0x7261_6666));
        let mut asked: Vec<Asked> = SECTIONS
            .iter()
            .map(|section| {
                let mut fresh = section.questions();
                rng.shuffle(&mut fresh);
                Asked { section, fresh, history: Vec::new(), writes: 0 }
            })
            .collect();
        let mut script = vec![Vec::with_capacity(turns); conversations];
        let mut repeats = 0_usize;
        for number in 0..turns {
            for conversation in &mut script {
                let Some((turn, repeated)) = turn(&mut asked, number == 0, &mut rng) else { continue };
                repeats += usize::from(repeated);
                conversation.push(turn);
            }
        }
        let repeat_share = repeats as f64 / (conversations * turns).max(1) as f64;
        Self { conversations: script, repeat_share }
    }

    /// Turns of all conversations.
    pub(super) fn turns(&self) -> usize {
        self.conversations.iter().map(Vec::len).sum()
    }
}

/// One turn, and whether its question was asked before. Who writes asks about it at once: nobody would forgive a stale
/// answer there. The first turns are spread out: people do not all arrive at once.
fn turn(asked: &mut [Asked], first: bool, rng: &mut fastrand::Rng) -> Option<(Turn, bool)> {
    let writes = rng.usize(..TURNS_PER_WRITE) == 0;
    let chosen = pick(if writes { WRITTEN } else { SEARCHED }, rng);
    let one = asked.get_mut(chosen)?;
    let written = if writes { one.write(rng) } else { None };
    let (write, question, repeated) = if let Some((write, about)) = written {
        (Some(write), about, true)
    } else {
        let (question, repeated) = one.ask(rng);
        (None, question, repeated)
    };
    let turn = Turn {
        pause: Duration::from_millis(if first { rng.u64(..3000) } else { rng.u64(100..400) }),
        write,
        namespace: one.section.name,
        question,
        streamed: rng.u32(..100) < STREAMED,
        tool: rng.u32(..100) < TOOLS,
    };
    Some((turn, repeated))
}

/// Which of the sections, by weight in percent.
fn pick(weights: [u32; 4], rng: &mut fastrand::Rng) -> usize {
    let mut left = rng.u32(..100);
    weights.iter().position(|weight| left.checked_sub(*weight).map(|rest| left = rest).is_none()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn at_least_three_searches_in_four_repeat_an_earlier_one() {
        for seed in 0..50 {
            let script = Script::new(seed, 24, 60);
            assert_eq!(script.turns(), 1440);
            let mut seen = HashSet::new();
            let mut repeats = 0;
            for turn in 0..60 {
                for conversation in &script.conversations {
                    let one = &conversation[turn];
                    repeats += usize::from(!seen.insert((one.namespace, one.question.clone())));
                }
            }
            let share = f64::from(repeats as u32) / 1440.0;
            assert!((share - script.repeat_share).abs() < 1e-9, "what is printed is what was counted");
            assert!((0.80..0.92).contains(&share), "seed {seed}: {share}");
        }
    }

    #[test]
    fn a_perfect_cache_would_answer_enough_of_them() {
        for seed in 0..50 {
            let script = Script::new(seed, 24, 60);
            let (mut stored, mut hits, mut writes) = (HashSet::new(), 0, 0);
            for turn in 0..60 {
                for conversation in &script.conversations {
                    let one = &conversation[turn];
                    if let Some(write) = &one.write {
                        writes += 1;
                        stored.retain(|(namespace, _)| *namespace != write.namespace);
                    }
                    hits += usize::from(!stored.insert((one.namespace, one.question.clone())));
                }
            }
            let rate = f64::from(hits as u32) / 1440.0;
            println!("seed {seed}: {writes} writes, repeats {:.3}, hits {rate:.3}", script.repeat_share);
            assert!((8..45).contains(&writes), "seed {seed}: {writes} writes");
            assert!(rate > 0.75, "seed {seed}: {rate}");
        }
    }

    #[test]
    fn a_seed_is_a_script() {
        assert_eq!(Script::new(3, 4, 10).conversations, Script::new(3, 4, 10).conversations);
        assert_ne!(Script::new(3, 4, 10).conversations, Script::new(4, 4, 10).conversations);
    }
}
