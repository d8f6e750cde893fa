//! What is in force, for people: every number in its place, whatever layer it came from, and no secret.
//!
//! Written by hand rather than serialised: a rule should fit on a screen, and serde knows no flow style.

use std::fmt::Write as _;
use std::time::Duration;

use super::layers::NO_LIMIT;
use super::units::{Ratio, Size, Time};
use super::{Config, LogFormat, Memory};
use crate::plan::{Action, Condition, Level, Plan, Rule, Source, StopSdk, Values};
use crate::retry::{Class, breaker};

/// The configuration in force as YAML, with secrets masked, behind comments that name its source, what the operator
/// should know and the memory ceiling.
pub fn effective(config: &Config) -> String {
    let mut page = Page(String::new());
    page.head(config);
    page.process(config);
    page.line(0, "routes:");
    for plan in &config.routes {
        page.route(plan);
    }
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:depth$}{text}", "", depth = depth * 2);
    }

    fn head(&mut self, config: &Config) {
        let source = config.source.as_ref();
        let source =
            source.map_or_else(|| "the built-in default".to_owned(), |path| path.display().to_string());
        self.line(0, &format!("# In force, from {source}."));
        for note in &config.notes {
            self.line(0, &format!("# Note: {}.", note.replace(char::is_control, " ")));
        }
        let Memory { cache, buffers, conversations } = config.memory;
        self.line(
            0,
            &format!(
                "# Memory ceiling: {} (stored responses {}, request content {}, conversations {}) besides the process itself.",
                Size(cache.saturating_add(buffers).saturating_add(conversations)),
                Size(cache),
                Size(buffers),
                Size(conversations)
            ),
        );
    }

    fn process(&mut self, config: &Config) {
        self.line(0, "version: 1");
        self.line(0, &format!("listen: {}", list(&config.listen)));
        self.line(0, "admin:");
        self.line(1, &format!("listen: {}", text(&config.admin.listen)));
        if config.admin.token.is_some() {
            self.line(1, "token: '***'");
        }
        self.line(1, &format!("hosts: {}", list(&config.admin.hosts)));
        if let Some(redis) = &config.redis {
            let (url, timeout, prefix) = (text(&redis.shown), time(redis.timeout), text(&redis.prefix));
            let secret = if redis.secret.is_some() { ", secret: '***'" } else { "" };
            self.line(0, &format!("redis: {{url: {url}, timeout: {timeout}, prefix: {prefix}{secret}}}"));
        }
        let Memory { cache, buffers, conversations } = config.memory;
        let [cache, buffers, conversations] = [cache, buffers, conversations].map(Size);
        self.line(0, &format!("limits: {{max_in_flight: {}}}", config.max_in_flight));
        self.line(
            0,
            &format!("memory: {{cache: {cache}, buffers: {buffers}, conversations: {conversations}}}"),
        );
        self.line(0, &format!("workers: {}", config.workers));
        self.line(0, &format!("drain: {}", time(config.drain)));
        let format = match config.log.format {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        self.line(0, &format!("log: {{level: {}, format: {format}}}", text(&config.log.level)));
        if let Some(ca) = &config.tls_ca {
            self.line(0, &format!("tls: {{ca: {}}}", text(&ca.display())));
        }
    }

    fn route(&mut self, plan: &Plan) {
        let upstream = &plan.upstream;
        let upstream = format!("{}://{}{}", upstream.scheme, upstream.authority, upstream.base_path);
        self.line(1, &format!("- name: {}", text(&plan.name)));
        let path = if plan.prefix.is_empty() { "/" } else { &plan.prefix };
        self.line(2, &format!("path: {}", text(&path)));
        if !plan.listen.is_empty() {
            self.line(2, &format!("listen: {}", list(&plan.listen)));
        }
        self.line(2, &format!("upstream: {}", text(&upstream)));
        self.line(2, &format!("preset: {}", plan.preset));
        let stop_sdk = match plan.stop_sdk {
            StopSdk::Auto => "auto",
            StopSdk::Always => "always",
            StopSdk::Never => "never",
        };
        let budget = Ratio(plan.guard.budget);
        self.line(2, &format!("retry: {{budget: {budget}, stop_sdk: {stop_sdk}}}"));
        self.breaker(plan.guard.breaker.as_ref());
        let (body, replay) = (Size(plan.limits.max_body), Size(plan.limits.replay_body));
        self.line(2, &format!("limits: {{max_body: {body}, replay_body: {replay}}}"));
        let idle = time(plan.conversation_idle);
        self.line(2, &format!("window: {{id_header: {}, idle_ttl: {idle}}}", plan.id_header));
        if plan.flush_whole {
            self.line(
                2,
                "# Names may be aliases, or routes with other rules share this upstream: every write drops all that is stored of it.",
            );
        }
        self.line(2, "rules:");
        for rule in &plan.rules {
            self.rule(rule, &takes(rule));
        }
        self.rule(&plan.unmatched_safe, "GET, HEAD and OPTIONS that no rule takes");
        self.rule(&plan.unmatched_unsafe, "other methods that no rule takes");
    }

    fn breaker(&mut self, breaker: Option<&breaker::Policy>) {
        let Some(breaker::Policy { errors, requests, connects, open, max_open }) = breaker else {
            self.line(2, "breaker: {enabled: false}");
            return;
        };
        let (errors, [open, max_open]) = (Ratio(*errors), [*open, *max_open].map(time));
        self.line(
            2,
            &format!(
                "breaker: {{errors: {errors}, requests: {requests}, connects: {connects}, open: {open}, max_open: {max_open}}}"
            ),
        );
    }

    fn rule(&mut self, rule: &Rule, takes: &str) {
        self.line(3, &format!("- name: {}", text(&rule.name)));
        self.line(4, &format!("takes: {}", text(&takes)));
        self.line(4, &format!("operation: {}", rule.operation.word()));
        match &rule.action {
            Action::Pass => self.line(4, "action: pass"),
            Action::Invalidate(settle) => {
                let (lag, work) = (time(settle.lag), time(settle.work));
                let settles = if settle.work.is_zero() {
                    format!("settles in {lag}")
                } else {
                    format!("done in {work}")
                };
                self.line(4, &format!("action: invalidate # {}, {settles}", scope(&rule.scope)));
            }
            Action::Cache(policy) | Action::Embeddings(policy) => {
                let action = match &rule.action {
                    Action::Embeddings(_) => "embeddings".to_owned(),
                    _ => format!("cache # {}", scope(&rule.scope)),
                };
                self.line(4, &format!("action: {action}"));
                let (ttl, most) = (time(policy.ttl), Size(policy.max_entry as u64));
                let (stale, shadow) = (time(policy.stale_if_error), policy.shadow);
                let audit = Ratio(policy.audit);
                let mut ignored = String::new();
                if !policy.ignore_headers.is_empty() {
                    ignored = format!(", ignore_headers: {}", list(&policy.ignore_headers));
                }
                self.line(
                    4,
                    &format!(
                        "cache: {{ttl: {ttl}, max_entry: {most}, stale_if_error: {stale}, shadow: {shadow}, audit: {audit}{ignored}}}"
                    ),
                );
            }
        }
        for (key, condition) in [("settled_if", &rule.settled_if), ("pass_if", &rule.pass_if)] {
            if let Some(condition) = condition {
                self.line(4, &format!("{key}: {}", text(&said(condition))));
            }
        }
        let [connect, first_byte, idle, total] =
            [rule.timeouts.connect, rule.timeouts.first_byte, rule.timeouts.idle, rule.timeouts.total]
                .map(time);
        self.line(
            4,
            &format!(
                "timeouts: {{connect: {connect}, first_byte: {first_byte}, idle: {idle}, total: {total}}}"
            ),
        );
        self.retry(rule);
        if let Some(window) = &rule.window {
            let (enabled, shadow, most, step) =
                (window.enabled, window.shadow, window.max_messages, window.step);
            let (bytes, dialect) = (Size(window.max_bytes), window.dialect.word());
            let mut tokens = String::new();
            if window.max_tokens > 0 {
                tokens = format!(", max_tokens: {}, encoding: {}", window.max_tokens, window.encoding.word());
            }
            self.line(
                4,
                &format!(
                    "window: {{enabled: {enabled}, shadow: {shadow}, max_messages: {most}, step: {step}, max_bytes: {bytes}{tokens}}} # {dialect}"
                ),
            );
        }
    }

    fn retry(&mut self, rule: &Rule) {
        let retry = &rule.retry;
        let class = match retry.class {
            Class::Idempotent => "idempotent",
            Class::Chat => "as its SDK would",
            Class::ChatStateful => "never sent, or refused with 429 or 503",
            Class::Other => "never sent",
        };
        if !retry.enabled {
            self.line(4, "retry: {enabled: false}");
            return;
        }
        let (attempts, factor) = (retry.attempts, retry.factor);
        let [base, max, max_wait] = [retry.base, retry.max, retry.max_wait].map(time);
        self.line(
            4,
            &format!(
                "retry: {{attempts: {attempts}, base: {base}, factor: {factor}, max: {max}, max_wait: {max_wait}}} # {class}"
            ),
        );
    }
}

