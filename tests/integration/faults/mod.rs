//! What an upstream's failures cost, and what the client sees of them.
//!
//! `cargo test` runs it all at a small size, `make bench-faults` at full size (`PILLION_FAULTS=1`), one after the other and
//! with a table of it all at the end.

mod chats;
mod closing;
mod delays;
mod gone;
mod large;
mod load;
mod mixture;
mod outage;
mod searches;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

/// Whether this run is `make bench-faults`.
fn full() -> bool {
    std::env::var("PILLION_FAULTS").is_ok_and(|value| value == "1")
}

/// The first at full size, else the second.
fn sized<T>(whole: T, small: T) -> T {
    if full() { whole } else { small }
}

/// One row of the table: what was measured, what it has to be, what it was. A missed bar fails a small run here and now;
/// a full one goes on to measure the rest, and `make bench-faults` fails at its end.
fn row(what: &str, bar: &str, seen: impl Display, ok: bool) {
    let verdict = if ok { "ok" } else { "MISSED" };
    println!("{what}: {seen} ({bar}): {verdict}");
    if !full() {
        assert!(ok, "{what}: {seen}, which is not {bar}");
        return;
    }
    let table = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.tsv");
    let mut table = std::fs::File::options().create(true).append(true).open(table).unwrap();
    writeln!(table, "{what}\t{bar}\t{seen}\t{verdict}").unwrap();
}
