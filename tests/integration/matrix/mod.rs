//! Every failure against every class of request: how many attempts are made, what the client gets, and what is counted.
//!
//! `table` has what is decided, `failures` makes it happen on real sockets, and what was seen is compared with both the
//! table and the one in `docs/retries.md`, which is printed here.

mod failures;
mod observe;
mod requests;
mod table;

use std::path::Path;
use std::thread;

use failures::Times;
use observe::{Case, Outcome, observe};
use requests::{ASKS, CLASSES};
use table::{Row, TABLE};

/// Routes of one Pillion: what it tells of itself grows with them.
const ROUTES: usize = 16;

/// What came of a request: the cell of the table, and the answer.
#[derive(Debug, PartialEq)]
struct Seen {
    cell: String,
    answer: String,
}

impl Outcome {
    fn seen(&self) -> Seen {
        let response = &self.response;
        let word = self.not_made.keys().next().map(String::as_str);
        let (word, answer) = if self.succeeded {
            (word.or(Some("ok")), "200".to_owned())
        } else if !response.complete {
            (word.or(Some("cut")), format!("{} and cut off", response.status))
        } else if let Some(status) = response.header("proxy-status") {
            let error =
                status.split("error=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
            (word, format!("{} `{error}`", response.status))
        } else if self.is_as_it_came() {
            (word, "as it came".to_owned())
        } else {
            (word, format!("{} {}", response.status, response.text()))
        };
        let cell = word.map_or(self.attempts.to_string(), |word| format!("{} {word}", self.attempts));
        Seen { cell, answer }
    }

    fn is_as_it_came(&self) -> bool {
        let (Some(upstream), response) = (&self.upstream_says, &self.response) else { return false };
        let kept = ["content-type", "retry-after", "retry-after-ms"];
        upstream.status == response.status
            && upstream.body == response.body
            && kept.iter().all(|name| upstream.header(name) == response.header(name))
    }

    /// What the SDK must be told: to stop where retrying was ours and is over; else what the upstream says.
    fn stop_sdk(&self) -> Option<&str> {
        const OVER: [&str; 5] = ["spent", "deadline", "billing", "budget", "breaker"];
        if self.response.status == 200 {
            return None;
        }
        let over = self.not_made.keys().any(|word| OVER.contains(&word.as_str()));
        let told = self.upstream_says.as_ref().and_then(|upstream| upstream.header("x-should-retry"));
        if over { Some("false") } else { told }
    }

    /// What must be true whatever the cell says.
    fn check(&self, row: &Row) -> Result<(), String> {
        let all: usize = self.not_made.values().sum();
        if all > 1 || self.not_made.contains_key("not_retryable") {
            return Err(format!("not made: {:?}", self.not_made));
        }
        let retries = self.attempts.saturating_sub(1);
        let counted = self.retries.get(row.reason).copied().unwrap_or_default();
        if counted != retries || self.retries.len() != usize::from(retries > 0) {
            return Err(format!("retries: {:?}", self.retries));
        }
        // A connection that was ending when it was used is no failure, as long as nobody sees it; nor is an answer like
        // 400, which is what was asked for.
        let refused = row.failure.starts_with("400");
        let ending = row.reason == "reused" || row.failure.contains("REFUSED_STREAM");
        let hidden = self.succeeded && self.attempts > 1 && !ending && !refused;
        let ours = self.attempts > 0 && self.response.header("proxy-status").is_some();
        let shown = (ours || !self.not_made.is_empty()) && !refused;
        if (self.hidden, self.shown) != (usize::from(hidden), usize::from(shown)) {
            return Err(format!("hidden {}, shown {}", self.hidden, self.shown));
        }
        let told = self.response.all("x-should-retry");
        if told != self.stop_sdk().into_iter().collect::<Vec<_>>() {
            return Err(format!("x-should-retry: {told:?}"));
        }
        if self.attempts == 0 && self.response.header("retry-after") != Some("1") {
            return Err(format!("retry-after: {:?}", self.response.header("retry-after")));
        }
        Ok(())
    }
}

impl Case {
    /// All that happens in one class.
    fn all(class: usize) -> Vec<Case> {
        let mut all = Vec::new();
        for row in TABLE {
            for (number, cause) in row.causes.iter().enumerate() {
                let asks = ASKS.iter().filter(|ask| ask.class == class && cause.applies(ask));
                for ask in asks.take(if cause.is_told() { ASKS.len() } else { 1 }) {
                    let case = |times| Case { row, cause: *cause, ask: *ask, times };
                    all.push(case(Times::Always));
                    if number == 0 && cause.passes() && is_retried(row.cells[class]) {
                        all.push(case(Times::Once));
                    }
                }
            }
        }
        all
    }

