//! `pillion invalidate`: drops stored responses of a running Pillion.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use serde_json::Value;

use super::http::{self, Base};

/// What `pillion invalidate` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The route whose stored responses are dropped [default: all]
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// The part of the route's store: its levels joined by `/`, a `/` inside of a name as %2F [default: all of it]
    #[arg(long, value_name = "SCOPE", requires = "route")]
    pub scope: Option<String>,
    /// The admin listener of the Pillion to tell
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    pub admin: String,
    /// The admin token, where one is set
    #[arg(long, env = "PILLION_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
}

/// Nothing is waited for there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells it, and prints what was dropped and where.
pub async fn run(args: &Args) -> Result<(), String> {
    let base: Base = args.admin.parse()?;
    let token = args.token.as_deref().filter(|token| !token.is_empty());
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("pillion-admin"), HeaderValue::from_static("1"));
    let path = format!("/cache/invalidate{}", query(args));
    let answer = http::call(&base, Method::POST, &path, token, headers, Bytes::new(), PATIENCE)
        .await
        .map_err(|error| format!("{error}\nIs Pillion running, and is this its admin listener (--admin)?"))?;
    let text = String::from_utf8_lossy(&answer.content);
    match answer.status.as_u16() {
        200 => {
            let _ = std::io::stdout().write_all(told(&text)?.as_bytes());
            Ok(())
        }
        401 => Err(format!("{base} answered 401: it wants its admin token (--token or PILLION_ADMIN_TOKEN)")),
        _ => Err(format!("{base} answered {}: {}", answer.status, text.trim())),
    }
}

fn query(args: &Args) -> String {
    let mut query = String::new();
    for (name, value) in [("route", &args.route), ("scope", &args.scope)] {
        let Some(value) = value else { continue };
        // Writing to a String cannot fail.
        let _ = write!(query, "{}{name}=", if query.is_empty() { '?' } else { '&' });
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                query.push(byte.into());
            } else {
                let _ = write!(query, "%{byte:02X}");
            }
        }
    }
    query
}

fn told(text: &str) -> Result<String, String> {
    let answer: Value =
        serde_json::from_str(text).map_err(|error| format!("the answer is no JSON ({error})"))?;
    let routes: Vec<&str> = answer
        .get("routes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if routes.is_empty() {
        return Ok("nothing to drop: no such route stores anything there\n".to_owned());
    }
    let scope = match answer.get("scope").and_then(Value::as_str) {
        Some("") => ", the scope without a name".to_owned(),
        Some(scope) => format!(", scope {scope}"),
        None => String::new(),
    };
    let reached = match answer.get("reached").and_then(Value::as_str) {
        Some("this instance") | None => {
            "in this instance only: others keep what they have until it expires or a write passes through them"
        }
        Some(other) => other,
    };
    Ok(format!("dropped: {}{scope}, {reached}\n", routes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_goes_into_the_query() {
        let args = |route: Option<&str>, scope: Option<&str>| Args {
            route: route.map(str::to_owned),
            scope: scope.map(str::to_owned),
            admin: String::new(),
            token: None,
        };
        assert_eq!(query(&args(None, None)), "");
        assert_eq!(query(&args(Some("v-1"), None)), "?route=v-1");
        assert_eq!(query(&args(Some("v"), Some("a b/c%2Fd&x"))), "?route=v&scope=a%20b%2Fc%252Fd%26x");
        assert_eq!(query(&args(Some("v"), Some(""))), "?route=v&scope=");
    }

    #[test]
    fn how_far_it_reached_is_said() {
        let one = r#"{"routes":["vector"],"scope":"docs","reached":"this instance"}"#;
        assert!(told(one).unwrap().starts_with("dropped: vector, scope docs, in this instance only: "));
        let all = r#"{"routes":["a","b"],"scope":null,"reached":"every instance"}"#;
        assert_eq!(told(all).unwrap(), "dropped: a, b, every instance\n");
        assert!(told(r#"{"routes":[],"scope":null}"#).unwrap().starts_with("nothing to drop"));
        assert!(told("no").is_err());
    }
}