/// A scalar, quoted where YAML needs it.
fn text(value: &dyn std::fmt::Display) -> String {
    let plain = value.to_string();
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:*^$ ?".contains(c);
    if plain.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && plain.chars().all(safe)
        && !plain.contains(": ")
    {
        // `true`, `null` and the like still need quotes; serde_yaml knows.
        return serde_yaml::to_string(&plain).map_or(plain, |yaml| yaml.trim_end().to_owned());
    }
    format!("'{}'", plain.replace('\'', "''"))
}

fn list<T: std::fmt::Display>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(|value| text(value)).collect();
    format!("[{}]", values.join(", "))
}

/// The requests that a rule takes, for people.
pub(super) fn takes(rule: &Rule) -> String {
    let methods: Vec<&str> = rule.matcher.methods.iter().map(http::Method::as_str).collect();
    let methods = if methods.is_empty() { "any method".to_owned() } else { methods.join(" ") };
    let path = rule.matcher.path.as_ref().map_or("any path", |path| path.as_str());
    let has = rule.matcher.query_has.iter().map(|name| format!(" with ?{name}"));
    let lacks = rule.matcher.query_lacks.iter().map(|name| format!(" without ?{name}"));
    format!("{methods} {path}{}", has.chain(lacks).collect::<String>())
}

