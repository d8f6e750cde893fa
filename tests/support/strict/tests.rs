//! Each cause of refusal, with the wording that is publicly known, and its valid neighbours.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Dialect, binding, check, check_size, responses};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "words")]
    _words: serde_yaml::Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    model: String,
    history: Value,
    #[serde(default)]
    more: serde_json::Map<String, Value>,
    refused: Option<String>,
    param: Option<String>,
    code: Option<String>,
}

#[test]
fn what_each_vendor_takes_and_refuses() {
    let tables = [
        (Dialect::Chat, include_str!("cases/chat.yaml")),
        (Dialect::Responses, include_str!("cases/responses.yaml")),
        (Dialect::Messages, include_str!("cases/messages.yaml")),
    ];
    for (dialect, table) in tables {
        let table: Table = serde_yaml::from_str(table).unwrap();
        for case in table.cases {
            let mut request = json!({"model": case.model, dialect.member(): case.history});
            request.as_object_mut().unwrap().extend(case.more);
            let name = case.name;
            match (check(dialect, &request), case.refused) {
                (Ok(()), None) => {}
                (Err(rejection), Some(wording)) => {
                    assert!(rejection.message.starts_with(&wording), "{name}: {}", rejection.message);
                    // Of Responses nearly all are about the input.
                    let usual = (dialect == Dialect::Responses).then(|| "input".to_owned());
                    assert_eq!(rejection.param, case.param.or(usual), "{name}");
                    assert_eq!(rejection.code, case.code.as_deref(), "{name}");
                }
                (answer, _) => panic!("{dialect:?}, {name}: {answer:?}"),
            }
        }
    }
}

fn user() -> Value {
    json!({"role": "user", "content": "hello"})
}

#[test]
fn thinking_is_bound_to_what_was_before_it() {
    const BOUND: &str = "The block is bound to a different conversation.";
    let request = json!({"model": "m", "system": "s", "tools": [{"name": "f"}], "messages": [user(), {"role": "assistant", "content": "x"}, user()]});
    let thought = |request: &Value| {
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": binding::sign(Dialect::Messages, request)},
            {"type": "text", "text": "x"},
        ]})
    };
    let grown = |more: &[Value]| {
        let mut request = request.clone();
        request["messages"].as_array_mut().unwrap().extend(more.iter().cloned());
        request
    };
    let refused = |request: &Value, place: &str| {
        let told = check(Dialect::Messages, request).unwrap_err().message;
        assert!(told.starts_with(place) && told.ends_with(BOUND), "{told}");
    };
    let whole = grown(&[thought(&request), user()]);
    assert_eq!(check(Dialect::Messages, &whole), Ok(()));
    let next = grown(&[thought(&request), user(), thought(&whole)]);
    assert_eq!(check(Dialect::Messages, &next), Ok(()));

    // What is after it, where a cache may end, and how a lone text is written, are not what it is bound to.
    let mut same = next.clone();
    same["messages"][0]["content"] =
        json!([{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]);
    same["messages"].as_array_mut().unwrap().push(user());
    assert_eq!(check(Dialect::Messages, &same), Ok(()));

    let mut cut = next.clone();
    cut["messages"].as_array_mut().unwrap().drain(..2);
    refused(&cut, "messages.1.content.0: Invalid `signature` in `thinking` block.");
    let mut later = next.clone();
    later["messages"][4]["content"] = json!("something else");
    refused(&later, "messages.5.content.0");
    let mut tools = next.clone();
    tools["tools"] = json!([]);
    refused(&tools, "messages.3.content.0");
    let mut system = next;
    system["system"] = json!("t");
    refused(&system, "messages.3.content.0");

    let redacted = json!({"role": "assistant", "content": [
        {"type": "redacted_thinking", "data": binding::sign(Dialect::Messages, &request)},
        {"type": "text", "text": "x"},
    ]});
    let mut whole = grown(&[redacted, user()]);
    assert_eq!(check(Dialect::Messages, &whole), Ok(()));
    whole["messages"][0]["content"] = json!("something else");
    refused(&whole, "messages.3.content.0: Invalid `data` in `redacted_thinking` block.");
}

#[test]
fn reasoning_that_lost_its_beginning_is_told_and_not_refused() {
    let mut request = json!({"model": "m", "input": [user(), {"role": "assistant", "content": "x"}, user()]});
    let signature = binding::sign(Dialect::Responses, &request);
    request["input"].as_array_mut().unwrap().extend([
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": signature}),
        json!({"role": "assistant", "content": "x"}),
    ]);
    assert_eq!(binding::mismatches(&request), Vec::<String>::new());
    request["input"].as_array_mut().unwrap().remove(0);
    assert_eq!(binding::mismatches(&request), ["rs_1"]);
    assert_eq!(check(Dialect::Responses, &request), Ok(()));
}

#[test]
fn what_came_out_of_reasoning_says_so() {
    assert_eq!(responses::id_out_of("msg", "rs_1f", 0), "msg_rs1f_0");
}

#[test]
fn what_is_too_big_is_not_read() {
    assert_eq!(check_size(Dialect::Messages, (32 << 20) + 1).unwrap_err().code, Some("request_too_large"));
    assert_eq!(check_size(Dialect::Messages, 32 << 20), Ok(()));
    assert_eq!(check_size(Dialect::Chat, (32 << 20) + 1), Ok(()));
}
