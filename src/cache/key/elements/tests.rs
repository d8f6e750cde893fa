use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::cache::Policy;
use crate::cache::embeddings::Batch;

/// A request for embeddings, by all that its keys can depend on.
#[derive(Clone, Debug)]
struct Given {
    upstream: &'static str,
    path: String,
    query: Option<String>,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Given {
    fn of(body: &str) -> Self {
        let headers = vec![("authorization", "Bearer one".to_owned())];
        let (upstream, path) = ("https://llm.test", "/v1/embeddings".to_owned());
        Self { upstream, path, query: None, headers, body: body.to_owned() }
    }

    fn keyring() -> Keyring {
        Keyring::seeded([7; 16])
    }

    fn names(&self) -> Names {
        let policy = Policy { ignore_query: vec!["timeout".to_owned()], ..Policy::usual() };
        Self::keyring().names(self.upstream, &policy)
    }

    /// Of every input, and of all together.
    fn keys(&self) -> Option<(Vec<Key>, Key)> {
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let names = self.names();
        let identity = Identity {
            method: &Method::POST,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &headers,
            body: self.body.as_bytes(),
        };
        let batch = Batch::read(self.body.as_bytes())?;
        let elements = names.elements(&identity, &batch.members)?;
        let each = batch.inputs.each().iter();
        let keys: Option<Vec<_>> = each.map(|at| elements.key(&self.body.as_bytes()[at.clone()])).collect();
        let keys = keys?;
        assert!(!keys.contains(&names.key(&identity)), "a search of the same content is something else");
        let all = elements.all(&keys);
        Some((keys, all))
    }
}

#[test]
fn spelling_does_not_count() {
    let plain = Given::of(r#"{"model":"m","input":["one","two"]}"#).keys().unwrap();
    for body in [
        "{\n  \"input\": [\n \"one\" ,\"two\" ],\"model\" : \"m\"}",
        r#"{"model":"\u006d","input":["\u006fne","tw\u006f"]}"#,
        r#"{"\u006dodel":"m","\u0069nput":["one","two"]}"#,
        r#"{"model":"m","input":["one","two"],"user":"somebody"}"#,
    ] {
        assert_eq!(Given::of(body).keys().unwrap(), plain, "{body}");
    }
    let alone = |body: &str| Given::of(body).keys().unwrap().0[0];
    assert_eq!(alone(r#"{"model":"m","input":"two"}"#), plain.0[1]);
    assert_eq!(alone(r#"{"model":"m","input":[1,2]}"#), alone(r#"{"model":"m","input":[[1, 2]]}"#));
}

#[test]
fn what_means_several_things_has_no_key() {
    for body in [
        r#"{"model":"m","input":"\ud800"}"#,
        r#"{"model":"\ud800","input":"a"}"#,
        r#"{"model":"m","what":{"a":1,"a":2},"input":"a"}"#,
    ] {
        assert!(Given::of(body).keys().is_none(), "{body}");
    }
}

#[test]
fn the_order_of_a_batch_is_that_of_its_answer() {
    let (one, all) = Given::of(r#"{"input":["a","b"]}"#).keys().unwrap();
    let (other, reversed) = Given::of(r#"{"input":["b","a"]}"#).keys().unwrap();
    assert_eq!((one[0], one[1]), (other[1], other[0]));
    assert_ne!(all, reversed);
    let single = Given::of(r#"{"input":["a"]}"#).keys().unwrap();
    assert_ne!(single.0[0], single.1);
}

/// One difference that can matter.
fn differently(given: &Given, what: usize, by: &str) -> Given {
    let mut other = given.clone();
    let (by, json) = (by.to_owned(), serde_json::to_string(by).unwrap());
    let member = |name: &str| other.body.replacen('{', &format!("{{{name}:{json},"), 1);
    match what {
        0 => other.upstream = "https://llm.test/base",
        1 => other.path = format!("/{by}/v1/embeddings"),
        2 => other.query = Some(format!("api-version={by}")),
        3 => other.headers = vec![("authorization", format!("Bearer {by}"))],
        4 => other.headers.push(("x-model-provider", by)),
        5 => other.headers.push(("x-tenant", by)),
        6 => other.body = member("\"dimensions\""),
        7 => other.body = member("\"encoding_format\""),
        8 => other.body = member("\"anything\""),
        9 => other.body = other.body.replace(r#""model":"m""#, &format!(r#""model":{json}"#)),
        10 => other.body = other.body.replace(r#""model":"m","#, ""),
        11 => other.body = other.body.replace("first", &format!("first{by}")),
        12 => other.body = other.body.replace("[1,2]", "[1,2.0]"),
        13 => other.body = other.body.replace("[1,2]", "[12]"),
        _ => other.body = other.body.replace("[1,2]", r#""[1,2]""#),
    }
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever differs, no input of one has the key of an input of the other.
    #[test]
    fn what_differs_is_not_shared(what in 0_usize..15, by in "[a-z0-9]{1,12}", tokens in any::<bool>()) {
        let tokens = tokens || what >= 12;
        let input = if tokens && what != 11 { "[1,2]" } else { r#""first text""# };
        let given = Given::of(&format!(r#"{{"model":"m","input":{input}}}"#));
        let by = if by == "m" || by == "one" { "n" } else { by.as_str() };
        let other = differently(&given, what, by);
        let ((one, all), (other, of_all)) = (given.keys().unwrap(), other.keys().unwrap());
        prop_assert_ne!(one[0], other[0]);
        prop_assert_ne!(all, of_all);
    }
}
