//! Whether an answer was right when it was given.
//!
//! A search may see any version between the one that was acknowledged when it was issued and the one the index is at
//! when the answer comes; an answer that is none of these is stale. A write counts as acknowledged when its call ended,
//! however it ended: what was applied before the caller heard of it must be seen by every later search.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::index::{Index, Query};

/// What is known of the searches and writes so far.
#[derive(Debug, Default)]
struct Known {
    acknowledged: HashMap<String, usize>,
    /// The last answer to each question, to tell how often a cache would have had to notice a write.
    answers: HashMap<(String, Bytes), Bytes>,
    tally: Tally,
}

/// What the checks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Answers checked.
    pub(super) checked: u64,
    /// Answers that were of no version they could rightly be of.
    pub(super) stale: u64,
    /// Repeated questions to which the right answer had changed since they were last asked.
    pub(super) changed: u64,
}

/// The checker of one run.
#[derive(Debug)]
pub(super) struct Checker {
    index: Arc<Index>,
    known: Mutex<Known>,
}

impl Checker {
    /// A checker that holds answers against this index.
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self { index, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version a search that is issued now must at least see.
    pub(super) fn issued(&self, namespace: &str) -> usize {
        self.lock().acknowledged.get(namespace).copied().unwrap_or(0)
    }

    /// The call that wrote a document has ended.
    pub(super) fn wrote(&self, namespace: &str, id: &str) {
        let Some(version) = self.index.written(namespace, id) else { return };
        let mut known = self.lock();
        let acknowledged = known.acknowledged.entry(namespace.to_owned()).or_insert(0);
        *acknowledged = version.max(*acknowledged);
    }

    /// Checks the answer to a `/query-data` that was issued when `issued` was acknowledged; `true` when it is right.
    pub(super) fn check(&self, namespace: &str, asked: &Bytes, issued: usize, answer: &Bytes) -> bool {
        let current = self.index.current(namespace);
        let right = Query::from_json(asked, true).is_ok_and(|query| {
            (issued..=current).any(|version| self.index.answer(namespace, version, &query) == *answer)
        });
        let mut known = self.lock();
        let last = known.answers.insert((namespace.to_owned(), asked.clone()), answer.clone());
        known.tally.checked += 1;
        known.tally.stale += u64::from(!right);
        known.tally.changed += u64::from(right && last.is_some_and(|last| last != *answer));
        right
    }

    /// What all checks came to.
    pub(super) fn tally(&self) -> Tally {
        self.lock().tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ASKED: &[u8] = br#"{"data":"zebra crossing","topK":1,"includeData":true}"#;

    fn write(index: &Index, id: &str) {
        let content = json!([{"id": id, "data": "zebra crossing"}]).to_string();
        index.upsert("help", content.as_bytes(), true).unwrap();
    }

    fn answer(index: &Index, version: usize) -> Bytes {
        index.answer("help", version, &Query::from_json(ASKED, true).unwrap())
    }

    #[test]
    fn a_planted_stale_answer_is_found() {
        let index = Arc::new(Index::with_corpus());
        let checker = Checker::new(Arc::clone(&index));
        let asked = Bytes::from_static(ASKED);
        let old = answer(&index, 0);
        assert!(checker.check("help", &asked, checker.issued("help"), &old));
        write(&index, "z");
        // Applied, not acknowledged: a search under way may answer either.
        assert!(checker.check("help", &asked, checker.issued("help"), &old));
        let issued_before = checker.issued("help");
        checker.wrote("help", "z");
        assert!(
            checker.check("help", &asked, issued_before, &old),
            "it was issued before the write was acknowledged"
        );
        assert!(!checker.check("help", &asked, checker.issued("help"), &old), "this one is stale");
        assert!(checker.check("help", &asked, checker.issued("help"), &answer(&index, 1)));
        assert_eq!(checker.tally(), Tally { checked: 5, stale: 1, changed: 1 });
    }

    #[test]
    fn an_answer_of_no_version_is_found() {
        let index = Arc::new(Index::with_corpus());
        let checker = Checker::new(index);
        let asked = Bytes::from_static(ASKED);
        assert!(!checker.check("help", &asked, 0, &Bytes::from_static(br#"{"result":[]}"#)));
    }

    #[test]
    fn only_the_write_that_ended_is_acknowledged() {
        let index = Arc::new(Index::with_corpus());
        let checker = Checker::new(Arc::clone(&index));
        write(&index, "a");
        write(&index, "b");
        checker.wrote("help", "a");
        assert_eq!(checker.issued("help"), 1);
        checker.wrote("help", "never applied");
        assert_eq!(checker.issued("help"), 1);
        checker.wrote("help", "b");
        checker.wrote("help", "a");
        assert_eq!(checker.issued("help"), 2);
    }
}
