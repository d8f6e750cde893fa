//! The documentation says what is there: links, YAML, names and words are checked against the repository and the code.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pillion::config::{self, Environment};
use pillion::error::Kind;
use pillion::metrics::CATALOGUE;
use pillion::proxy::VOCABULARY;
use regex::Regex;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page, by its path from the root of the repository.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for folder in ["", "docs/"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
                let path = format!("{folder}{name}");
                pages.insert(path.clone(), read(&path));
            }
        }
    }
    assert!(pages.len() >= 8, "{:?}", pages.keys());
    pages
}

fn files(folder: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, out);
        } else if path.extension().is_some_and(|found| found == extension) {
            out.push(path);
        }
    }
}

/// What a pattern's first group matches, in order.
fn all<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|found| found.get(1).unwrap().as_str()).collect()
}

/// The anchors of a page's headings, as the usual hosts make them.
fn anchors(page: &str) -> BTreeSet<String> {
    all(r"(?m)^#+ (.+)$", page)
        .into_iter()
        .map(|heading| {
            let kept = heading.to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for (path, text) in pages() {
        for link in all(r"\]\(([^)\s]+)\)", &text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                root().join(&path)
            } else {
                root().join(&path).parent().unwrap().join(file)
            };
            let there =
                std::fs::read_to_string(&target).unwrap_or_else(|error| panic!("{path}: {link}: {error}"));
            assert!(anchor.is_empty() || anchors(&there).contains(anchor), "{path}: {link}: no such heading");
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    for (path, text) in pages() {
        for named in all(r"`((?:\.\./)?(?:src|config|docs|tests)/[A-Za-z0-9_./-]+)`", &text) {
            // What the tests install is there only once they ran.
            let there = root().join(named).exists() || named.ends_with("node_modules");
            assert!(there, "{path}: {named} is not there");
        }
        let makefile = read("Makefile");
        for target in all(r"(?m)(?:`|^)make ([a-z-]+)", &text) {
            assert!(makefile.contains(&format!("\n{target}:")), "{path}: make {target}");
        }
    }
}

/// A whole configuration out of a block of YAML, told by its first key: the whole, a part of it, or a preset.
fn configuration(block: &str) -> String {
    const ROUTE: &str = "routes: [{name: a, path: /a, upstream: https://h, preset: http}]\n";
    let first = block.lines().find(|line| !line.starts_with('#')).and_then(|line| line.split(':').next());
    match first.unwrap_or_default() {
        "version" => block.to_owned(),
        "routes" | "presets" => format!("version: 1\n{block}"),
        "defaults" | "memory" | "redis" | "admin" | "log" | "tls" | "listen" => {
            format!("version: 1\n{ROUTE}{block}")
        }
        "about" => {
            let preset: serde_yaml::Value = serde_yaml::from_str(block).unwrap();
            let rules = serde_yaml::to_string(&preset["rules"]).unwrap().replace('\n', "\n      ");
            format!(
                "version: 1\nroutes:\n  - name: a\n    path: /a\n    upstream: https://h\n    rules:\n      {rules}"
            )
        }
        _ => panic!("a block of YAML that is neither a configuration nor a preset:\n{block}"),
    }
}

#[test]
fn every_yaml_block_holds() {
    let names = ["PILLION_VECTOR_URL", "REDIS_URL", "PILLION_ADMIN_TOKEN"];
    let env: Environment = names.map(|name| (name.to_owned(), "https://h".to_owned())).into();
    let env = env.into_iter().filter(|(name, _)| name != "REDIS_URL").collect();
    let mut blocks = 0;
    for (path, text) in pages() {
        for block in all(r"(?ms)^```ya?ml\n(.*?)^```", &text) {
            let text = configuration(block);
            config::parse(&text, None, &env).unwrap_or_else(|problems| panic!("{path}: {problems}\n{text}"));
            blocks += 1;
        }
    }
    assert!(blocks >= 2, "{blocks} blocks of YAML were found");
}

#[test]
fn the_readme_shows_the_built_in_routes() {
    let readme = read("README.md");
    let block = all(r"(?ms)^```yaml\n(version: 1\n.*?)^```", &readme)[0];
    let env: Environment = [("PILLION_VECTOR_URL".to_owned(), "https://h".to_owned())].into();
    let [shown, built_in] = [block, config::DEFAULT].map(|text| {
        let config = config::parse(text, None, &env).unwrap_or_else(|problems| panic!("{problems}"));
        let shown = config::effective(&config);
        shown[shown.find("version:").unwrap()..].to_owned()
    });
    assert_eq!(shown, built_in);
}

#[test]
fn metrics_are_those_of_the_catalogue() {
    let known: BTreeSet<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
    for (path, text) in pages() {
        for name in all(r"\b(pillion_[a-z0-9_]*[a-z0-9])\b", &text) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let there = known.contains(name) || family.is_some_and(|family| known.contains(family));
            assert!(there, "{path}: {name} is not in src/metrics/catalogue.rs");
        }
    }
    let operations = read("docs/operations.md");
    for metric in CATALOGUE {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} |", metric.name, metric.kind.word(), labels.join(", "))
            .replace("|  |", "| |");
        assert!(operations.contains(&row), "docs/operations.md has no row that begins with {row}");
    }
}

#[test]
fn every_word_of_a_closed_set_is_explained() {
    let operations = read("docs/operations.md");
    let vocabulary = [
        VOCABULARY.retry_reasons,
        VOCABULARY.not_retried_reasons,
        VOCABULARY.cache_results,
        VOCABULARY.not_stored_reasons,
        VOCABULARY.shadow_results,
        VOCABULARY.audit_results,
        VOCABULARY.window_reasons,
    ];
    for word in vocabulary.into_iter().flatten() {
        assert!(operations.contains(&format!("`{word}`")), "docs/operations.md lacks {word}");
    }
    let retries = read("docs/retries.md");
    for word in VOCABULARY.not_retried_reasons {
        // No failure that is counted has this one.
        let mark = if *word == "not_retryable" { "" } else { "| " };
        assert!(retries.contains(&format!("{mark}`{word}`")), "docs/retries.md lacks {word}");
    }
    for kind in Kind::ALL {
        let row = format!("| {} | `{}` |", kind.status().as_u16(), kind.word());
        assert!(operations.contains(&row), "docs/operations.md has no row {row}");
    }
    let overrides = read("src/config/overrides.rs");
    let table = overrides.split("\n];").next().unwrap();
    let variables = all(r#"(?m)^\s+\(?"([A-Z_]+)","#, table);
    assert!(variables.len() >= 4, "{variables:?}");
    for variable in variables {
        assert!(operations.contains(&format!("`{variable}`")), "docs/operations.md lacks {variable}");
    }
}

/// The names of the fields that the code puts on messages, in lower case.
fn written_headers() -> BTreeSet<String> {
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    let mut written = BTreeSet::new();
    for path in sources {
        let text = std::fs::read_to_string(path).unwrap();
        let literal = r#"(?:insert|append)\(\s*(?:http::)?HeaderName::from_static\("([a-z-]+)"\)"#;
        let constant = r"(?:insert|append)\(\s*(?:header::)?([A-Z][A-Z_]+),";
        written.extend(all(literal, &text).into_iter().map(str::to_owned));
        written.extend(all(constant, &text).into_iter().map(|name| name.to_lowercase().replace('_', "-")));
    }
    written
}

#[test]
fn the_readme_lists_only_headers_that_are_written() {
    let (readme, written) = (read("README.md"), written_headers());
    let section = readme.split("\n## ").find(|section| section.starts_with("Headers")).unwrap();
    let listed = all(r"(?m)^\| `([A-Za-z-]+)` \|", section);
    assert!(listed.len() >= 6, "{listed:?}");
    for name in listed {
        assert!(written.contains(&name.to_lowercase()), "{name} is written nowhere; these are: {written:?}");
    }
}

#[test]
fn presets_and_commands_are_named_where_they_are_promised() {
    let (readme, page, operations) = (read("README.md"), read("docs/presets.md"), read("docs/operations.md"));
    for preset in config::presets::names() {
        assert!(page.contains(&format!("[`{preset}`](#")), "docs/presets.md has no row for {preset}");
    }
    let commands = all(r"(?m)^        Command::([A-Z][a-z]+)", &read("src/cli/mod.rs"))
        .into_iter()
        .map(str::to_lowercase)
        .collect::<BTreeSet<_>>();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in &commands {
        assert!(operations.contains(&format!("| `pillion {command}")), "docs/operations.md lacks {command}");
    }
    for (page, text) in [("README.md", &readme), ("docs/operations.md", &operations)] {
        for named in all(r"`pillion ([a-z]+)", text) {
            assert!(commands.contains(named), "{page}: there is no command {named}");
        }
    }
}
