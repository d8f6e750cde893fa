//! A small vector index with real vectors, real nearest neighbours, and every version it ever was.
//!
//! It decides what a search answers. The versions are kept so that every answer can be checked later against what was
//! true when it was asked: an answer is the bytes of one version, and [`Index::answer`] renders any of them again.
//! A write is applied at once; nothing settles.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::corpus;

/// Numbers in a vector.
pub(super) const DIMENSIONS: usize = 64;

/// A unit vector, or all zeros for a text without letters.
pub(super) type Vector = Vec<f32>;

/// A text as a vector: its words and the letter triples inside them are hashed into buckets with a sign, then scaled
/// to length one. Texts that share words point the same way, which is all that an embedding must do here.
pub(super) fn embed(text: &str) -> Vector {
    let mut vector = vec![0.0_f32; DIMENSIONS];
    let lower = text.to_lowercase();
    for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        add(&mut vector, word.as_bytes(), 1.0);
        for triple in word.as_bytes().windows(3) {
            add(&mut vector, triple, 0.4);
        }
    }
    unit(vector)
}

fn add(vector: &mut Vector, feature: &[u8], weight: f32) {
    // FNV-1a: the vectors must be the same on every machine and in every run.
    let hash = feature.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let bucket = (hash >> 32) as usize % DIMENSIONS;
    let sign = if hash & 1 == 0 { weight } else { -weight };
    if let Some(number) = vector.get_mut(bucket) {
        *number += sign;
    }
}

fn unit(mut vector: Vector) -> Vector {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 {
        for number in &mut vector {
            *number /= length;
        }
    }
    vector
}

/// One document.
#[derive(Clone, Debug)]
pub(super) struct Document {
    id: String,
    vector: Vector,
    data: Option<String>,
    metadata: Value,
}

impl Document {
    /// As `/upsert-data` (`by_text`) or `/upsert` sends it.
    fn from_json(value: &Value, by_text: bool) -> Result<Self, String> {
        let id = value.get("id").and_then(Value::as_str).ok_or("id: a string is needed")?;
        let data = value.get("data").and_then(Value::as_str);
        let vector = if by_text { embed(data.ok_or("data: a string is needed")?) } else { vector(value)? };
        let metadata = value.get("metadata").cloned().unwrap_or(Value::Null);
        Ok(Self { id: id.to_owned(), vector, data: data.map(str::to_owned), metadata })
    }
}

fn vector(value: &Value) -> Result<Vector, String> {
    let numbers = value.get("vector").and_then(Value::as_array).ok_or("vector: an array is needed")?;
    let vector: Vector = numbers.iter().filter_map(Value::as_f64).map(|number| number as f32).collect();
    if vector.len() != DIMENSIONS || vector.len() != numbers.len() {
        return Err(format!("vector: {DIMENSIONS} numbers are needed"));
    }
    Ok(unit(vector))
}

/// What a search asks.
#[derive(Clone, Debug)]
pub(super) struct Query {
    vector: Vector,
    top_k: usize,
    with_vectors: bool,
    with_metadata: bool,
    with_data: bool,
}

impl Query {
    /// As `/query-data` (`by_text`) or `/query` sends it.
    pub(super) fn from_json(content: &[u8], by_text: bool) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(content).map_err(|error| format!("no JSON: {error}"))?;
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        if value.get("filter").and_then(Value::as_str).is_some_and(|filter| !filter.is_empty()) {
            return Err("filter: this index knows no filters".to_owned());
        }
        let data = || value.get("data").and_then(Value::as_str).ok_or("data: a string is needed");
        Ok(Self {
            vector: if by_text { embed(data()?) } else { vector(&value)? },
            top_k: value.get("topK").and_then(Value::as_u64).unwrap_or(10) as usize,
            with_vectors: flag("includeVectors"),
            with_metadata: flag("includeMetadata"),
            with_data: flag("includeData"),
        })
    }
}

/// One state of a namespace.
type Version = Vec<Arc<Document>>;

/// The nearest documents, nearest first; equally near ones in the order of their ids.
fn nearest<'a>(documents: &'a Version, query: &Query) -> Vec<(f32, &'a Document)> {
    let cosine = |document: &Document| -> f32 {
        document.vector.iter().zip(&query.vector).map(|(left, right)| left * right).sum()
    };
    let mut all: Vec<(f32, &Document)> = documents.iter().map(|one| (cosine(one), &**one)).collect();
    all.sort_by(|left, right| right.0.total_cmp(&left.0).then_with(|| left.1.id.cmp(&right.1.id)));
    all.truncate(query.top_k);
    all
}

