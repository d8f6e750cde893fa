//! The comparison as a table for a terminal of 80 columns, and what the demo claims and checks.

use std::fmt::Write as _;

use super::figures::Side;
use crate::cli::report::grouped;

/// A claim of the demo and whether the run bore it out.
#[derive(Debug)]
pub(super) struct Claim {
    /// What was claimed, with the figure seen.
    pub(super) text: String,
    /// It held.
    pub(super) held: bool,
}

/// What must have been seen for the demo to have shown what it says.
pub(super) fn claims(direct: &Side, pillion: &Side) -> Vec<Claim> {
    let faster = match (pillion.search_miss_ms_p50, pillion.search_hit_ms_p50) {
        (Some(miss), Some(hit)) if hit > 0.0 => miss / hit,
        _ => 0.0,
    };
    let saved = 1.0 - pillion.answer_ms_mean / direct.answer_ms_mean.max(f64::MIN_POSITIVE);
    let stale = direct.stale_answers.unwrap_or(0) + pillion.stale_answers.unwrap_or(0);
    let claim = |held, text| Claim { text, held };
    vec![
        claim(
            (0.03..0.07).contains(&direct.failed_ratio),
            format!("about 5 % of calls fail directly: {:.1} %", direct.failed_ratio * 100.0),
        ),
        claim(
            pillion.failed_ratio < 0.001,
            format!("fewer than 0.1 % through Pillion: {:.2} %", pillion.failed_ratio * 100.0),
        ),
        claim(faster >= 50.0, format!("hits at least 50 times faster than misses: {faster:.0} times")),
        claim(saved >= 0.6, format!("mean answer time at least 60 % lower: {:.0} %", saved * 100.0)),
        claim(
            (1..=20).contains(&pillion.max_messages_forwarded),
            format!("at most 20 messages forwarded besides the head: {}", pillion.max_messages_forwarded),
        ),
        claim(
            stale == 0 && pillion.checked_answers > 0,
            format!(
                "no stale answer: {stale} of {}",
                grouped(direct.checked_answers + pillion.checked_answers)
            ),
        ),
    ]
}

/// The table.
pub(super) fn render(direct: &Side, pillion: &Side) -> String {
    let mut out = String::new();
    line(&mut out, "", "directly", "through Pillion", "");
    let mut row = |title: &str, of: &dyn Fn(&Side) -> String, change: Option<&dyn Fn(&Side) -> f64>| {
        let change = change.map_or(String::new(), |of| change_of(of(direct), of(pillion)));
        line(&mut out, title, &of(direct), &of(pillion), &change);
    };
    row("answer time, mean", &|side| ms(Some(side.answer_ms_mean)), Some(&|side| side.answer_ms_mean));
    row("answer time, p50", &|side| ms(Some(side.answer_ms_p50)), Some(&|side| side.answer_ms_p50));
    row("answer time, p95", &|side| ms(Some(side.answer_ms_p95)), Some(&|side| side.answer_ms_p95));
    row("search, hits, p50", &|side| ms(side.search_hit_ms_p50), None);
    row("search, misses, p50", &|side| ms(side.search_miss_ms_p50), None);
    row("hit rate", &|side| percent(side.hit_rate, 1), None);
    row(
        "calls failed for the bot",
        &|side| format!("{} ({})", grouped(side.failed as u64), percent(Some(side.failed_ratio), 2)),
        None,
    );
    row(
        "calls to the upstream",
        &|side| grouped(side.upstream_calls),
        Some(&|side| side.upstream_calls as f64),
    );
    row(
        "messages per chat call, mean",
        &|side| format!("{:.1}", side.mean_messages_forwarded),
        Some(&|side| side.mean_messages_forwarded),
    );
    row(
        "messages per chat call, max",
        &|side| grouped(side.max_messages_forwarded as u64),
        Some(&|side| side.max_messages_forwarded as f64),
    );
    row(
        "bytes per chat call, mean",
        &|side| grouped(side.mean_bytes_forwarded as u64),
        Some(&|side| side.mean_bytes_forwarded),
    );
    row(
        "bytes per chat call, max",
        &|side| grouped(side.max_bytes_forwarded as u64),
        Some(&|side| side.max_bytes_forwarded as f64),
    );
    row("stale answers", &|side| side.stale_answers.map_or("-".to_owned(), |stale| format!("{stale}")), None);
    out
}

