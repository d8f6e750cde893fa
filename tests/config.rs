//! The configuration: golden mistakes, the files of the repository, layers, and what is generated.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use pillion::cache::fence::Settle;
use pillion::config::{self, Config, Environment, Problems, presets, reference};
use pillion::plan::{Action, LeavesState, Level, Operation, Plan, Rule, Source};
use pillion::retry::Class;
use pillion::window::Dialect;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, Problems> {
    config::parse(text, None, &environment(env))
}

/// A file with one route `vector` and whatever else is said, indented as members of the route.
fn vector(route: &str, rest: &str) -> String {
    format!(
        "version: 1\nroutes:\n  - name: vector\n    path: /vector\n    upstream: https://x.upstash.io\n    preset: upstash-vector\n{route}\n{rest}\n"
    )
}

fn rule<'a>(plan: &'a Plan, name: &str) -> &'a Rule {
    plan.rules.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("no rule {name}"))
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    found.sort();
    found
}

/// Compares with a file, or writes it where `PILLION_REGENERATE=1`.
fn compare(path: &Path, text: &str) {
    if std::env::var("PILLION_REGENERATE").is_ok_and(|value| value == "1") {
        std::fs::write(path, text).unwrap();
        return;
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == text,
        "{} is stale; PILLION_REGENERATE=1 writes it anew.\n--- there\n{there}\n--- now\n{text}",
        path.display()
    );
}

#[test]
fn mistakes_are_told_as_golden() {
    let env = environment(&[
        ("UPSTASH_VECTOR_REST_URL", "http://127.0.0.1:8080/vector"),
        ("WORDS", "many"),
        ("SECRET_URL", "https://user:canary@api.example.com"),
        ("EMPTY", ""),
    ]);
    let files = yaml_files("tests/golden/config");
    assert!(files.len() >= 15, "{}", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = PathBuf::from(path.file_name().unwrap());
        let mut env = env.clone();
        // `# env: NAME=value` in a file sets a variable for it.
        for line in text.lines().filter_map(|line| line.strip_prefix("# env: ")) {
            let (name, value) = line.split_once('=').unwrap();
            env.insert(name.to_owned(), value.to_owned());
        }
        let Err(problems) = config::parse(&text, Some(name.clone()), &env) else {
            panic!("{} is accepted", name.display());
        };
        assert!(!problems.to_string().contains("canary"), "{problems}");
        compare(&path.with_extension("expected"), &format!("{problems}\n"));
    }
}

#[test]
fn every_yaml_of_the_repository_loads() {
    for path in yaml_files("config") {
        // What is built in is a layer, not a file of its own: it lacks routes, and nothing else.
        let is_layer = path.file_name().is_some_and(|name| name == "built-in.yaml");
        match config::load(Some(&path), &environment(&[("PILLION_VECTOR_URL", "https://x.upstash.io")])) {
            Ok(config) => assert_eq!(config.routes.len(), 2, "{}", path.display()),
            Err(problems) => {
                let found: Vec<&str> = problems.list.iter().map(|problem| problem.path.as_str()).collect();
                assert!(is_layer && found == ["routes"], "{problems}");
            }
        }
    }
    for path in yaml_files("config/presets") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text =
            format!("version: 1\nroutes: [{{name: a, path: /a, upstream: https://h, preset: {name}}}]");
        let config = parse(&text, &[]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(config.routes[0].preset, name);
        assert!(presets::about(name).is_some_and(|about| !about.is_empty()), "{name}");
    }
}

#[test]
fn the_generated_files_are_as_new_as_the_types() {
    compare(&root().join("docs/configuration.md"), &reference::markdown());
    compare(&root().join("config/schema.json"), &reference::schema_json());
}

#[test]
fn the_built_in_default_needs_nothing() {
    let config = parse(config::DEFAULT, &[]).unwrap();
    assert_eq!(config.routes.len(), 1);
    assert_eq!(
        config.notes,
        ["route vector is skipped: it has no upstream (set PILLION_VECTOR_URL or UPSTASH_VECTOR_REST_URL)"]
    );
    let both = [
        ("UPSTASH_VECTOR_REST_URL", "http://127.0.0.1:8080/vector"),
        ("PILLION_VECTOR_URL", "https://x.upstash.io"),
    ];
    let config = parse(config::DEFAULT, &both).unwrap();
    assert_eq!(config.routes[1].upstream.authority, "x.upstash.io");
    assert!(config.notes.is_empty(), "{:?}", config.notes);
}

