//! The exposition as a whole: what it names, what it counts, and that traffic adds no series.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::*;
use crate::error::Kind;

const OPERATIONS: [&str; 5] = ["search", "write", "chat", "embeddings", "other"];
const SEARCH: usize = 0;
const CHAT: usize = 2;
const HIT: usize = 0;
const MISS: usize = 1;
const HOUR: Duration = Duration::from_secs(3600);

const VOCABULARY: Vocabulary = Vocabulary {
    retry_reasons: &["connect", "reset", "timeout", "429", "5xx"],
    not_retried_reasons: &["attempts", "class", "billing"],
    cache_results: &["hit", "miss", "collapsed", "bypass"],
    shadow_results: &["equal", "different", "miss"],
    audit_results: &["equal", "different", "skipped"],
    not_stored_reasons: &["settle", "too_large"],
    window_reasons: &["encoded", "not_understood"],
};

fn metrics() -> Metrics {
    sharded(1)
}

fn sharded(threads: usize) -> Metrics {
    Metrics::new(&["openai", "vector"], &OPERATIONS, &VOCABULARY, threads)
}

/// Sample lines, by what is before their value.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples: Vec<_> = lines.map(|line| line.rsplit_once(' ').unwrap()).collect();
    let unique: BTreeMap<_, _> =
        samples.iter().map(|(name, value)| (*name, value.parse().unwrap())).collect();
    assert_eq!(unique.len(), samples.len(), "a series is exposed twice");
    unique
}

/// Names and label names of all samples, without the parts of histograms.
fn shapes(text: &str) -> BTreeSet<(String, Vec<String>)> {
    let shape = |sample: &str| {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let labels: Vec<_> = labels.map(|label| label.split_once('=').unwrap().0.to_owned()).collect();
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let name = part.filter(|name| name.ends_with("_seconds")).unwrap_or(name);
        (name.to_owned(), labels.into_iter().filter(|label| label != "le").collect::<Vec<_>>())
    };
    samples(text).into_keys().map(shape).collect()
}

#[test]
fn the_catalogue_is_what_dashboards_rely_on() {
    let rows = CATALOGUE.iter().fold(String::new(), |mut rows, row| {
        writeln!(rows, "{} {} {} {}", row.name, row.kind.word(), row.unit.word(), row.labels.join(","))
            .unwrap();
        rows
    });
    assert_eq!(
        rows,
        "\
pillion_requests_total counter count route,operation,status
pillion_request_duration_seconds histogram seconds route,operation,status
pillion_time_to_first_byte_seconds histogram seconds route,operation
pillion_overhead_seconds histogram seconds route,operation
pillion_in_flight gauge count route,operation
pillion_client_gone_total counter count route,operation
pillion_errors_total counter count route,operation,error
pillion_streamed_bodies_total counter count route,operation
pillion_upstream_duration_seconds histogram seconds route,operation
pillion_upstream_attempts_total counter count route,operation
pillion_retries_total counter count route,operation,reason
pillion_retries_not_made_total counter count route,operation,reason
pillion_failures_hidden_total counter count route,operation
pillion_failures_shown_total counter count route,operation
pillion_retry_budget_remaining gauge count route
pillion_breaker_open gauge count route
pillion_breaker_opened_total counter count route
pillion_upstream_in_flight gauge count route
pillion_cache_results_total counter count route,operation,result
pillion_cache_not_stored_total counter count route,operation,reason
pillion_cache_shadow_total counter count route,operation,result
pillion_cache_audits_total counter count route,operation,result
pillion_cache_stale_hits_total counter count route,operation
pillion_embeddings_inputs_total counter count route,operation,result
pillion_invalidations_total counter count route,operation
pillion_trimmed_messages_total counter count route,operation
pillion_trimmed_bytes_total counter bytes route,operation
pillion_trimmed_tokens_total counter count route,operation
pillion_window_shadow_messages_total counter count route,operation
pillion_window_untouched_total counter count route,operation,reason
pillion_original_resent_total counter count route,operation
pillion_tokens_total counter count route,operation,kind
pillion_cache_entries gauge count 
pillion_cache_bytes gauge bytes 
pillion_buffers_bytes gauge bytes 
pillion_conversations gauge count 
pillion_conversations_bytes gauge bytes 
pillion_conversations_untold_total counter count 
pillion_redis_up gauge count 
pillion_redis_lease gauge count 
pillion_redis_lookups_total counter count result
pillion_redis_stores_total counter count result
pillion_redis_messages_total counter count 
pillion_redis_unpublished_writes_total counter count 
pillion_build_info gauge count version
"
    );
}

