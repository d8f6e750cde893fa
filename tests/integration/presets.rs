//! Every preset at work, request by request as the tables in `tests/presets/` have them: hit, write, miss, and a hit
//! where the write was about something else.

use std::time::Duration;

use super::table::{Did, Row, Table, tables};
use crate::support::{Answer, Pillion, Response, Upstream, advance, client};

const SETTLE: &str = "pillion; fwd=bypass; detail=settle";
const STORED: &str = "pillion; fwd=miss; stored";

/// Elasticsearch's clients fail without the second, PostgREST's count by the third.
const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("x-elastic-product", "Elasticsearch"),
    ("content-range", "0-0/1"),
];

/// A Pillion with one route of this preset, before an upstream that gives every request the answer of a search.
async fn start(table: &Table, cache: &str) -> (Pillion, Upstream) {
    let stored = table.stored.clone();
    let upstream = Upstream::answering(move |_| Answer::with(200, &HEADERS, &stored)).await;
    (Pillion::start(&table.configuration("${UP}", cache), &[("UP", &upstream.url())]).await, upstream)
}

async fn send(pillion: &Pillion, row: &Row) -> Response {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(row.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let answer = client::exchange(pillion.addr, row.method(), row.target(), &headers, &row.body).await;
    assert_eq!(answer.status, 200, "{}", row.request);
    answer
}

fn stores() -> Vec<Table> {
    let stores: Vec<Table> = tables().into_iter().filter(|table| !table.searches().is_empty()).collect();
    assert!(stores.len() >= 9, "{}", stores.len());
    stores
}

#[tokio::test]
async fn a_write_drops_the_searches_that_it_changes_and_spares_the_others() {
    for table in stores() {
        let (pillion, upstream) = start(&table, "settle: 0s, aliases: false").await;
        for search in table.searches() {
            send(&pillion, search).await;
            for write in table.writes() {
                let told = format!("{}: {} and then {}", table.preset, search.request, write.request);
                let hit = send(&pillion, search).await;
                assert!(
                    HEADERS.iter().all(|(name, value)| hit.header(name) == Some(value)),
                    "{told}: {hit:?}"
                );
                assert!(hit.is_hit() && hit.text() == table.stored, "{}: {told}", search.told());
                assert!(!send(&pillion, write).await.is_hit(), "{told}");
                let asked = upstream.count();
                let after = send(&pillion, search).await;
                assert_eq!(after.is_hit(), !write.must_drop(search), "{told}: {}", after.cache());
                assert_eq!(upstream.count() - asked, usize::from(write.must_drop(search)), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn where_names_may_be_aliases_every_write_drops_everything() {
    for table in stores() {
        let (pillion, _upstream) = start(&table, "settle: 0s, aliases: true").await;
        for write in table.writes() {
            for search in table.searches() {
                send(&pillion, search).await;
            }
            send(&pillion, write).await;
            for search in table.searches() {
                let after = send(&pillion, search).await;
                assert!(!after.is_hit(), "{}: {} and then {}", table.preset, write.request, search.request);
            }
        }
    }
}

#[tokio::test]
async fn a_store_settles_unless_the_write_or_the_search_says_that_it_need_not() {
    for table in stores() {
        let (pillion, _upstream) = start(&table, "").await;
        for write in table.writes() {
            for search in table.searches().into_iter().filter(|search| write.must_drop(search)) {
                let told = format!("{}: {} and then {}", table.preset, write.request, search.request);
                send(&pillion, write).await;
                let after = send(&pillion, search).await;
                // Chroma and PostgREST read their own writes; work behind the answer binds whoever asks.
                let at_once = ["chroma-v2", "supabase-rpc"].contains(&table.preset.as_str());
                let works = ["jobs", "attach-function"].contains(&write.rule.as_str());
                let stored = write.settled || !works && (at_once || search.settled);
                assert_eq!(after.cache(), if stored { STORED } else { SETTLE }, "{told}");
                advance(Duration::from_secs(660)).await;
            }
        }
    }
}

#[tokio::test]
async fn what_passes_is_neither_looked_up_nor_stored() {
    for table in stores() {
        let (pillion, upstream) = start(&table, "settle: 0s").await;
        let passing = |row: &&Row| row.action == Did::Pass || row.passes;
        for row in table.requests.iter().filter(passing) {
            for _ in 0..2 {
                let asked = upstream.count();
                let answer = send(&pillion, row).await;
                assert_eq!(upstream.count(), asked + 1, "{}: {}", table.preset, row.request);
                assert_eq!(answer.cache(), "pillion; fwd=bypass; detail=rule", "{}", row.request);
            }
        }
    }
}

#[tokio::test]
async fn errors_that_come_with_200_are_never_stored() {
    for table in stores() {
        let (pillion, upstream) = start(&table, "").await;
        for search in table.searches().into_iter().take(2) {
            for content in &table.never_stored {
                upstream.push(Answer::with(200, &[("content-type", "application/json")], content));
                let answer = send(&pillion, search).await;
                assert_eq!(answer.cache(), "pillion; fwd=miss", "{}: {content}", table.preset);
                assert_eq!(answer.text(), *content, "{}", table.preset);
            }
            assert_eq!(send(&pillion, search).await.cache(), STORED, "{}", table.preset);
        }
    }
}

#[tokio::test]
async fn a_write_that_waits_settles_at_once_only_if_it_succeeds() {
    let table = stores().into_iter().find(|table| table.preset == "qdrant").unwrap();
    let (pillion, upstream) = start(&table, "aliases: false").await;
    let search = table.searches()[0].clone();
    // One that is not attempted again.
    let write = async || pillion.post("/collections/one/points/batch?wait=true", "{}").await.status;
    assert_eq!(write().await, 200);
    assert_eq!(send(&pillion, &search).await.cache(), STORED);
    for status in [500, 408, 202] {
        upstream.push(Answer::status(status, "{}"));
        assert_eq!(write().await, status);
        assert_eq!(send(&pillion, &search).await.cache(), SETTLE, "{status}");
        advance(Duration::from_secs(61)).await;
        assert_eq!(send(&pillion, &search).await.cache(), STORED);
    }
}

#[tokio::test]
async fn a_write_that_waits_settles_as_others_when_it_took_several_attempts() {
    let table = stores().into_iter().find(|table| table.preset == "qdrant").unwrap();
    let (pillion, upstream) = start(&table, "aliases: false").await;
    upstream.push(Answer::status(503, "{}"));
    let write = client::exchange(pillion.addr, "PUT", "/collections/one/points?wait=true", &[], "{}").await;
    assert_eq!((write.status, upstream.count()), (200, 2));
    let after = send(&pillion, table.searches()[0]).await;
    assert_eq!(after.cache(), SETTLE, "the first may be applied after the second");
}

#[tokio::test]
async fn a_search_that_sees_all_is_not_stored_during_a_write() {
    let table = stores().into_iter().find(|table| table.preset == "milvus-v2").unwrap();
    let (pillion, upstream) = start(&table, "aliases: false").await;
    let strong = table.searches().into_iter().find(|row| row.settled).unwrap().clone();
    let gate = crate::support::Gate::new();
    upstream.push(Answer::ok(r#"{"code":0,"data":{}}"#).held(&gate));
    let mut write = pillion.connect().await;
    let content = r#"{"collectionName":"two","data":[]}"#;
    write.ask("POST", "/v2/vectordb/entities/upsert", &[], content).await;
    upstream.seen(1).await;
    assert_eq!(send(&pillion, &strong).await.cache(), SETTLE);
    gate.open();
    assert_eq!(write.response().await.status, 200);
    assert_eq!(send(&pillion, &strong).await.cache(), STORED, "it sees what was written");
}

#[tokio::test]
async fn content_that_is_encoded_is_not_read() {
    let table = stores().into_iter().find(|table| table.preset == "pinecone").unwrap();
    let (pillion, _upstream) = start(&table, "settle: 0s").await;
    let search = table.searches()[1].clone();
    send(&pillion, &search).await;
    assert!(send(&pillion, &search).await.is_hit());
    let encoded = [("content-encoding", "x-made-up")];
    pillion.post_with("/vectors/upsert", &encoded, r#"{"namespace":"elsewhere"}"#).await;
    assert!(!send(&pillion, &search).await.is_hit(), "what it names is not known");
}