fn render(documents: &Version, query: &Query) -> Bytes {
    let matches = nearest(documents, query).into_iter().map(|(cosine, document)| {
        let mut found = Map::new();
        found.insert("id".to_owned(), json!(document.id));
        // Upstash's score of a cosine index: from 0 to 1.
        found.insert("score".to_owned(), json!(f64::from(f32::midpoint(1.0, cosine))));
        if query.with_vectors {
            found.insert("vector".to_owned(), json!(document.vector));
        }
        if query.with_metadata {
            found.insert("metadata".to_owned(), document.metadata.clone());
        }
        if query.with_data {
            found.insert("data".to_owned(), json!(document.data));
        }
        Value::Object(found)
    });
    Bytes::from(json!({ "result": matches.collect::<Vec<_>>() }).to_string())
}

#[derive(Debug)]
struct Namespace {
    /// Version 0 is what it began with; never empty.
    versions: Vec<Version>,
    /// The version in which each document was last written or deleted.
    written: BTreeMap<String, usize>,
}

impl Namespace {
    fn new(documents: Version) -> Self {
        Self { versions: vec![documents], written: BTreeMap::new() }
    }

    fn current(&self) -> usize {
        self.versions.len() - 1
    }
}

/// The index: namespaces, each with all its versions.
#[derive(Debug)]
pub(super) struct Index {
    namespaces: Mutex<BTreeMap<String, Namespace>>,
}