#[test]
fn names_follow_the_conventions() {
    for row in CATALOGUE {
        assert!(row.name.starts_with("pillion_"), "{}", row.name);
        assert_eq!(row.kind == Type::Counter, row.name.ends_with("_total"), "{}", row.name);
        assert_eq!(row.kind == Type::Histogram, row.name.ends_with("_seconds"), "{}", row.name);
        assert_eq!(row.unit == Unit::Seconds, row.name.ends_with("_seconds"), "{}", row.name);
        let base = row.name.strip_suffix("_total").unwrap_or(row.name);
        assert_eq!(row.unit == Unit::Bytes, base.ends_with("_bytes"), "{}", row.name);
        assert!(row.help.ends_with('.'), "{}", row.name);
    }
}

#[test]
fn all_of_the_catalogue_is_exposed_from_the_start_and_nothing_else() {
    let text = metrics().gather(Gauges::default());
    for row in CATALOGUE {
        assert!(text.contains(&format!("# HELP {} {}\n", row.name, row.help)), "{}", row.name);
        assert!(text.contains(&format!("# TYPE {} {}\n", row.name, row.kind.word())), "{}", row.name);
    }
    assert_eq!(text.matches("# TYPE ").count(), CATALOGUE.len());
    let sorted = |labels: &[&str]| {
        let mut labels: Vec<_> = labels.iter().map(ToString::to_string).collect();
        labels.sort();
        labels
    };
    let expected: BTreeSet<_> =
        CATALOGUE.iter().map(|row| (row.name.to_owned(), sorted(row.labels))).collect();
    assert_eq!(shapes(&text), expected);
}