/// A scope for people.
pub(super) fn scope(levels: &[Level]) -> String {
    let named: Vec<String> = levels
        .iter()
        .map(|level| match level {
            Level::Named { from, default } => {
                let from = match from {
                    Source::Path(group) => group.clone(),
                    Source::Query(name) => format!("?{name}"),
                    Source::Body(pointer) => pointer.to_string(),
                    Source::Header(name) => format!("{name}:"),
                };
                default.as_ref().map_or_else(|| from.clone(), |default| format!("{from} (else {default:?})"))
            }
            Level::Const(name) => format!("{name:?}"),
            Level::Any => "everything".to_owned(),
        })
        .collect();
    if named.is_empty() { "everything".to_owned() } else { named.join(" / ") }
}

/// A condition for people.
pub(super) fn said(condition: &Condition) -> String {
    let values = |values: &Values| match values {
        Values::Any => "there".to_owned(),
        Values::OneOf(scalars) => {
            let each: Vec<&str> = scalars
                .iter()
                .map(|scalar| if scalar.text().is_empty() { "empty" } else { scalar.text() })
                .collect();
            each.join(" or ")
        }
    };
    let query = condition.query.iter().map(|(name, is)| format!("?{name} is {}", values(is)));
    let body = condition.body.iter().map(|(place, is)| format!("{place} is {}", values(is)));
    let matches = condition.matches.iter().map(|pattern| format!("the content matches {pattern}"));
    query.chain(body).chain(matches).collect::<Vec<_>>().join(", or ")
}

fn time(span: Duration) -> String {
    if span >= NO_LIMIT { "0".to_owned() } else { Time(span).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_as_they_are() {
        for plain in [
            "openai",
            "/vector",
            "true",
            "12",
            "1e3",
            "null",
            "127.0.0.1:8080",
            "it's",
            "a: b",
            "# no",
            "[::1]:1",
            "POST ^/(?P<n>.+)$",
            "",
            "x, y",
        ] {
            let shown = format!("{{a: {}}}", text(&plain));
            let read: std::collections::BTreeMap<String, String> = serde_yaml::from_str(&shown).unwrap();
            assert_eq!(read["a"], plain, "{shown}");
        }
    }
}
