//! `pillion report`: the performance summary of a running Pillion, as a table.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::http::{self, Base};

/// What `pillion report` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The admin listener of the Pillion to ask
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    pub admin: String,
    /// How far back to look, up to 60m, such as 15m
    #[arg(long, value_name = "DURATION", default_value = "60m")]
    pub window: String,
    /// Print the summary as JSON, as it came
    #[arg(long)]
    pub json: bool,
    /// The admin token, where one is set
    #[arg(long, env = "PILLION_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// Longer than the longest sensible answer: the summary is computed in memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for the summary and prints it.
pub async fn run(args: &Args) -> Result<(), String> {
    let text = fetch(args).await?;
    let text =
        if args.json { format!("{}\n", text.trim_end()) } else { render(&text, &args.admin, &args.window)? };
    // Whoever closed the pipe wants no more of it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

async fn fetch(args: &Args) -> Result<String, String> {
    let base: Base = args.admin.parse()?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    if args.window.is_empty() || !args.window.bytes().all(safe) {
        return Err(format!("--window {}: a duration such as 60m is needed", args.window));
    }
    let path = format!("/summary?window={}", args.window);
    let token = args.token.as_deref().filter(|token| !token.is_empty());
    let answer = http::get(&base, &path, token, PATIENCE)
        .await
        .map_err(|error| format!("{error}\nIs Pillion running, and is this its admin listener (--admin)?"))?;
    let text = String::from_utf8_lossy(&answer.content).into_owned();
    match answer.status.as_u16() {
        200 => Ok(text),
        401 | 403 => Err(format!(
            "{base} answered {}: it wants its admin token (--token or PILLION_ADMIN_TOKEN)",
            answer.status
        )),
        404 => Err(format!("{base} answered 404: this is no admin listener of Pillion (--admin)")),
        _ => Err(format!("{base} answered {}: {}", answer.status, text.trim())),
    }
}

/// Names of the summary as a reader knows them, in the order of the table. Others follow under their own name.
const ROWS: [(&str, &str); 4] = [
    ("http_request_duration", "requests"),
    ("llm_call_duration", "LLM calls"),
    ("vector_search_duration", "vector searches"),
    ("conversation_size", "messages forwarded"),
];

/// The columns after the name, and the members they show.
const COLUMNS: [(&str, &str); 6] =
    [("count", "count"), ("average", "mean"), ("p50", "p50"), ("p95", "p95"), ("p99", "p99"), ("max", "max")];

fn render(text: &str, admin: &str, window: &str) -> Result<String, String> {
    let summary: Value =
        serde_json::from_str(text).map_err(|error| format!("{admin}: the answer is no JSON ({error})"))?;
    let Some(metrics) = summary.get("metrics").and_then(Value::as_object) else {
        return Err(format!("{admin}: the answer is no summary (no \"metrics\" in it)"));
    };
    let mut out = format!("Pillion at {admin}, the last {window}\n\n");
    let mut header = format!("{:<20}", "");
    for (_, title) in COLUMNS {
        let _ = write!(header, "{title:>10}");
    }
    let _ = writeln!(out, "{header}");
    for (name, title) in rows(metrics) {
        let Some(figures) = metrics.get(name).and_then(Value::as_object) else { continue };
        let _ = writeln!(out, "{}", row(title, name.ends_with("_duration"), figures));
    }
    out.push('\n');
    let searches = metrics.get("vector_search_duration").and_then(|figures| figures.get("count"));
    let no_searches = searches.and_then(Value::as_u64) == Some(0);
    for (name, value) in metrics.iter().filter(|(_, value)| !value.is_object()) {
        let _ = match (name.as_str(), value.as_f64()) {
            ("cache_hit_rate", Some(_)) if no_searches => {
                writeln!(out, "{:<20}{:>10}", "cache hit rate", "-")
            }
            ("cache_hit_rate", Some(rate)) => {
                writeln!(out, "{:<20}{:>8.1} %", "cache hit rate", rate * 100.0)
            }
            ("total_tokens_used", Some(tokens)) => {
                writeln!(out, "{:<20}{:>10}", "tokens used", grouped(tokens as u64))
            }
            _ => writeln!(out, "{:<20}{value:>10}", name.replace('_', " ")),
        };
    }
    Ok(out)
}

fn rows(metrics: &Map<String, Value>) -> Vec<(&str, &str)> {
    let known = ROWS.iter().copied();
    let others = metrics.keys().map(|name| (name.as_str(), name.as_str()));
    known.chain(others.filter(|(name, _)| !ROWS.iter().any(|(row, _)| row == name))).collect()
}

fn row(title: &str, duration: bool, figures: &Map<String, Value>) -> String {
    let mut line = format!("{:<20}", title.chars().take(20).collect::<String>());
    let empty = figures.get("count").and_then(Value::as_u64) == Some(0);
    for (name, _) in COLUMNS {
        let cell = match figures.get(name).and_then(Value::as_f64) {
            Some(count) if name == "count" => grouped(count as u64),
            Some(_) if empty => "-".to_owned(),
            Some(seconds) if duration => span(seconds),
            Some(number) => format!("{number:.1}"),
            None => "-".to_owned(),
        };
        let _ = write!(line, "{cell:>10}");
    }
    line
}

/// Seconds with a unit a person reads at a glance.
fn span(seconds: f64) -> String {
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} us", s * 1e6),
    }
}

/// A count with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = r#"{"status":"ok","metrics":{
        "vector_search_duration":{"count":150,"average":0.125,"min":0.005,"max":0.487,"p50":0.098,"p95":0.412,"p99":0.465},
        "llm_call_duration":{"count":0,"average":0,"min":0,"max":0,"p50":0,"p95":0,"p99":0},
        "http_request_duration":{"count":12345,"average":1.25,"min":0.0001,"max":123.4,"p50":0.0004,"p95":0.0042,"p99":2},
        "conversation_size":{"count":3,"average":12.333,"min":1,"max":20,"p50":12,"p95":20,"p99":20},
        "cache_hit_rate":0.85,"total_tokens_used":125000}}"#;

    #[test]
    fn the_summary_becomes_a_table_of_80_columns() {
        let table = render(SUMMARY, "http://127.0.0.1:9901", "60m").unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert_eq!(
            line("vector searches").split_whitespace().collect::<Vec<_>>().join(" "),
            "vector searches 150 125 ms 98 ms 412 ms 465 ms 487 ms"
        );
        assert_eq!(
            line("requests").split_whitespace().collect::<Vec<_>>().join(" "),
            "requests 12,345 1.25 s 400 us 4.2 ms 2.00 s 123 s"
        );
        assert!(line("LLM calls").ends_with("0         -         -         -         -         -"));
        assert!(line("messages forwarded").ends_with("20.0"));
        assert!(line("cache hit rate").ends_with("85.0 %"));
        assert!(line("tokens used").ends_with("125,000"));
    }

    #[test]
    fn an_answer_that_is_no_summary_is_said() {
        assert!(render("<html>", "u", "1m").unwrap_err().contains("no JSON"));
        assert!(render("{}", "u", "1m").unwrap_err().contains("no summary"));
    }

    #[tokio::test]
    async fn a_window_cannot_smuggle_anything_into_the_target() {
        let args = Args {
            admin: "http://127.0.0.1:1".to_owned(),
            window: "1m HTTP/1.1".to_owned(),
            json: false,
            token: None,
        };
        assert!(fetch(&args).await.unwrap_err().contains("--window"));
    }
}