#[test]
fn a_request_is_counted_in_its_series() {
    let metrics = metrics();
    let chat = metrics.series(0, CHAT);
    let in_flight = chat.enter();
    in_flight.series().retry(3);
    chat.attempt(Duration::from_millis(40));
    chat.attempt(Duration::from_millis(400));
    chat.retry_not_made(2);
    chat.window_untouched(1);
    chat.original_resent();
    chat.body_streamed();
    chat.observe(&Observation {
        status: 200,
        total: Duration::from_secs(2),
        head: Some(Duration::from_millis(441)),
        overhead: Duration::from_millis(1),
        messages: Some(20),
        trimmed: Trimmed { messages: 12, bytes: 3400, tokens: 850 },
        usage: Usage { prompt: 100, completion: 25, cached: 64 },
        ..Observation::default()
    });
    let search = metrics.series(1, SEARCH);
    search.observe(&Observation { status: 200, cache: Some(HIT), ..Observation::default() });
    search.not_stored(0);
    search.invalidated();
    metrics.no_route().observe(&Observation {
        status: 404,
        error: Some(Kind::NoRoute),
        ..Observation::default()
    });

    let text = metrics.gather(Gauges {
        cache_entries: 3,
        cache_bytes: 4096,
        buffers_bytes: 17,
        ..Gauges::default()
    });
    let samples = samples(&text);
    let chat = r#"operation="chat",route="openai""#;
    let search = r#"operation="search",route="vector""#;
    let expected = [
        (format!(r#"requests_total{{{chat},status="2xx"}}"#), 1.0),
        (format!(r#"request_duration_seconds_bucket{{{chat},status="2xx",le="1"}}"#), 0.0),
        (format!(r#"request_duration_seconds_bucket{{{chat},status="2xx",le="2.5"}}"#), 1.0),
        (format!(r#"request_duration_seconds_sum{{{chat},status="2xx"}}"#), 2.0),
        (format!("time_to_first_byte_seconds_count{{{chat}}}"), 1.0),
        (format!("overhead_seconds_sum{{{chat}}}"), 0.001),
        (format!("in_flight{{{chat}}}"), 1.0),
        (format!("streamed_bodies_total{{{chat}}}"), 1.0),
        (format!("upstream_duration_seconds_sum{{{chat}}}"), 0.44),
        (format!("upstream_attempts_total{{{chat}}}"), 2.0),
        (format!(r#"retries_total{{{},reason="429",route="openai"}}"#, r#"operation="chat""#), 1.0),
        (format!("trimmed_messages_total{{{chat}}}"), 12.0),
        (format!("original_resent_total{{{chat}}}"), 1.0),
        (r#"tokens_total{kind="prompt",operation="chat",route="openai"}"#.to_owned(), 100.0),
        (r#"tokens_total{kind="completion",operation="chat",route="openai"}"#.to_owned(), 25.0),
        (r#"tokens_total{kind="cached",operation="chat",route="openai"}"#.to_owned(), 64.0),
        (r#"retries_not_made_total{operation="chat",reason="billing",route="openai"}"#.to_owned(), 1.0),
        (
            r#"window_untouched_total{operation="chat",reason="not_understood",route="openai"}"#.to_owned(),
            1.0,
        ),
        (r#"cache_results_total{operation="search",result="hit",route="vector"}"#.to_owned(), 1.0),
        (r#"cache_not_stored_total{operation="search",reason="settle",route="vector"}"#.to_owned(), 1.0),
        (format!("invalidations_total{{{search}}}"), 1.0),
        // Without a head there is nothing to time up to it.
        (format!("time_to_first_byte_seconds_count{{{search}}}"), 0.0),
        (r#"requests_total{operation="none",route="none",status="4xx"}"#.to_owned(), 1.0),
        (r#"errors_total{error="destination_not_found",operation="none",route="none"}"#.to_owned(), 1.0),
        ("cache_entries".to_owned(), 3.0),
        ("cache_bytes".to_owned(), 4096.0),
        ("buffers_bytes".to_owned(), 17.0),
        (concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}").to_owned(), 1.0),
    ];
    for (sample, value) in expected {
        assert_eq!(samples.get(&*format!("pillion_{sample}")), Some(&value), "{sample}");
    }

    drop(in_flight);
    let text = metrics.gather(Gauges::default());
    assert!(text.contains(&format!("pillion_in_flight{{{chat}}} 0\n")));

    let figures = metrics.summary(HOUR).metrics;
    assert_eq!((figures.http_request_duration.count, figures.llm_call_duration.count), (3, 1));
    assert_eq!((figures.vector_search_duration.count, figures.cache_hit_rate), (1, 1.0));
    assert_eq!((figures.total_tokens_used, figures.conversation_size.max), (125, 20.0));
}

#[test]
fn a_client_that_left_has_no_status() {
    let metrics = metrics();
    metrics.series(0, CHAT).observe(&Observation { client_gone: true, ..Observation::default() });
    let text = metrics.gather(Gauges::default());
    assert!(text.contains(r#"pillion_requests_total{operation="chat",route="openai",status="none"} 1"#));
    assert!(text.contains(r#"pillion_client_gone_total{operation="chat",route="openai"} 1"#));
}

#[test]
fn every_error_has_a_series_and_words_are_shared() {
    let metrics = metrics();
    for error in Kind::ALL {
        metrics.no_route().observe(&Observation { error: Some(error), ..Observation::default() });
    }
    let text = metrics.gather(Gauges::default());
    let words = Kind::ALL.map(Kind::word);
    for word in words {
        let times = words.iter().filter(|other| **other == word).count();
        let line = format!(r#"pillion_errors_total{{error="{word}",operation="none",route="none"}} {times}"#);
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn traffic_adds_no_series() {
    let metrics = metrics();
    let names = |text: &str| samples(text).into_keys().map(str::to_owned).collect::<Vec<_>>();
    let before = names(&metrics.gather(Gauges::default()));
    for number in 0..10_000u16 {
        let index = usize::from(number);
        let series = metrics.series(index % 2, index % OPERATIONS.len());
        let _in_flight = series.enter();
        series.attempt(Duration::from_micros(u64::from(number)));
        series.retry(index % VOCABULARY.retry_reasons.len());
        series.observe(&Observation {
            status: number % 1000,
            client_gone: number % 7 == 0,
            error: Kind::ALL.get(index % 40).copied(),
            total: Duration::from_millis(u64::from(number)),
            head: Some(Duration::from_millis(u64::from(number) / 2)),
            cache: Some(index % VOCABULARY.cache_results.len()),
            messages: Some(u64::from(number)),
            trimmed: Trimmed { messages: u64::from(number), ..Trimmed::default() },
            ..Observation::default()
        });
    }
    assert_eq!(names(&metrics.gather(Gauges::default())), before);
}

#[test]
fn label_values_may_be_any_text() {
    let route = "a \"quoted\\\" route\nof two lines";
    let metrics = Metrics::new(&[route, route, "none"], &OPERATIONS, &VOCABULARY, 1);
    metrics.series(0, CHAT).invalidated();
    metrics.series(1, CHAT).invalidated();
    let text = metrics.gather(Gauges::default());
    let line =
        r#"pillion_invalidations_total{operation="chat",route="a \"quoted\\\" route\nof two lines"} 2"#;
    assert!(text.lines().any(|found| found == line));
}

#[test]
fn four_threads_lose_nothing() {
    const EACH: u64 = 20_000;
    let metrics = metrics();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let series = metrics.series(1, SEARCH);
            scope.spawn(move || {
                for number in 0..EACH {
                    let _in_flight = series.enter();
                    series.observe(&Observation {
                        status: 200,
                        total: Duration::from_micros(1 + number),
                        cache: Some(if thread == 0 { MISS } else { HIT }),
                        messages: Some(number),
                        usage: Usage { prompt: 2, completion: 1, cached: 0 },
                        ..Observation::default()
                    });
                }
            });
        }
    });
    let figures = metrics.summary(HOUR).metrics;
    for distribution in
        [figures.http_request_duration, figures.vector_search_duration, figures.conversation_size]
    {
        assert_eq!(distribution.count, 4 * EACH);
    }
    assert_eq!((figures.http_request_duration.min, figures.http_request_duration.max), (0.000_001, 0.02));
    assert_eq!((figures.cache_hit_rate, figures.total_tokens_used), (0.75, 4 * EACH * 3));
    let text = metrics.gather(Gauges::default());
    let samples = samples(&text);
    let labels = r#"operation="search",route="vector""#;
    for (name, value) in [
        (format!(r#"pillion_requests_total{{{labels},status="2xx"}}"#), 80_000.0),
        (format!(r#"pillion_request_duration_seconds_count{{{labels},status="2xx"}}"#), 80_000.0),
        (format!("pillion_in_flight{{{labels}}}"), 0.0),
    ] {
        assert_eq!(samples.get(&*name), Some(&value), "{name}");
    }
}

/// What is observed of the request of this number: of every kind, and of every size.
fn nth(number: u64) -> Observation {
    Observation {
        status: [0, 200, 304, 404, 503][number as usize % 5],
        client_gone: number.is_multiple_of(7),
        error: Kind::ALL.get(number as usize % 40).copied(),
        // Sums of eighths are exact, in whatever order.
        total: Duration::from_millis(125 * (number % 80)),
        head: Some(Duration::from_millis(125 * (number % 16))),
        overhead: Duration::from_millis(125 * (number % 3)),
        cache: Some(number as usize % VOCABULARY.cache_results.len()),
        messages: Some(number % 90),
        trimmed: Trimmed { messages: number % 4, ..Trimmed::default() },
        would_trim: 0,
        usage: Usage { prompt: number, completion: number % 10, cached: number % 2 },
    }
}

fn count(shard: &Shard, number: u64) {
    let series = match number % 11 {
        10 => &shard.no_route,
        place => shard.series(place as usize % 2, place as usize / 2),
    };
    let in_flight = series.enter();
    series.attempt(Duration::from_millis(125 * (number % 40)));
    series.retry(number as usize % VOCABULARY.retry_reasons.len());
    series.not_stored(number as usize % VOCABULARY.not_stored_reasons.len());
    series.invalidated();
    in_flight.series().observe(&nth(number));
}

#[test]
fn shards_are_told_as_one() {
    const EACH: u64 = 500;
    let gauges = || Gauges { cache_entries: 3, cache_bytes: 4096, buffers_bytes: 17, ..Gauges::default() };
    let one = metrics();
    (0..8 * EACH).for_each(|number| count(one.here(), number));
    for shards in [2, 3, 8] {
        let apart = sharded(shards);
        assert_eq!(apart.gather(gauges()), metrics().gather(gauges()));
        std::thread::scope(|scope| {
            let all: Vec<_> = apart.shards.iter().collect();
            for (thread, shard) in (0..8).zip(all.into_iter().cycle()) {
                scope.spawn(move || {
                    (thread * EACH..(thread + 1) * EACH).for_each(|number| count(shard, number));
                });
            }
        });
        assert_eq!(apart.gather(gauges()), one.gather(gauges()));
        assert_eq!(apart.summary(HOUR), one.summary(HOUR));
    }
}

#[test]
fn what_moves_to_another_thread_leaves_where_it_entered() {
    let metrics = sharded(2);
    let in_flight = || {
        let text = metrics.gather(Gauges::default());
        samples(&text)[r#"pillion_in_flight{operation="chat",route="openai"}"#] as i64
    };
    let enter = || (0..10).map(|_| metrics.series(0, CHAT).enter()).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let entered = [scope.spawn(enter), scope.spawn(enter)].map(|thread| thread.join().unwrap());
        assert_eq!(in_flight(), 20);
        for entered in entered {
            scope.spawn(move || drop(entered));
        }
    });
    assert_eq!(in_flight(), 0);
    for shard in metrics.shards.iter() {
        let families = merge::gather([&shard.registry]);
        let family = families.iter().find(|family| family.name() == "pillion_in_flight").unwrap();
        assert!(family.get_metric().iter().all(|child| child.get_gauge().get_value() == 0.0));
    }
}