#[test]
fn without_a_file_the_environment_names_one() {
    let missing = environment(&[("PILLION_CONFIG", "/nonexistent/pillion.yaml")]);
    let problems = config::load(None, &missing).unwrap_err();
    assert!(problems.to_string().starts_with("/nonexistent/pillion.yaml: 1 problem"), "{problems}");
    let named = environment(&[("PILLION_CONFIG", root().join("config/sidecar.yaml").to_str().unwrap())]);
    assert_eq!(config::load(None, &named).unwrap().admin.listen.to_string(), "0.0.0.0:9901");
}

#[test]
fn layers_lie_in_their_order() {
    let search = |text: &str, env: &[(&str, &str)]| {
        let config = parse(text, env).unwrap_or_else(|problems| panic!("{problems}"));
        let rule = rule(&config.routes[0], "query").clone();
        let Action::Cache(cache) = rule.action else { panic!("not cached") };
        (rule.timeouts.first_byte, rule.timeouts.idle, rule.retry.base, cache.ttl)
    };
    let seconds = Duration::from_secs;
    let defaults = "defaults: {timeouts: {first_byte: 7s}, retry: {base: 2s}, cache: {ttl: 1m}}";
    // The preset over what is built in; `defaults` over the preset; the route over `defaults`; the environment over all.
    let preset = search(&vector("", ""), &[]);
    assert_eq!(preset, (seconds(5), seconds(60), Duration::from_millis(50), seconds(300)));
    assert_eq!(search(&vector("", defaults), &[]), (seconds(7), seconds(60), seconds(2), seconds(60)));
    let route = "    timeouts: {first_byte: 8s}\n    cache: {ttl: 2m}";
    assert_eq!(search(&vector(route, defaults), &[]), (seconds(8), seconds(60), seconds(2), seconds(120)));
    let env = [("VECTOR_CACHE_TTL", "9")];
    assert_eq!(search(&vector(route, defaults), &env), (seconds(8), seconds(60), seconds(2), seconds(9)));
    let ignored = format!("{defaults}\ncompat_env: false");
    assert_eq!(search(&vector(route, &ignored), &env).3, seconds(120));
}

#[test]
fn embeddings_have_a_lifetime_and_a_switch_of_their_own() {
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    for (route, rest, env, ttl) in [
        ("", "", "", hours(24)),
        ("", "", "false", hours(24)),
        (", cache: {embeddings_ttl: 2h, ttl: 1s}", "defaults: {cache: {embeddings_ttl: 3h}}", "", hours(2)),
        ("", "defaults: {cache: {embeddings_ttl: 3h}}", "", hours(3)),
        (", cache: {enabled: false}", "", "true", None),
        ("", "defaults: {cache: {enabled: false}}", "true", None),
        (", cache: {enabled: true}", "defaults: {cache: {enabled: false}}", "", hours(24)),
    ] {
        let text = format!(
            "version: 1\nroutes: [{{name: a, path: /a, upstream: https://h, preset: openai{route}}}]\n{rest}\n"
        );
        let env = [("VECTOR_CACHE_ENABLED", env), ("VECTOR_CACHE_TTL", "9")];
        let config = parse(&text, &env).unwrap_or_else(|problems| panic!("{problems}"));
        let found = match &rule(&config.routes[0], "embeddings").action {
            Action::Embeddings(policy) => Some(policy.ttl),
            _ => None,
        };
        assert_eq!(found, ttl, "{route} {rest}");
        let shown = config::effective(&config);
        assert_eq!(shown.contains("action: embeddings\n"), ttl.is_some(), "{shown}");
    }
}

#[test]
fn the_environment_switches_caching_and_the_route_may_refuse() {
    for (route, rest, env, cached) in [
        ("", "", "", true),
        ("", "", "false", false),
        ("    cache: {enabled: true}", "", "0", false),
        ("    cache: {enabled: false}", "", "true", false),
        ("    cache: {enabled: false}", "", "", false),
        ("", "defaults: {cache: {enabled: false}}", "", false),
        ("", "defaults: {cache: {enabled: false}}", "1", true),
    ] {
        let config = parse(&vector(route, rest), &[("VECTOR_CACHE_ENABLED", env)]).unwrap();
        let plan = &config.routes[0];
        assert_eq!(matches!(rule(plan, "query").action, Action::Cache(_)), cached, "{route} {rest} {env}");
        assert_eq!(plan.fenced, cached);
        assert!(matches!(rule(plan, "upsert").action, Action::Invalidate(_)), "writes stay writes");
        assert_eq!(config.notes.is_empty(), env.is_empty(), "{:?}", config.notes);
    }
}