/// What was claimed, and whether it held.
pub(super) fn verdicts(claims: &[Claim]) -> String {
    let mut out = String::from("Checked:\n");
    for claim in claims {
        let _ = writeln!(out, "  {} {}", if claim.held { "yes" } else { "NO " }, claim.text);
    }
    out
}

/// What one has to know to read the figures rightly.
pub(super) fn notes(repeat_share: f64, direct: &Side, pillion: &Side) -> String {
    format!(
        "An answer is a search and a chat call. Of the searches, {:.0} % repeat an earlier\n\
         one word for word. The upstream failed {} of {} calls directly and {} of\n\
         {} behind Pillion, retries included.\n\
         \n\
         Every answer was compared with the nearest neighbours in each version of the\n\
         index that it could rightly come from. Behind Pillion, {} times a write had\n\
         changed the right answer since the same question was last asked.\n\
         \n\
         This index applies a write before it answers it, so the route says `settle: 0s`.\n\
         The preset's own value is 30 s: with Upstash itself, nothing is stored from a\n\
         namespace that was written to within the last 30 s, and hits are fewer.\n",
        repeat_share * 100.0,
        grouped(direct.upstream_faults),
        grouped(direct.upstream_calls),
        grouped(pillion.upstream_faults),
        grouped(pillion.upstream_calls),
        grouped(pillion.changed_answers),
    )
}

fn line(out: &mut String, title: &str, direct: &str, pillion: &str, change: &str) {
    let text = format!("  {title:<30}{direct:>16}{pillion:>18}{change:>11}");
    let _ = writeln!(out, "{}", text.trim_end());
}

fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

fn percent(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.digits$} %", value * 100.0))
}

fn change_of(before: f64, after: f64) -> String {
    if before <= 0.0 {
        return String::new();
    }
    format!("{:+.0} %", (after / before - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side() -> Side {
        Side {
            failed_ratio: 0.0501,
            answer_ms_mean: 371.2,
            answer_ms_p50: 380.0,
            answer_ms_p95: 520.0,
            search_ms_mean: 340.0,
            search_hit_ms_p50: None,
            search_hit_ms_p95: None,
            search_miss_ms_p50: Some(351.0),
            search_miss_ms_p95: Some(480.0),
            hit_rate: None,
            max_messages_forwarded: 139,
            mean_messages_forwarded: 66.6,
            max_bytes_forwarded: 123_456,
            mean_bytes_forwarded: 65_432.1,
            upstream_calls: 2904,
            upstream_faults: 145,
            stale_answers: Some(0),
            checked_answers: 1370,
            changed_answers: 40,
            calls: 2904,
            failed: 145,
            seconds: 40.0,
        }
    }

    fn through() -> Side {
        Side {
            failed_ratio: 0.0,
            answer_ms_mean: 111.0,
            search_hit_ms_p50: Some(0.6),
            hit_rate: Some(0.79),
            max_messages_forwarded: 20,
            ..side()
        }
    }

    #[test]
    fn it_fits_80_columns() {
        let table = render(&side(), &through());
        for text in [&table, &notes(0.868, &side(), &through())] {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        assert!(table.contains("145 (5.01 %)"), "{table}");
        assert!(table.contains("-70 %"), "{table}");
        assert!(claims(&side(), &through()).iter().all(|claim| claim.text.len() <= 72 && claim.held));
    }

    #[test]
    fn each_broken_claim_is_seen() {
        let broken = |change: fn(&mut Side)| {
            let mut pillion = through();
            change(&mut pillion);
            claims(&side(), &pillion).iter().filter(|claim| !claim.held).count()
        };
        assert_eq!(broken(|_| ()), 0);
        assert_eq!(broken(|side| side.failed_ratio = 0.001), 1);
        assert_eq!(broken(|side| side.search_hit_ms_p50 = Some(8.0)), 1);
        assert_eq!(broken(|side| side.search_hit_ms_p50 = None), 1);
        assert_eq!(broken(|side| side.answer_ms_mean = 150.0), 1);
        assert_eq!(broken(|side| side.max_messages_forwarded = 21), 1);
        assert_eq!(broken(|side| side.stale_answers = Some(1)), 1);
        assert!(!claims(&Side { failed_ratio: 0.0, ..side() }, &through())[0].held);
    }
}
