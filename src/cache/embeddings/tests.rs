use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn texts(content: &str) -> Option<Vec<String>> {
    let batch = Batch::read(content.as_bytes())?;
    Some(batch.inputs.each().iter().map(|place| content[place.clone()].to_owned()).collect())
}

#[test]
fn the_forms_of_input() {
    for (input, expected) in [
        (r#""one""#, Some(vec![r#""one""#])),
        (r#" "\u006fne" "#, Some(vec![r#""\u006fne""#])),
        ("[1, 2,3]", Some(vec!["[1, 2,3]"])),
        (r#"[ "a" ,"b","a"]"#, Some(vec![r#""a""#, r#""b""#, r#""a""#])),
        ("[[1,2], [3]]", Some(vec!["[1,2]", "[3]"])),
        (r#"["a",""]"#, Some(vec![r#""a""#, r#""""#])),
        (r#""""#, None),
        ("[]", None),
        ("[[]]", None),
        ("[[1],[]]", None),
        (r#"["a",[1]]"#, None),
        (r#"["a",1]"#, None),
        (r#"[[1],["a"]]"#, None),
        ("[[[1]]]", None),
        (r#"{"text":"a"}"#, None),
        (r#"[{"text":"a"}]"#, None),
        ("[null]", None),
        ("null", None),
        ("7", None),
    ] {
        let content = format!(r#"{{"model":"m","input":{input}}}"#);
        let expected = expected.map(|each| each.into_iter().map(str::to_owned).collect());
        assert_eq!(texts(&content), expected, "{input}");
    }
    let many = |count: usize| format!(r#"{{"input":[{}]}}"#, vec![r#""a""#; count].join(","));
    assert_eq!(texts(&many(2048)).unwrap().len(), 2048);
    assert_eq!(texts(&many(2049)), None, "an answer grows with the number of inputs, however small they are");
}

#[test]
fn what_is_not_understood_is_not_taken_apart() {
    for content in [
        "",
        "not json",
        r#"["a"]"#,
        r#"{"model":"m"}"#,
        r#"{"input":"a","input":"b"}"#,
        r#"{"input":"a","\u0069nput":"b"}"#,
        r#"{"model":"m","model":"n","input":"a"}"#,
        r#"{"user":"u","user":"v","input":"a"}"#,
        r#"{"input":"a"} {}"#,
        r#"{"input":"a""#,
        r#"{"input":["a","b"],"titles":["x","y"]}"#,
        r#"{"input":["a","b"],"each":{"0":"x"}}"#,
        r#"{"input":["a","b"],"task":["x","y"]}"#,
        r#"{"input":["a","b"],"late_chunking":true}"#,
        r#"{"input":["a","b"],"late_chunking":false}"#,
        r#"{"input":["a","b"],"model":"m","whatever":1}"#,
        r#"{"input":[[1],[2]],"late_chunking":true}"#,
    ] {
        assert_eq!(texts(content), None, "{content}");
    }
    assert!(Batch::read(b"{\"input\":\"\xff\"}").is_none(), "not UTF-8");
    for one in [r#""a""#, r#"["a"]"#, "[1,2]", "[[1,2]]"] {
        for more in [r#""titles":["x"]"#, r#""late_chunking":true"#] {
            let content = format!(r#"{{"input":{one},{more}}}"#);
            assert_eq!(texts(&content).unwrap().len(), 1, "with one input it is about that one: {content}");
        }
    }
    let each = r#"{"model":"m","dimensions":8,"input":["a","b"],"user":"u","encoding_format":"base64","input_type":"query"}"#;
    assert_eq!(texts(each).unwrap().len(), 2);
}

#[test]
fn users_can_read_what_may_stand_beside_inputs() {
    let page = include_str!("../../../docs/cache.md");
    for name in OF_EACH {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_member_but_input_and_user_counts() {
    let content = br#"{"user":"u","model":"m","input":"a","\u0064imensions":8,"what":null}"#;
    let members = Batch::read(content).unwrap().members;
    let members: Vec<_> = members.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(
        members,
        [(&b"dimensions"[..], &b"8"[..]), (b"model", br#""m""#), (b"what", b"null")],
        "sorted by name"
    );
}

#[test]
fn the_rest_of_a_request_stays_as_it_is() {
    let content = br#"{ "model" : "m", "input": [ "a" , "b","c" ] ,"user":"u"}"#;
    let batch = Batch::read(content).unwrap();
    let only = batch.inputs.only(content, &[0, 2]).unwrap();
    assert_eq!(only, br#"{ "model" : "m", "input": ["a","c"] ,"user":"u"}"#);
    assert_eq!(batch.inputs.only(content, &[3]), None);
    assert_eq!(Inputs::One(0..1).only(content, &[0]), None);
}

fn element(index: impl std::fmt::Display) -> String {
    format!(r#"{{"object":"embedding","index":{index},"embedding":[0.5]}}"#)
}

fn bytes(content: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(content.as_ref())
}

fn answer(elements: &[String]) -> String {
    let data = elements.join(",");
    format!(
        r#"{{"object":"list","data":[{data}],"model":"m","usage":{{"prompt_tokens":1,"total_tokens":1}}}}"#
    )
}

#[test]
fn answers_that_are_taken_apart() {
    for content in [
        answer(&[element(0), element(1)]),
        answer(&[element(1), element(0)]),
        r#"{"data":[ {"embedding":"AAAA","index":1 , "x":{}},{"index":0,"embedding":[1]} ],"id":7,"model":"m","object":"list"}"#.to_owned(),
    ] {
        assert_eq!(Answer::read(&bytes(&content), 2).map(|answer| answer.elements.len()), Some(2), "{content}");
    }
}

#[test]
fn answers_that_are_not() {
    let good = answer(&[element(0), element(1)]);
    assert!(Answer::read(&bytes(&good), 2).is_some());
    for end in 0..good.len() {
        assert!(Answer::read(&bytes(&good[..end]), 2).is_none(), "cut at {end}");
    }
    for (what, content) in [
        ("fewer", answer(&[element(0)])),
        ("more", answer(&[element(0), element(1), element(2)])),
        ("an index twice", answer(&[element(0), element(0)])),
        ("an index beyond", answer(&[element(0), element(2)])),
        ("an index from one", answer(&[element(1), element(2)])),
        ("a negative index", answer(&[element("-0"), element(1)])),
        ("an index that is no integer", answer(&[element("0.0"), element(1)])),
        ("an index with an exponent", answer(&[element("0e0"), element(1)])),
        ("an index that is a text", answer(&[element(r#""0""#), element(1)])),
        ("two indexes", answer(&[element(r#"0,"index":0"#), element(1)])),
        ("two vectors", answer(&[element(r#"0,"embedding":[1]"#), element(1)])),
        ("two vectors, one escaped", answer(&[element(r#"0,"\u0065mbedding":[1]"#), element(1)])),
        ("no index", answer(&[r#"{"embedding":[1]}"#.to_owned(), element(1)])),
        ("no vector", answer(&[r#"{"index":0}"#.to_owned(), element(1)])),
        ("an empty vector", answer(&[r#"{"index":0,"embedding":[ ]}"#.to_owned(), element(1)])),
        ("an empty text", answer(&[r#"{"index":0,"embedding":""}"#.to_owned(), element(1)])),
        ("null for a vector", answer(&[r#"{"index":0,"embedding":null}"#.to_owned(), element(1)])),
        ("an element that is none", answer(&["null".to_owned(), element(1)])),
        ("an error", good.replace(r#""model""#, r#""error":{},"model""#)),
        ("an error, escaped", good.replace(r#""model""#, r#""\u0065rror":{},"model""#)),
        ("no model", good.replace(r#","model":"m""#, "")),
        ("no name for a model", good.replace(r#""model":"m""#, r#""model":null"#)),
        ("two models", good.replace(r#""model":"m""#, r#""model":"m","model":"n""#)),
        ("no object", good.replace(r#""object":"list","#, "")),
        ("no data", r#"{"object":"list","model":"m"}"#.to_owned()),
        ("data of another kind", r#"{"object":"list","model":"m","data":{}}"#.to_owned()),
        ("data twice", good.replace(r#""model""#, r#""data":[],"model""#)),
        ("not an object", format!("[{good}]")),
    ] {
        assert!(Answer::read(&bytes(&content), 2).is_none(), "{what}: {content}");
    }
}

#[test]
fn an_element_is_kept_as_it_is() {
    let content = bytes(answer(&[element(1), element(0)]));
    let read = Answer::read(&content, 2).unwrap();
    for element in &read.elements {
        let kept = bytes(element.keep());
        assert_eq!(Element::kept(&kept).as_ref(), Some(element));
        for end in 0..12 {
            assert_eq!(Element::kept(&kept.slice(..end)), None);
        }
        assert_eq!(Element::kept(&bytes([&[FORM_OF_NOBODY], &kept[1..]].concat())), None);
    }
}

#[test]
fn a_vector_with_null_in_it_is_not_sound() {
    for (vector, sound) in [
        ("[0.5,-1e-7]", true),
        (r#""null""#, true),
        ("[null]", false),
        ("[0.5, null ,1]", false),
        ("[[0.5],[null]]", false),
    ] {
        let content = bytes(answer(&[format!(r#"{{"index":0,"embedding":{vector}}}"#)]));
        assert_eq!(Answer::read(&content, 1).unwrap().elements[0].sound, sound, "{vector}");
    }
}

const FORM_OF_NOBODY: u8 = 0;

#[test]
fn an_answer_that_nobody_was_asked_for_cost_nothing() {
    let content = bytes(answer(&[element(0), element(1)]));
    let read = Answer::read(&content, 2).unwrap();
    let merged = merge(None, &[read.elements[1], read.elements[0]]).unwrap();
    assert_eq!(
        String::from_utf8(merged.concat()).unwrap(),
        format!(
            r#"{{"object":"list","data":[{},{}],"model":"m","usage":{{"prompt_tokens":0,"total_tokens":0}}}}"#,
            element(0),
            element(1)
        )
    );
    assert_eq!(merge(None, &[]), None);
}

#[test]
fn elements_of_different_models_are_not_one_answer() {
    let (one, other) = (answer(&[element(0)]), answer(&[element(0)]).replace(r#""m""#, r#""n""#));
    let (one, other) = (bytes(one), bytes(other));
    let (one, other) = (Answer::read(&one, 1).unwrap(), Answer::read(&other, 1).unwrap());
    assert!(merge(Some(&one), &[one.elements[0], one.elements[0]]).is_some());
    assert_eq!(merge(Some(&one), &[one.elements[0], other.elements[0]]), None);
    assert_eq!(merge(None, &[other.elements[0], one.elements[0]]), None);
}

#[test]
fn what_is_large_is_not_copied_however_often_it_is_in_an_answer() {
    let large =
        |index, before: &str| format!(r#"{{{before}"index":{index},"embedding":"{}"}}"#, "b64+".repeat(2048));
    for before in ["", &format!(r#""text":"{}","#, "x".repeat(500))] {
        let content = bytes(answer(&[large(0, before)]));
        let kept = bytes(Answer::read(&content, 1).unwrap().elements[0].keep());
        let element = Element::kept(&kept).unwrap();
        let merged = merge(None, &vec![element; 1000]).unwrap();
        let (mut own, mut whole) = (0, 0);
        for piece in &merged {
            whole += piece.len();
            own += if kept.as_ptr_range().contains(&piece.as_ptr()) { 0 } else { piece.len() };
        }
        assert!(whole > 8_000_000 && own < 100_000, "{own} of {whole} bytes copied");
        assert_eq!(Answer::read(&bytes(merged.concat()), 1000).unwrap().elements.len(), 1000);
    }
}

/// What an upstream answers: a vector that tells the input, in a form of its own.
fn upstream(request: &[u8]) -> Bytes {
    let request: Value = serde_json::from_slice(request).unwrap();
    let input = &request["input"];
    let inputs = match input.as_array() {
        Some(each) if !each[0].is_number() => each.clone(),
        _ => vec![input.clone()],
    };
    let vector = |input: &Value| match request["encoding_format"].as_str() {
        Some("base64") => json!(format!("{:x?}", input.to_string().as_bytes())).to_string(),
        _ => format!("{:?}", input.to_string().bytes().map(f32::from).collect::<Vec<_>>()),
    };
    let data: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(n, input)| format!(r#"{{"object":"embedding","index":{n},"embedding":{}}}"#, vector(input)))
        .collect();
    let model = &request["model"];
    format!(
        r#"{{"object":"list","data":[{}],"model":{model},"usage":{{"prompt_tokens":{n},"total_tokens":{n}}}}}"#,
        data.join(","),
        n = inputs.len()
    )
    .into()
}

fn input() -> impl Strategy<Value = Value> {
    // Few letters, so that inputs meet.
    let text = prop_oneof!["[ab]{1,2}", "[\\PC\"\\\\]{1,8}"].prop_map(Value::from);
    let tokens = prop::collection::vec(0_u32..3, 1..3).prop_map(|tokens| json!(tokens));
    prop_oneof![
        prop::collection::vec(text.clone(), 1..12).prop_map(Value::from),
        prop::collection::vec(tokens.clone(), 1..12).prop_map(Value::from),
        text,
        tokens,
    ]
}

proptest! {
    /// Whatever was known, and however often an input comes: the answer is what the upstream would have given, but for
    /// its `usage`.
    #[test]
    fn merge_undoes_split(
        input in input(),
        known in prop::collection::vec(any::<bool>(), 12),
        pretty in any::<bool>(),
        base64 in any::<bool>(),
    ) {
        let mut request = json!({"model": "text-embedding-\"3\"", "input": input, "user": "u"});
        if base64 {
            request["encoding_format"] = json!("base64");
        }
        let content =
            if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) }.unwrap();
        let batch = Batch::read(&content).unwrap();
        let places = batch.inputs.each();
        let whole = upstream(&content);
        let expected = Answer::read(&whole, places.len()).unwrap();

        // Some were answered before, alone or in a batch, and were kept. The first of those that were not is asked for.
        let spelled = |place: &Range<usize>| serde_json::from_slice::<Value>(&content[place.clone()]).unwrap();
        let is_known = |place: usize| {
            let first = places.iter().position(|other| spelled(other) == spelled(&places[place])).unwrap();
            known[first]
        };
        let mut asked: Vec<usize> = Vec::new();
        for (at, place) in places.iter().enumerate() {
            if !is_known(at) && !asked.iter().any(|before| spelled(&places[*before]) == spelled(place)) {
                asked.push(at);
            }
        }
        let kept: Vec<_> = expected.elements.iter().map(|element| Bytes::from(element.keep())).collect();
        let sent = match asked.as_slice() {
            [] => None,
            asked if asked.len() == places.len() => Some(content.clone()),
            asked => Some(batch.inputs.only(&content, asked).unwrap()),
        };
        let answered = sent.as_deref().map(upstream);
        let answered = answered.as_ref().map(|content| Answer::read(content, asked.len()).unwrap());
        let elements: Vec<_> = (0..places.len())
            .map(|at| {
                let fresh = asked.iter().position(|asked| spelled(&places[*asked]) == spelled(&places[at]));
                match (&answered, fresh) {
                    (Some(answered), Some(fresh)) => answered.elements[fresh],
                    _ => Element::kept(&kept[at]).unwrap(),
                }
            })
            .collect();
        let merged = merge(answered.as_ref(), &elements).unwrap().concat();

        let read: Value = serde_json::from_slice(&merged).unwrap();
        prop_assert_eq!(&read["usage"]["total_tokens"], &json!(asked.len()));
        let usage = |content: &[u8]| {
            let text = String::from_utf8(content.to_vec()).unwrap();
            text.split_once(r#","usage""#).map(|(before, _)| before.to_owned()).unwrap()
        };
        prop_assert_eq!(usage(&merged), usage(&whole), "byte for byte up to the usage");
    }

    /// No bytes are too strange to be looked at.
    #[test]
    fn anything_is_read(content in prop::collection::vec(any::<u8>(), 0..64), stored in any::<Vec<u8>>()) {
        let _ = Batch::read(&content);
        let _ = Answer::read(&bytes(content), 1);
        let _ = Element::kept(&bytes(stored));
    }
}
