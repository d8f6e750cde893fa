//! The upstream's wish about when to come back.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, StatusCode};

/// When a failed answer asks to be tried again: `retry-after-ms` (the official SDKs' own), else `Retry-After` in seconds
/// or as a date (RFC 9110 section 10.2.3), else, of a 429, when what is used up of a rate limit is there again.
///
/// A date is compared with the wall clock given; one that is past, and a value that is neither, count as none.
pub fn push_back(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    retry_after(headers, now).or_else(|| limited.then(|| reset(headers, now)).flatten())
}

/// Too long for anybody is forever, not nothing.
fn seconds(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let ms = text("retry-after-ms").and_then(|v| v.parse::<f64>().ok());
    if let Some(wait) = ms.and_then(|ms| seconds(ms / 1000.0)) {
        return Some(wait);
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(number) = value.parse::<f64>() {
        return seconds(number);
    }
    httpdate::parse_http_date(value).ok()?.duration_since(now).ok()
}

/// The latest reset of the limits of which nothing remains: `x-ratelimit-remaining-requests: 0` with
/// `x-ratelimit-reset-requests: 6m0s` (<https://platform.openai.com/docs/guides/rate-limits>), or its
/// `anthropic-ratelimit-requests-remaining` and `-reset`, which is a date
/// (<https://platform.claude.com/docs/en/api/rate-limits>).
fn reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let used_up = headers.iter().filter(|(_, value)| value.as_bytes().trim_ascii() == b"0");
    let resets = used_up.filter_map(|(name, _)| {
        let name = name.as_str();
        if !name.contains("ratelimit") || !name.contains("remaining") {
            return None;
        }
        let name = HeaderName::try_from(name.replace("remaining", "reset")).ok()?;
        let value = headers.get(name)?.to_str().ok()?.trim();
        span(value).or_else(|| {
            let date = chrono::DateTime::parse_from_rfc3339(value).ok()?;
            SystemTime::from(date).duration_since(now).ok()
        })
    });
    resets.max()
}

/// A span as Go writes it (`6m0s`, `1h2m3.5s`, `12ms`), or plain seconds.
fn span(text: &str) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        return seconds(number);
    }
    let (mut rest, mut sum) = (text, 0.0);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at_checked(digits)?;
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, next) = unit.split_at_checked(end)?;
        let of_unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * of_unit;
        if next.is_empty() {
            return seconds(sum);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(784_111_777 - 30);

    fn parse(status: u16, fields: &[(&'static str, &str)]) -> Option<Duration> {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        push_back(StatusCode::from_u16(status).unwrap(), &headers.collect(), SystemTime::UNIX_EPOCH + NOW)
    }

    #[test]
    fn a_table_of_wishes() {
        let s = Duration::from_secs;
        for (name, value, expected) in [
            ("retry-after", "7", Some(s(7))),
            ("retry-after", " 0.5 ", Some(Duration::from_millis(500))),
            ("retry-after-ms", "250", Some(Duration::from_millis(250))),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", Some(s(30))),
            ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("retry-after", "soon", None),
            ("retry-after", "-1", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1e308", Some(Duration::MAX)),
            ("retry-after", "99999999999999999999999", Some(Duration::MAX)),
        ] {
            assert_eq!(parse(503, &[(name, value)]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn milliseconds_win_and_both_win_over_limits() {
        let limit = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "1m")];
        let both = [("retry-after", "9"), ("retry-after-ms", "20"), limit[0], limit[1]];
        assert_eq!(parse(429, &both), Some(Duration::from_millis(20)));
        assert_eq!(parse(429, &[both[0], limit[0], limit[1]]), Some(Duration::from_secs(9)));
        assert_eq!(parse(429, &limit), Some(Duration::from_secs(60)));
        assert_eq!(parse(503, &limit), None, "only of a 429");
    }

    #[test]
    fn the_latest_reset_of_what_is_used_up() {
        let told = [
            ("x-ratelimit-remaining-requests", "12"),
            ("x-ratelimit-reset-requests", "9m"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0.5s"),
        ];
        assert_eq!(parse(429, &told), Some(Duration::from_millis(360_500)));
        let told = [
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "1994-11-06T08:49:37Z"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "1994-11-06T08:49:17Z"),
        ];
        assert_eq!(parse(429, &told), Some(Duration::from_secs(30)));
        for (remaining, reset) in [("0", "soon"), ("0", ""), ("0", "-3s"), ("-1", "9s"), ("1", "9s")] {
            let told = [("x-ratelimit-remaining-tokens", remaining), ("x-ratelimit-reset-tokens", reset)];
            assert_eq!(parse(429, &told), None, "{remaining} {reset}");
        }
    }

    #[test]
    fn spans() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, expected) in [
            ("12ms", ms(12)),
            ("1s", ms(1000)),
            ("1h2m3.5s", ms(3_723_500)),
            ("7", ms(7000)),
            ("7x", None),
            ("s", None),
        ] {
            assert_eq!(span(text), expected, "{text}");
        }
    }
}
