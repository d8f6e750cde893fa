//! Redis as meant.

use std::time::Duration;

use super::target::masked;
use crate::config::file::{self, File};
use crate::config::layers::built_in;
use crate::config::problem::{Findings, KeyPath};
use crate::config::units::Time;
use crate::config::{Environment, Redis, Secret};
use crate::redis::Address;

/// Upstash is not in the same room.
const UPSTASH_TIMEOUT: Duration = Duration::from_millis(100);
/// What gives the native endpoint of `url: upstash`.
const UPSTASH: [&str; 2] = ["UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"];

/// `None` without an address: nothing of it exists then.
pub(super) fn resolve(file: &File, env: &Environment, findings: &mut Findings) -> Option<Redis> {
    let written = file.redis.as_ref()?;
    let url = written.url.as_deref().map(str::trim).filter(|url| !url.is_empty())?;
    let at = KeyPath::root().key("redis");
    let upstash = url == "upstash";
    let address = if upstash {
        let [rest, token] = UPSTASH.map(|name| env.get(name).map(String::as_str).unwrap_or_default());
        Address::upstash(rest, token)
    } else {
        Address::parse(url)
    };
    let address = match address {
        Ok(address) => address,
        Err(why) if upstash => {
            let rule = format!("`upstash` takes its address from the environment: {}", why.0);
            findings.add_value(&at.key("url"), url, rule, format!("{}=https://NAME.upstash.io", UPSTASH[0]));
            return None;
        }
        Err(why) => {
            let rule = format!("the address of a Redis: {}; or the word `upstash`", why.0);
            findings.add_value(&at.key("url"), "***", rule, "redis://127.0.0.1:6379");
            return None;
        }
    };
    let Time(timeout) = match written.timeout {
        Some(timeout) => timeout,
        None if upstash => Time(UPSTASH_TIMEOUT),
        None => of_built_in(|redis| redis.timeout),
    };
    if timeout.is_zero() {
        findings.add_value(&at.key("timeout"), "0", "there is no time to ask Redis at all", "10ms");
    }
    let prefix = written.prefix.clone().filter(|prefix| !prefix.is_empty());
    let prefix = prefix.unwrap_or_else(|| of_built_in(|redis| redis.prefix.clone()));
    if !prefix.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '{' | '}')) {
        let rule = "a prefix is made of printable ASCII without spaces and braces";
        findings.add_value(&at.key("prefix"), &prefix, rule, "pillion:");
    }
    let secret = written.secret.clone().filter(|secret| !secret.is_empty()).map(Secret::new);
    Some(Redis { address, shown: masked(url), timeout, prefix, secret })
}

fn of_built_in<T: Default>(value: impl Fn(&file::Redis) -> Option<T>) -> T {
    built_in().redis.as_ref().and_then(value).unwrap_or_default()
}