#[test]
fn conversation_variables_reach_the_window() {
    let text = "version: 1\nroutes: [{name: a, path: /a, upstream: https://h, preset: openai, window: {max_messages: 5}}]";
    let env = [("CONVERSATION_MAX_MESSAGES", "30"), ("PILLION_CONVERSATION_TTL_HOURS", "2")];
    let config = parse(text, &env).unwrap();
    let plan = &config.routes[0];
    assert_eq!(rule(plan, "chat").window.as_ref().unwrap().max_messages, 30);
    assert_eq!(plan.conversation_idle, Duration::from_secs(7200));
    assert!(
        config.notes.iter().any(|note| note.contains("CONVERSATION_MAX_MESSAGES=30")),
        "{:?}",
        config.notes
    );
    assert!(config::effective(&config).contains("idle_ttl: 2h"));
}

#[test]
fn the_openai_preset() {
    let config = parse(config::DEFAULT, &[]).unwrap();
    let plan = &config.routes[0];
    let chat = rule(plan, "chat");
    assert_eq!((chat.operation, chat.retry.class), (Operation::Chat, Class::Chat));
    assert_eq!(chat.timeouts.first_byte, Duration::from_secs(600));
    assert_eq!(chat.timeouts.connect, Duration::from_secs(5));
    assert_eq!(chat.leaves_state, LeavesState::Members(vec!["store".to_owned()]));
    assert_eq!(chat.window.as_ref().unwrap().dialect, Dialect::Chat);
    assert!(chat.reads_usage);
    let responses = rule(plan, "responses");
    assert_eq!(responses.leaves_state, LeavesState::Always);
    assert_eq!(responses.window.as_ref().unwrap().dialect, Dialect::Responses);
    let embeddings = rule(plan, "embeddings");
    assert_eq!(embeddings.retry.class, Class::Idempotent);
    let Action::Embeddings(policy) = &embeddings.action else { panic!("embeddings are not cached") };
    assert_eq!(policy.ttl, Duration::from_secs(86_400));
    for account in ["authorization", "api-key", "openai-organization", "openai-project", "x-gateway"] {
        assert!(policy.is_in_key(&account.parse().unwrap()), "{account}");
    }
    assert!(matches!(plan.unmatched_unsafe.action, Action::Pass));
    assert_eq!(plan.unmatched_unsafe.retry.class, Class::Other);
    assert_eq!(plan.bot_env, ["OPENAI_BASE_URL={url}/v1"]);
    assert!(!plan.fenced);
}

#[test]
fn what_a_preset_knows_of_its_store_reaches_its_rules() {
    let text = "version: 1\nroutes:\n- {name: u, path: /u, upstream: https://u, preset: upstash-vector}\n- {name: c, path: /c, upstream: https://c, preset: chroma-v2}";
    let config = parse(text, &[]).unwrap();
    let namespace = Level::Named { from: Source::Path("ns".to_owned()), default: Some(String::new()) };
    assert_eq!(rule(&config.routes[0], "query").scope, [namespace]);
    assert_eq!(rule(&config.routes[0], "delete").not_idempotent_if, ["filter", "prefix"]);
    assert_eq!(rule(&config.routes[1], "collection").scope, [Level::Any]);
    for (route, name, seconds) in [(0, "upsert", 30), (1, "write", 0)] {
        let Action::Invalidate(settle) = rule(&config.routes[route], name).action else { panic!("{name}") };
        assert_eq!(settle, Settle { lag: Duration::from_secs(seconds), ..Settle::default() });
    }
    let Action::Cache(cache) = &rule(&config.routes[0], "query").action else { panic!() };
    assert_eq!(cache.store_if.non_empty, ["result"]);
    assert_eq!(cache.max_entry, 1 << 20);
}

/// A route with this preset and these members of `cache`.
fn store(preset: &str, cache: &str) -> Plan {
    let text = format!(
        "version: 1\nroutes: [{{name: a, path: /a, upstream: 'https://h', preset: {preset}, cache: {{{cache}}}}}]"
    );
    parse(&text, &[]).unwrap_or_else(|problems| panic!("{problems}")).routes.remove(0)
}