impl Index {
    /// An index that holds the whole corpus.
    pub(super) fn with_corpus() -> Self {
        let mut namespaces = BTreeMap::new();
        for section in &corpus::SECTIONS {
            let documents = section.documents().into_iter().map(|text| {
                let vector = embed(&text.data);
                let metadata = json!({"section": section.name});
                Arc::new(Document { id: text.id, vector, data: Some(text.data), metadata })
            });
            namespaces.insert(section.name.to_owned(), Namespace::new(documents.collect()));
        }
        Self { namespaces: Mutex::new(namespaces) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Namespace>> {
        // Nothing panics while it is held, and a version is pushed whole.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version a namespace is at; 0 where nothing was ever written.
    pub(super) fn current(&self, namespace: &str) -> usize {
        self.lock().get(namespace).map_or(0, Namespace::current)
    }

    /// The version in which a document was last written, if it was since the start.
    pub(super) fn written(&self, namespace: &str, id: &str) -> Option<usize> {
        self.lock().get(namespace).and_then(|one| one.written.get(id).copied())
    }

    /// The content that answers a query of one version.
    pub(super) fn answer(&self, namespace: &str, version: usize, query: &Query) -> Bytes {
        // Cheap: a version is a list of pointers.
        let documents = self.lock().get(namespace).and_then(|one| one.versions.get(version).cloned());
        render(&documents.unwrap_or_default(), query)
    }

    /// Writes documents, given as one object or an array of them; the next version holds them.
    pub(super) fn upsert(&self, namespace: &str, content: &[u8], by_text: bool) -> Result<Bytes, String> {
        let value: Value = serde_json::from_slice(content).map_err(|error| format!("no JSON: {error}"))?;
        let many = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
        let documents: Result<Version, String> =
            many.iter().map(|one| Document::from_json(one, by_text).map(Arc::new)).collect();
        let documents = documents?;
        self.apply(namespace, &documents.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), &documents);
        Ok(Bytes::from(json!({"result": "Success"}).to_string()))
    }

    /// Deletes documents by `{"ids": [..]}` or a bare array.
    pub(super) fn delete(&self, namespace: &str, content: &[u8]) -> Result<Bytes, String> {
        let value: Value = serde_json::from_slice(content).map_err(|error| format!("no JSON: {error}"))?;
        let ids = value.get("ids").unwrap_or(&value).as_array().ok_or("ids: an array is needed")?;
        let ids: Vec<String> = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let deleted = self.apply(namespace, &ids, &Vec::new());
        Ok(Bytes::from(json!({"result": {"deleted": deleted}}).to_string()))
    }

    /// Makes the next version: `ids` go, `documents` come. Says how many went.
    fn apply(&self, namespace: &str, ids: &[String], documents: &Version) -> usize {
        let mut namespaces = self.lock();
        let one = namespaces.entry(namespace.to_owned()).or_insert_with(|| Namespace::new(Vec::new()));
        let mut next = one.versions.last().cloned().unwrap_or_default();
        let before = next.len();
        next.retain(|document| !ids.contains(&document.id));
        let gone = before - next.len();
        next.extend(documents.iter().cloned());
        one.versions.push(next);
        let version = one.current();
        one.written.extend(ids.iter().map(|id| (id.clone(), version)));
        gone
    }

    /// What `/info` answers.
    pub(super) fn info(&self) -> Bytes {
        let namespaces = self.lock();
        let count = |one: &Namespace| one.versions.last().map_or(0, Vec::len);
        let each: Map<String, Value> = namespaces
            .iter()
            .map(|(name, one)| (name.clone(), json!({"vectorCount": count(one), "pendingVectorCount": 0})))
            .collect();
        let total: usize = namespaces.values().map(count).sum();
        Bytes::from(
            json!({"result": {
                "vectorCount": total,
                "pendingVectorCount": 0,
                "indexSize": total * DIMENSIONS * size_of::<f32>(),
                "dimension": DIMENSIONS,
                "similarityFunction": "COSINE",
                "namespaces": each,
            }})
            .to_string(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str, top_k: usize) -> Query {
        let content = json!({"data": text, "topK": top_k, "includeData": true}).to_string();
        Query::from_json(content.as_bytes(), true).unwrap()
    }

    fn ids(content: &[u8]) -> Vec<String> {
        let value: Value = serde_json::from_slice(content).unwrap();
        let matches = value["result"].as_array().unwrap();
        matches.iter().map(|found| found["id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_document_is_nearest_to_its_own_text() {
        let index = Index::with_corpus();
        for section in &corpus::SECTIONS {
            for text in section.documents() {
                let answer = index.answer(section.name, 0, &query(&text.data, 1));
                assert_eq!(ids(&answer), [text.id]);
            }
        }
    }

    #[test]
    fn the_nearest_are_those_that_a_slow_exact_search_finds() {
        let index = Index::with_corpus();
        let documents = corpus::SECTIONS[1].documents();
        for question in corpus::SECTIONS[1].questions() {
            let answer = index.answer("products", 0, &query(&question, 5));
            // Angles in double precision, worked out from the texts again.
            let asked = embed(&question);
            let cosine = |text: &str| -> f64 {
                let vector = embed(text);
                asked.iter().zip(&vector).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let mut exact: Vec<f64> = documents.iter().map(|text| cosine(&text.data)).collect();
            exact.sort_by(|a, b| b.total_cmp(a));
            let found: Value = serde_json::from_slice(&answer).unwrap();
            for (found, exact) in found["result"].as_array().unwrap().iter().zip(&exact) {
                let score = found["score"].as_f64().unwrap() * 2.0 - 1.0;
                assert!((score - exact).abs() < 1e-5, "{question}: {score} {exact}");
            }
        }
    }

    #[test]
    fn questions_find_their_subject() {
        let index = Index::with_corpus();
        let answer = index.answer("help", 0, &query("About gift vouchers: what does it cost?", 1));
        let text = String::from_utf8(answer.to_vec()).unwrap();
        assert!(text.contains("gift vouchers"), "{text}");
    }

    #[test]
    fn a_write_makes_a_version_and_leaves_the_earlier_ones() {
        let index = Index::with_corpus();
        let asked = query("zebra crossing", 1);
        let before = index.answer("help", 0, &asked);
        let content = json!([{"id": "z", "data": "the zebra crossing"}]).to_string();
        index.upsert("help", content.as_bytes(), true).unwrap();
        assert_eq!((index.current("help"), index.current("news")), (1, 0));
        assert_eq!(index.written("help", "z"), Some(1));
        assert_eq!(ids(&index.answer("help", 1, &asked)), ["z"]);
        assert_eq!(index.answer("help", 0, &asked), before);
        index.delete("help", br#"{"ids":["z"]}"#).unwrap();
        assert_eq!(index.written("help", "z"), Some(2));
        assert_eq!(index.answer("help", 2, &asked), before);
    }

    #[test]
    fn vectors_are_taken_as_they_are_sent() {
        let index = Index::with_corpus();
        let content = json!({"id": "v", "vector": embed("velodrome")}).to_string();
        index.upsert("new", content.as_bytes(), false).unwrap();
        let content = json!({"vector": embed("velodrome"), "topK": 1}).to_string();
        let asked = Query::from_json(content.as_bytes(), false).unwrap();
        let answer: Value = serde_json::from_slice(&index.answer("new", 1, &asked)).unwrap();
        assert_eq!(answer["result"][0]["id"], "v");
        assert!((answer["result"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert!(Query::from_json(br#"{"vector":[1,2]}"#, false).is_err());
        assert!(Query::from_json(br#"{"data":"x","filter":"a=1"}"#, true).is_err());
    }

    #[test]
    fn info_counts_what_is_there() {
        let info: Value = serde_json::from_slice(&Index::with_corpus().info()).unwrap();
        assert_eq!(info["result"]["vectorCount"], 288);
        assert_eq!(info["result"]["namespaces"]["news"]["vectorCount"], 72);
    }
}