    /// Every way in which an outcome is not what is decided.
    fn judge(&self, outcome: &Outcome) -> Result<(), String> {
        let seen = outcome.seen();
        let (cell, answer) = match self.times {
            Times::Always => (self.row.cells[self.ask.class], self.row.answer),
            // What is attempted again, and does not happen again, the client does not see.
            Times::Once => ("2 ok", "200"),
        };
        if seen.cell != cell || !answer.contains(&seen.answer) {
            return Err(format!("{}, {}; decided is {cell}, {answer}", seen.cell, seen.answer));
        }
        outcome.check(self.row)
    }
}

fn is_retried(cell: &str) -> bool {
    cell.split(' ').next().is_some_and(|attempts| attempts.parse().is_ok_and(|attempts: usize| attempts > 1))
}

/// A column of the matrix: what was seen, by row, and what is wrong with it.
fn column(class: usize) -> (Vec<String>, Vec<String>) {
    let mut cases = Case::all(class);
    let (mut cells, mut wrong) = (vec!["-".to_owned(); TABLE.len()], Vec::new());
    cases.sort_by_key(|case| case.row.top);
    for cases in cases.chunk_by(|a, b| a.row.top == b.row.top).flat_map(|cases| cases.chunks(ROUTES)) {
        // Everything of a runtime's own ends with it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (case, outcome) in cases.iter().zip(runtime.block_on(observe(cases))) {
            if let Err(error) = case.judge(&outcome) {
                let Case { row, cause, ask, times } = case;
                wrong.push(format!("{}: {cause:?} {times:?} {}: {error}", row.failure, ask.target));
            }
            if case.times == Times::Always {
                let number = TABLE.iter().position(|row| row.failure == case.row.failure).unwrap();
                cells[number] = outcome.seen().cell;
            }
        }
    }
    for (row, cell) in TABLE.iter().zip(&cells) {
        if (row.cells[class] == "-") != (cell == "-") {
            wrong.push(format!("{}: there is {cell} in {}", row.failure, CLASSES[class]));
        }
    }
    (cells, wrong)
}

#[test]
fn every_failure_in_every_class() {
    let columns: Vec<_> = thread::scope(|scope| {
        let columns: Vec<_> = (0..CLASSES.len()).map(|class| scope.spawn(move || column(class))).collect();
        columns.into_iter().map(|column| column.join().unwrap()).collect()
    });
    let wrong: Vec<&str> = columns.iter().flat_map(|(_, wrong)| wrong).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} cells are not what is decided:\n{}", wrong.len(), wrong.join("\n"));

    let mut page = vec![format!("| failure | counted as | answer | {} |", CLASSES.join(" | "))];
    page.push(format!("|{}", "---|".repeat(3 + CLASSES.len())));
    for (number, row) in TABLE.iter().enumerate() {
        let reason = if row.reason.is_empty() { String::new() } else { format!("`{}`", row.reason) };
        let mut cells = vec![row.failure.to_owned(), reason, row.answer.to_owned()];
        cells.extend(columns.iter().map(|(cells, _)| shown(&cells[number])));
        page.push(format!("| {} |", cells.join(" | ")).replace("|  |", "| |"));
    }
    compare(&(page.join("\n") + "\n"));
}

/// A cell as the page shows it.
fn shown(cell: &str) -> String {
    match cell.split_once(' ') {
        Some((attempts, word @ ("ok" | "cut"))) => format!("{attempts}, {word}"),
        Some((attempts, word)) => format!("{attempts} `{word}`"),
        None => cell.to_owned(),
    }
}

/// Compares with what stands between the marks of the page, or writes it there where `PILLION_REGENERATE=1`.
fn compare(table: &str) {
    const MARKS: [&str; 2] = [
        "<!-- Seen by `PILLION_REGENERATE=1 cargo test --test integration matrix`. Do not edit. -->\n",
        "<!-- So far. -->",
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/retries.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let start = page.find(MARKS[0]).expect("the page has the mark before the matrix") + MARKS[0].len();
    let end = page.find(MARKS[1]).expect("the page has the mark behind the matrix");
    if std::env::var("PILLION_REGENERATE").is_ok_and(|value| value == "1") {
        std::fs::write(&path, [&page[..start], table, &page[end..]].concat()).unwrap();
        return;
    }
    assert!(
        page[start..end] == *table,
        "docs/retries.md is stale; PILLION_REGENERATE=1 writes it anew.\n{table}"
    );
}
