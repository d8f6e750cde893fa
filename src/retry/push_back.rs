//! The upstream's wish about when to come back.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// `retry-after-ms` (the official SDKs' own), else `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3).
///
/// A date is compared with the wall clock given; one that is past, and a value that is neither, count as none.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|v| v.parse::<f64>().ok())
        && let Ok(wait) = Duration::try_from_secs_f64(ms / 1000.0)
    {
        return Some(wait);
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    httpdate::parse_http_date(value).ok()?.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30))
    }

    #[test]
    fn a_table_of_wishes() {
        let s = Duration::from_secs;
        assert_eq!(parse("retry-after", "7"), Some(s(7)));
        assert_eq!(parse("retry-after", " 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(parse("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(parse("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(s(30)));
        assert_eq!(parse("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), None);
        assert_eq!(parse("retry-after", "soon"), None);
        assert_eq!(parse("retry-after", "-1"), None);
        assert_eq!(parse("retry-after", "NaN"), None);
    }

    #[test]
    fn milliseconds_win() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "9".parse().unwrap());
        headers.insert("retry-after-ms", "20".parse().unwrap());
        assert_eq!(retry_after(&headers, SystemTime::now()), Some(Duration::from_millis(20)));
    }
}
