//! Commands: their output and their exit codes.

use std::net::SocketAddr;

use super::one_route;
use super::process::{Folder, Running, run, text};

/// Nobody is ever asked there.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

#[tokio::test]
async fn usage_errors_exit_64_and_say_what_is_wrong() {
    let folder = Folder::new();
    for (arguments, said) in [
        (vec![], "Usage: pillion"),
        (vec!["fly"], "unrecognized subcommand 'fly'"),
        (vec!["run", "--port", "1"], "unexpected argument '--port'"),
        (vec!["run", "--config"], "a value is required"),
        (vec!["presets", "openia"], "did you mean openai?"),
        (vec!["health", "now"], "unexpected argument 'now'"),
        (vec!["invalidate", "--scope", "a"], "--route <ROUTE>"),
    ] {
        let output = run(&folder, &arguments, &[]).await;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn asked_for_help_or_the_version_it_exits_0() {
    let folder = Folder::new();
    let version = run(&folder, &["--version"], &[]).await;
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout), format!("pillion {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(&folder, &["--help"], &[]).await;
    assert_eq!(help.status.code(), Some(0));
    for command in ["run", "check", "demo", "report", "invalidate", "health", "presets", "schema"] {
        assert!(text(&help.stdout).contains(&format!("\n  {command} ")), "{command}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_exits_78_with_every_problem_at_once() {
    let folder = Folder::new();
    let wrong = "version: 1\nlisten: 8080\ndrain: 20x\nroutes:\n  - {name: a, path: /a, upstream: ftp://h, preset: opnai}\n";
    let file = folder.write("wrong.yaml", wrong);
    for command in ["run", "check"] {
        let output = run(&folder, &[command, "--config", file.to_str().unwrap()], &[]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{command}");
        for part in ["line 2: listen", "line 3: drain", "`20x`", "routes[0].upstream", "`opnai`", "openai"] {
            assert!(said.contains(part), "{command}: no `{part}` in\n{said}");
        }
        assert!(!said.contains("listening on"), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_exits_78_with_its_name() {
    let folder = Folder::new();
    let output = run(&folder, &["run", "--config", "absent.yaml"], &[]).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("absent.yaml"), "{}", text(&output.stderr));
}

/// Whoever gives Pillion the bot's whole environment gets told what to do.
#[tokio::test]
async fn started_with_the_bots_own_variables_it_refuses_the_loop() {
    let folder = Folder::new();
    let bot = [
        ("OPENAI_BASE_URL", "http://127.0.0.1:8080/openai/v1"),
        ("UPSTASH_VECTOR_REST_URL", "http://127.0.0.1:8080/vector"),
        ("NO_PROXY", "127.0.0.1,localhost"),
    ];
    for command in ["run", "check"] {
        let output = run(&folder, &[command], &bot).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        for part in ["UPSTASH_VECTOR_REST_URL", "PILLION_VECTOR_URL", "127.0.0.1:8080"] {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
    }
    let both = [bot.as_slice(), &[("PILLION_VECTOR_URL", "https://x.upstash.io")]].concat();
    let output = run(&folder, &["check"], &both).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[tokio::test]
async fn check_prints_what_is_in_force_and_no_secret() {
    let folder = Folder::new();
    let yaml = "version: 1\nlisten: 127.0.0.1:8080\nadmin: {listen: '127.0.0.1:9901', token: '${TOKEN}'}\nredis: {url: '${REDIS}'}\n\
        routes:\n  - {name: openai, path: /openai, upstream: 'https://api.openai.com', preset: openai}\n";
    let file = folder.write("given.yaml", yaml);
    let env =
        [("TOKEN", "canary-token"), ("REDIS", "redis://:canary-redis@h"), ("CONVERSATION_MAX_MESSAGES", "7")];
    let output = run(&folder, &["check", "--config", file.to_str().unwrap()], &env).await;
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in
        ["Memory ceiling:", "upstream: https://api.openai.com", "max_messages: 7", "'***'", "first_byte: 10m"]
    {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn presets_are_listed_and_printed() {
    let folder = Folder::new();
    let listed = text(&run(&folder, &["presets"], &[]).await.stdout);
    for name in ["openai", "anthropic", "upstash-vector", "chroma-v2", "http"] {
        assert!(listed.lines().any(|line| line.starts_with(&format!("{name} "))), "{listed}");
        let output = run(&folder, &["presets", name], &[]).await;
        let file = format!("{}/config/presets/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), std::fs::read_to_string(file).unwrap());
    }
}

#[tokio::test]
async fn schema_is_the_file_in_the_repository() {
    let output = run(&Folder::new(), &["schema"], &[]).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema.json");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).trim_end(), std::fs::read_to_string(file).unwrap().trim_end());
}

#[tokio::test]
async fn health_tells_ready_from_not() {
    let folder = Folder::new();
    let mut pillion = Running::start(&folder, &one_route(nowhere(), ""), &[]).await;
    let admin = format!("http://{}", pillion.admin().await);
    let output = run(&folder, &["health", "--admin", &admin], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // A data listener is no admin listener.
    let data = format!("http://{}", pillion.data().await);
    let output = run(&folder, &["health", "--admin", &data], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not ready"), "{}", text(&output.stderr));

    pillion.signal("TERM").await;
    assert_eq!(pillion.exit().await.code(), Some(0));
    let output = run(&folder, &["health", "--admin", &admin], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&admin), "{}", text(&output.stderr));
}

#[tokio::test]
async fn invalidate_says_what_was_dropped_and_how_far_it_reached() {
    let folder = Folder::new();
    let more = "  - {name: vector, path: /vector, upstream: 'http://localhost:9', preset: upstash-vector}\n";
    let mut pillion = Running::start(&folder, &one_route(nowhere(), more), &[]).await;
    let admin = format!("http://{}", pillion.admin().await);
    let command = |more: &[&'static str]| {
        let mut all = vec!["invalidate", "--admin"];
        all.push(&admin);
        all.extend(more);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (arguments, code, said) in [
        (vec![], 0, "dropped: openai, vector, in this instance only: "),
        (vec!["--route", "vector"], 0, "dropped: vector, in this instance only: "),
        (
            vec!["--route", "vector", "--scope", "a/b"],
            0,
            "dropped: vector, scope a/b, in this instance only: ",
        ),
        // Embeddings: not of a scope.
        (vec!["--route", "openai"], 0, "dropped: openai, in this instance only: "),
        (vec!["--route", "openai", "--scope", "a"], 0, "nothing to drop"),
        (vec!["--route", "vektor"], 1, "there are: openai, vector"),
    ] {
        let arguments = command(&arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(&folder, &arguments, &[]).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let told = text(if code == 0 { &output.stdout } else { &output.stderr });
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
}

#[tokio::test]
async fn the_banner_tells_where_what_and_what_to_do() {
    let folder = Folder::new();
    let yaml = "version: 1\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nroutes:\n\
        \x20 - {name: openai, path: /openai, upstream: 'https://api.openai.com', preset: openai}\n\
        \x20 - {name: vector, path: /vector, upstream: 'https://x.upstash.io/base', preset: upstash-vector, retry: {enabled: false}}\n\
        \x20 - {name: other, path: /other, upstream: '${ABSENT:-}', preset: http}\n";
    let env = [("VECTOR_CACHE_TTL", "60"), ("PILLION_CONVERSATION_MAX_MESSAGES", "8")];
    let mut pillion = Running::start(&folder, yaml, &env).await;
    let (data, admin) = (pillion.data().await, pillion.admin().await);
    pillion.line("NO_PROXY").await;
    let file = folder.path().join("given.yaml");
    let expected = [
        format!("pillion {} ({})", env!("CARGO_PKG_VERSION"), file.display()),
        format!("listening on http://{data} (data)"),
        format!("listening on http://{admin} (admin)"),
        "route openai: /openai -> https://api.openai.com (openai: cache of embeddings, retry, window, timing)".to_owned(),
        "route vector: /vector -> https://x.upstash.io/base (upstash-vector: cache from 30 s on, timing)"
            .to_owned(),
        "note: VECTOR_CACHE_TTL=60 from the environment overrides the configuration".to_owned(),
        "note: PILLION_CONVERSATION_MAX_MESSAGES=8 from the environment overrides the configuration"
            .to_owned(),
        "note: route other is skipped: it has no upstream (set ABSENT)".to_owned(),
        "in the bot's environment:".to_owned(),
        format!("  OPENAI_BASE_URL=http://{data}/openai/v1"),
        format!("  UPSTASH_VECTOR_REST_URL=http://{data}/vector"),
        "  NO_PROXY=127.0.0.1,localhost".to_owned(),
    ];
    assert_eq!(pillion.seen, expected);
    assert_ne!(data, admin);
}

#[tokio::test]
async fn where_the_configuration_is_looked_for() {
    let folder = Folder::new();
    let yaml = one_route(nowhere(), "");
    let named = folder.write("named.yaml", &yaml);
    // By the variable, before the file of the folder.
    folder.write("pillion.yaml", &yaml);
    let env = [("PILLION_CONFIG", named.to_str().unwrap())];
    let mut pillion = Running::spawn(&folder, &["run"], &env);
    pillion.line(&format!("pillion {} ({})", env!("CARGO_PKG_VERSION"), named.display())).await;
    // By the folder.
    let mut pillion = Running::spawn(&folder, &["run"], &[]);
    pillion.line("(./pillion.yaml)").await;
    // By the argument, before both.
    let given = folder.write("given.yaml", &yaml);
    let mut pillion = Running::spawn(&folder, &["run", "--config", given.to_str().unwrap()], &env);
    pillion.line("given.yaml)").await;
}

#[tokio::test]
async fn a_probe_says_how_long_redis_takes_or_why_it_does_not_answer() {
    let folder = Folder::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Says `OK` to all it is asked: enough to be timed.
    let answering = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(1..) = stream.read(&mut buffer).await {
            stream.write_all(b"+OK\r\n").await.unwrap();
        }
    });
    let with = |redis: &str| {
        let yaml =
            "version: 1\nroutes: [{name: v, path: /, upstream: 'https://h', preset: upstash-vector}]\n";
        folder.write("probe.yaml", &format!("{yaml}{redis}\n"))
    };
    let file = with(&format!("redis: {{url: 'redis://:canary@{address}', timeout: 900ms}}"));
    let arguments = ["check", "--config", file.to_str().unwrap(), "--probe"];
    let output = run(&folder, &arguments, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("# Probe: redis://{address} answers in ")));
    assert!(!text(&output.stdout).contains("canary"));
    // Nobody accepts there any more.
    answering.await.unwrap();
    let output = run(&folder, &arguments, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot connect") && !text(&output.stderr).contains("canary"));
    with("");
    let output = run(&folder, &arguments, &[]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("nothing to ask"), "{}", text(&output.stdout));
}