#[test]
fn a_route_says_what_holds_for_its_store() {
    let non_empty = |plan: &Plan| {
        let Action::Cache(policy) = &plan.rules[0].action else { panic!() };
        policy.store_if.non_empty.clone()
    };
    // Off for Upstash, on elsewhere, and as the route says.
    assert_eq!(non_empty(&store("upstash-vector", "")), ["result"]);
    assert!(non_empty(&store("upstash-vector", "cache_empty: true")).is_empty());
    assert!(non_empty(&store("pinecone", "")).is_empty());
    assert_eq!(non_empty(&store("pinecone", "cache_empty: false")), ["matches"]);

    assert!(store("qdrant", "").flush_whole, "names may be aliases");
    assert!(!store("qdrant", "aliases: false").flush_whole);
    assert!(!store("pinecone", "").flush_whole);
    assert!(store("pinecone", "aliases: true").flush_whole);

    let settle = |plan: &Plan, name: &str| {
        let Action::Invalidate(settle) = rule(plan, name).action else { panic!() };
        (settle.lag.as_secs(), settle.work.as_secs())
    };
    let qdrant = store("qdrant", "");
    assert_eq!((settle(&qdrant, "upsert"), settle(&qdrant, "recover")), ((30, 0), (0, 600)));
    let qdrant = store("qdrant", "settle: 2s");
    assert_eq!((settle(&qdrant, "upsert"), settle(&qdrant, "recover")), ((2, 0), (0, 2)), "the route's wins");
}

#[test]
fn a_header_that_a_scope_is_read_from_is_part_of_the_key() {
    let text = "version: 1\nroutes:\n- name: a\n  path: /a\n  upstream: https://h\n  rules:\n  - {name: q, action: cache, scope: [{header: x-request-id, default: home}], vary: [user-agent]}";
    let config = parse(text, &[]).unwrap();
    let Action::Cache(policy) = &config.routes[0].rules[0].action else { panic!() };
    assert_eq!(policy.vary, ["user-agent", "x-request-id"]);
}

#[test]
fn a_route_leaves_headers_out_of_the_key_but_none_that_tells_who_asks() {
    let with = |names: &str| {
        let text = "version: 1\nroutes: [{name: a, path: /a, upstream: 'https://h', preset: qdrant, cache: {ignore_headers: ";
        parse(&format!("{text}{names}}}}}]"), &[])
    };
    let config = with("[X-Nonce, x-turn]").unwrap();
    let Action::Cache(policy) = &config.routes[0].rules[0].action else { panic!() };
    assert_eq!(policy.ignore_headers, ["x-nonce", "x-turn"]);
    assert!(config::effective(&config).contains("ignore_headers: [x-nonce, x-turn]"));
    for (names, place) in [("[x-turn, Api-Key]", "ignore_headers[1]"), ("['x turn']", "ignore_headers[0]")] {
        let problems = with(names).unwrap_err().to_string();
        assert!(problems.contains(place) && problems.matches(place).count() == 1, "{problems}");
    }
}

