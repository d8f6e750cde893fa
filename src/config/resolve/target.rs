//! The address of a service.

use http::Uri;
use http::uri::{Authority, Scheme};

use crate::config::listeners::{self, Listener};
use crate::config::problem::{Findings, KeyPath};
use crate::plan;
use crate::upstream::Target;

/// Reads an upstream; what is wrong with it becomes a problem that shows no credentials.
pub(super) fn read(text: &str, at: &KeyPath, findings: &mut Findings) -> Option<Target> {
    match parse(text.trim()) {
        Ok(target) => Some(target),
        Err((rule, suggestion)) => {
            // A variable without a scheme may hold anything, a key included.
            let unclear = findings.expanded(at) && !text.contains("://");
            let suggestion =
                if unclear { format!("https://... or http://..., as in {EXAMPLE}") } else { suggestion };
            findings.add_value(at, masked(text.trim()), rule, suggestion);
            None
        }
    }
}

const RULE: &str = "an upstream is `http://` or `https://`, a host, and a base path if the service has one";
const EXAMPLE: &str = "https://api.example.com";

type Fault = (&'static str, String);

fn parse(text: &str) -> Result<Target, Fault> {
    let wrong = |rule, suggestion: &str| Err((rule, suggestion.to_owned()));
    let Some((scheme, rest)) = text.split_once("://") else {
        let plain = !text.is_empty() && !text.contains(['@', '?', '#', ' ']);
        return wrong(RULE, &if plain { format!("https://{text}") } else { EXAMPLE.to_owned() });
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        _ => return wrong(RULE, EXAMPLE),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let rule = "an upstream carries no credentials: they come with the bot's requests";
        let bare = authority.rsplit('@').next().unwrap_or_default();
        return wrong(rule, &format!("{scheme}://{bare}"));
    }
    if let Some((base, _)) = text.split_once(['?', '#']) {
        return wrong("an upstream has no query and no fragment", base);
    }
    let Ok(uri) = text.parse::<Uri>() else { return wrong(RULE, EXAMPLE) };
    let Some(authority) = uri.authority().and_then(|authority| tidy(authority, &scheme)) else {
        return wrong(RULE, EXAMPLE);
    };
    if plan::normalise(uri.path()).is_err() {
        return wrong(
            "a base path has no dot segments and no broken escapes",
            &format!("{scheme}://{authority}"),
        );
    }
    Ok(Target { scheme, authority, base_path: uri.path().trim_end_matches('/').to_owned() })
}

/// In lower case, and without the port that its scheme has anyway; nothing where the port is none.
fn tidy(authority: &Authority, scheme: &Scheme) -> Option<Authority> {
    let host = authority.host().to_ascii_lowercase();
    let port = authority.as_str().get(host.len()..).and_then(|rest| rest.strip_prefix(':'));
    let own = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    match port.map(str::parse::<u16>) {
        _ if host.is_empty() => None,
        None => host.parse().ok(),
        Some(Ok(port)) if port == own => host.parse().ok(),
        Some(Ok(port)) if port != 0 => format!("{host}:{port}").parse().ok(),
        Some(_) => None,
    }
}

/// An address with what may be secret in it left out: credentials and the query.
pub(in crate::config) fn masked(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("***@{host}"));
    let rest = rest.split_once(['?', '#']).map_or(rest.clone(), |(base, _)| format!("{base}?***"));
    scheme + &rest
}

/// Refuses an upstream that is one of our own listeners, and says which variable to set: on a small box the bot and
/// Pillion often share one environment, and the bot's variable points at us.
pub(super) fn refuse_loop(
    target: &Target,
    route: &str,
    at: &KeyPath,
    listeners: &[Listener],
    findings: &mut Findings,
) {
    let Some(listener) = listeners::reached_by(target, listeners) else { return };
    let here = format!("Pillion itself, which listens on {} ({})", listener.address, listener.at);
    let expansion = findings.expansions.get(at);
    let used = expansion.and_then(|expansion| expansion.used.last());
    let own = expansion
        .and_then(|expansion| expansion.asked.iter().find(|name| name.starts_with("PILLION_")))
        .cloned();
    let (rule, suggestion) = match (used, own) {
        (Some(used), Some(own)) if *used != own => (
            format!("{used} is the bot's variable and points at {here}: requests would go round in a circle"),
            format!("leave {used} to the bot, and set {own} to the real address of the service for Pillion"),
        ),
        (Some(used), Some(_)) => (
            format!("{used} points at {here}: requests would go round in a circle"),
            format!("set {used} to the real address of the service"),
        ),
        (Some(used), None) => {
            let own = format!("PILLION_{}_URL", route.to_ascii_uppercase().replace(['-', '.'], "_"));
            (
                format!("{used} points at {here}: requests would go round in a circle"),
                format!(
                    "write ${{{own}:-${{{used}:-}}}}, and set {own} to the real address of the service for Pillion"
                ),
            )
        }
        (None, _) => (
            format!("this is {here}: requests would go round in a circle"),
            "the real address of the service; the address of Pillion goes into the bot's environment"
                .to_owned(),
        ),
    };
    let shown = format!("{}://{}{}", target.scheme, target.authority, target.base_path);
    findings.add_shown(at, shown, rule, suggestion);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_as_written() {
        for (text, expected) in [
            ("https://api.openai.com", Ok("https://api.openai.com")),
            ("https://API.openai.com:443/", Ok("https://api.openai.com")),
            ("http://127.0.0.1:8000/base/", Ok("http://127.0.0.1:8000/base")),
            ("http://[::1]:8000", Ok("http://[::1]:8000")),
            ("http://h:443", Ok("http://h:443")),
            ("api.openai.com", Err("https://api.openai.com")),
            ("ftp://h", Err("https://api.example.com")),
            ("https://u:secret@h/x", Err("https://h")),
            ("https://h/x?k=1", Err("https://h/x")),
            ("https://h#x", Err("https://h")),
            ("https://h/a/../b", Err("https://h")),
            ("https://h:99999", Err("https://api.example.com")),
            ("https://h:0", Err("https://api.example.com")),
            ("https://h:", Err("https://api.example.com")),
            ("https://", Err("https://api.example.com")),
            ("https://a b", Err("https://api.example.com")),
        ] {
            let read = parse(text)
                .map(|target| format!("{}://{}{}", target.scheme, target.authority, target.base_path))
                .map_err(|(_, suggestion)| suggestion);
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        for (text, expected) in [
            ("https://u:p@h/x", "https://***@h/x"),
            ("redis://:p@ss@h:6379", "redis://***@h:6379"),
            ("https://h?token=1", "https://h?***"),
            ("u:p@h", "***@h"),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }
}