#[test]
fn presets_of_the_file_are_used_like_the_built_in_ones() {
    let text = "version: 1\npresets:\n  mine:\n    about: Ours.\n    operations: {search: {timeouts: {total: 3s}}}\n    store: {settle: 9s}\n    rules:\n    - {name: find, path: ^/find$, operation: search, action: cache}\n    - {name: put, action: invalidate}\nroutes:\n- {name: a, path: /a, upstream: https://h, preset: mine}";
    let config = parse(text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = &config.routes[0];
    assert_eq!((plan.preset.as_str(), plan.fenced), ("mine", true));
    assert_eq!(rule(plan, "find").timeouts.total, Duration::from_secs(3));
    let Action::Invalidate(settle) = rule(plan, "put").action else { panic!() };
    assert_eq!(settle.lag, Duration::from_secs(9));

    let file = std::env::temp_dir().join(format!("pillion-presets-{}.yaml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let own = config::own_presets(Some(&file), &Environment::new()).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!((own[0].name.as_str(), own[0].about.as_str()), ("mine", "Ours."));
    assert!(own[0].text.contains("name: find"), "{}", own[0].text);
}

#[test]
fn routes_of_one_authority_share_fences() {
    let vector = "preset: upstash-vector";
    for (one, other, expected) in [
        // (fenced, flush_whole) of the second.
        (format!("https://h, {vector}"), "https://other, preset: http".to_owned(), (false, false)),
        (format!("https://h, {vector}"), format!("https://H:443/, {vector}"), (true, false)),
        (format!("https://h, {vector}"), "https://h, preset: http".to_owned(), (true, true)),
        (format!("https://h, {vector}"), format!("https://h/base, {vector}"), (true, true)),
        (
            format!("https://h, {vector}"),
            format!("http://h, {vector}, cache: {{enabled: false}}"),
            (false, false),
        ),
        (
            format!("https://h, {vector}"),
            format!("https://h, {vector}, cache: {{enabled: false}}"),
            (true, false),
        ),
        (format!("https://h, {vector}"), format!("https://h, {vector}, rules: []"), (true, true)),
    ] {
        let text = format!(
            "version: 1\nroutes:\n- {{name: a, path: /a, upstream: {one}}}\n- {{name: b, path: /b, upstream: {other}}}"
        );
        let config = parse(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let second = &config.routes[1];
        assert_eq!((second.fenced, second.flush_whole), expected, "{other}");
        // What might be a write to a store that is cached moves its fences, whichever route it takes.
        let flushes = matches!(second.unmatched_unsafe.action, Action::Invalidate(_));
        assert_eq!(
            flushes,
            second.fenced || second.preset == "upstash-vector" && !other.ends_with("rules: []"),
            "{other}"
        );
    }
}

#[test]
fn variables_become_what_a_key_wants() {
    let text = "version: ${V}\nworkers: ${N}\ndrain: ${D:-}\ncompat_env: ${B}\nadmin: {hosts: ['${H:-}', b]}\nroutes: [{name: '${V}', path: /a, upstream: https://h, timeouts: {idle: '${T}'}, retry: {factor: '${F}'}}]";
    let env = [("V", "1"), ("N", "3"), ("B", "false"), ("T", "7s"), ("F", "1.5")];
    let config = parse(text, &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.workers, config.drain), (3, Duration::from_secs(20)));
    assert_eq!(config.admin.hosts, ["b"]);
    let plan = &config.routes[0];
    assert_eq!((plan.name.as_str(), plan.preset.as_str()), ("1", "http"));
    assert_eq!(plan.unmatched_safe.timeouts.idle, Duration::from_secs(7));
    assert!((plan.unmatched_safe.retry.factor - 1.5).abs() < f64::EPSILON);
}

#[test]
fn paths_and_listeners_of_routes() {
    for (route, prefix, listen) in [
        ("path: /a", "/a", 0),
        ("path: /a/", "/a", 0),
        ("path: //a//b/", "/a/b", 0),
        ("path: /", "", 0),
        ("listen: 127.0.0.1:8081", "", 1),
        ("listen: [127.0.0.1:8081, 'unix:/tmp/p.sock'], path: /x", "/x", 2),
    ] {
        let config =
            parse(&format!("version: 1\nroutes: [{{name: a, upstream: https://h, {route}}}]"), &[]).unwrap();
        let plan = &config.routes[0];
        assert_eq!((plan.prefix.as_str(), plan.listen.len()), (prefix, listen), "{route}");
    }
}

#[test]
fn zero_means_no_limit_where_a_key_begins_with_max() {
    let route =
        "    cache: {max_entry: 0}\n    retry: {max_wait: 0}\n    limits: {max_body: 0, replay_body: 1KiB}";
    let config = parse(&vector(route, "memory: {cache: 2MiB}"), &[]).unwrap();
    let query = rule(&config.routes[0], "query");
    let Action::Cache(cache) = &query.action else { panic!() };
    assert_eq!(cache.max_entry, 2 << 20);
    assert!(query.retry.max_wait > Duration::from_secs(86_400));
    assert_eq!((config.routes[0].limits.max_body, config.routes[0].limits.replay_body), (0, 1024));
}

#[test]
fn what_is_in_force_shows_no_secret() {
    let text = "version: 1\nadmin: {token: '${TOKEN}'}\nredis: {url: '${REDIS_URL}'}\nroutes: [{name: a, path: /a, upstream: https://h, preset: openai}]";
    let env = [("TOKEN", "canary-token"), ("REDIS_URL", "redis://user:canary-pw@cache:6379")];
    let config = parse(text, &env).unwrap();
    let shown = config::effective(&config);
    assert!(!shown.contains("canary") && !format!("{config:?}").contains("canary"), "{shown}");
    assert!(
        shown.contains(
            "# Memory ceiling: 144MiB (stored responses 64MiB, request content 64MiB, conversations 16MiB)"
        ),
        "{shown}"
    );
    assert!(shown.contains("redis://***@cache:6379"), "{shown}");
    serde_yaml::from_str::<serde_yaml::Value>(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert!(shown.contains("token: '***'"), "{shown}");
}

#[test]
fn redis_as_written_and_as_meant() {
    let with = |redis: &str, env: &[(&str, &str)]| parse(&vector("", &format!("redis: {{{redis}}}")), env);
    let plain = with("url: 'redis://h'", &[]).unwrap().redis.unwrap();
    assert_eq!((plain.timeout, plain.prefix.as_str()), (Duration::from_millis(10), "pillion:"));
    assert!(plain.secret.is_none());
    assert!(
        with("url: '${REDIS_URL:-}', secret: x", &[]).unwrap().redis.is_none(),
        "nothing without an address"
    );
    let upstash =
        [("UPSTASH_REDIS_REST_URL", "https://eu1-x.upstash.io"), ("UPSTASH_REDIS_REST_TOKEN", "canary")];
    let config = with("url: upstash, secret: canary, prefix: 'a:'", &upstash).unwrap();
    let redis = config.redis.as_ref().unwrap();
    assert_eq!(redis.address.to_string(), "rediss://eu1-x.upstash.io:6379");
    assert_eq!((redis.timeout, redis.prefix.as_str()), (Duration::from_millis(100), "a:"));
    assert!(!config::effective(&config).contains("canary") && !format!("{config:?}").contains("canary"));
    assert_eq!(
        with("url: upstash, timeout: 5ms", &upstash).unwrap().redis.unwrap().timeout,
        Duration::from_millis(5)
    );
    for (wrong, said) in [
        ("url: upstash", "UPSTASH_REDIS_REST_URL"),
        ("url: 'http://canary@h'", "redis://127.0.0.1:6379"),
        ("url: 'redis://h?db=canary'", "no parameters"),
        ("url: 'redis://h', timeout: 0", "no time"),
        ("url: 'redis://h', prefix: 'a b'", "prefix"),
        ("url: 'redis://h', prefix: '{a}'", "prefix"),
    ] {
        let problems = with(wrong, &[]).unwrap_err().to_string();
        assert!(problems.contains(said) && !problems.contains("canary"), "{wrong}: {problems}");
    }
}

#[test]
fn an_upstream_that_is_another_store_elsewhere_is_told_of() {
    let notes = |redis: &str, upstream: &str, preset: &str| {
        let text = format!(
            "version: 1\ncompat_env: false\nredis: {{{redis}}}\nroutes: [{{name: r, path: /, upstream: '{upstream}', preset: {preset}}}]"
        );
        parse(&text, &[]).unwrap().notes
    };
    let far = "url: 'redis://10.0.0.7'";
    for (redis, upstream, told) in [
        (far, "http://localhost:6333", true),
        (far, "http://LOCALHOST:6333", true),
        (far, "http://127.0.0.1:6333", true),
        (far, "http://[::1]:6333", true),
        (far, "http://0.0.0.0:6333", true),
        (far, "http://qdrant:6333", true),
        ("url: 'rediss://:secret@eu1.upstash.io'", "http://qdrant", true),
        (far, "https://qdrant.example.com", false),
        (far, "http://10.0.0.8:6333", false),
        (far, "http://[2001:db8::1]:6333", false),
        ("url: 'redis://127.0.0.1'", "http://qdrant:6333", false),
        ("url: 'redis://localhost'", "http://localhost:6333", false),
        ("url: 'redis://10.0.0.7', prefix: 'staging:'", "http://localhost:6333", false),
        ("url: 'redis://10.0.0.7', prefix: 'pillion:'", "http://localhost:6333", true),
        ("url: ''", "http://localhost:6333", false),
    ] {
        let notes = notes(redis, upstream, "qdrant");
        assert_eq!(
            notes.iter().any(|note| note.contains("redis.prefix")),
            told,
            "{redis} {upstream}: {notes:?}"
        );
    }
    assert!(notes(far, "http://localhost:11434", "openai").is_empty(), "vectors are not brought to Redis");
}
