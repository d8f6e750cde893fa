use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

const NONE: &[String] = &[];

fn policy(max_messages: usize, step: usize, max_bytes: u64) -> Policy {
    Policy {
        enabled: true,
        shadow: false,
        dialect: Dialect::Chat,
        max_messages,
        step,
        max_bytes,
        max_tokens: 0,
        encoding: Encoding::Auto,
    }
}

fn trim_bytes(body: &[u8], policy: &Policy) -> Reading {
    read(&Bytes::copy_from_slice(body), policy, &Counter::new(), NONE)
}

fn trim(body: &str, policy: &Policy) -> Reading {
    trim_bytes(body.as_bytes(), policy)
}

/// What is forwarded in place of the body, if something else is.
fn spliced(body: &str, reading: &Reading) -> Option<Vec<u8>> {
    let cut = reading.cut.as_ref()?;
    Some(splice(&Bytes::copy_from_slice(body.as_bytes()), cut).concat())
}

/// `s` system, `d` developer, `u` user, `a` assistant, `c` a call of two tools, `t` a tool's result, `f` a legacy call,
/// `r` its result. Every message is told apart by its number.
fn body(roles: &str) -> String {
    let messages: Vec<String> = roles
        .chars()
        .enumerate()
        .map(|(n, role)| match role {
            's' => format!(r#"{{"role":"system","content":"{n}"}}"#),
            'd' => format!(r#"{{"role":"developer","content":"{n}"}}"#),
            'u' => format!(r#"{{"role":"user","content":"{n}"}}"#),
            'a' => format!(r#"{{"role":"assistant","content":"{n}"}}"#),
            'c' => format!(
                r#"{{"role":"assistant","content":null,"n":"{n}","tool_calls":[{{"id":"a"}},{{"id":"b"}}]}}"#
            ),
            't' => format!(r#"{{"role":"tool","tool_call_id":"a","content":"{n}"}}"#),
            'f' => format!(r#"{{"role":"assistant","n":"{n}","function_call":{{"name":"x"}}}}"#),
            'r' => format!(r#"{{"role":"function","name":"x","content":"{n}"}}"#),
            other => panic!("{other}"),
        })
        .collect();
    format!(r#"{{"model":"m","messages":[{}],"stream":true}}"#, messages.join(","))
}

#[test]
fn a_table_of_cuts() {
    // What is left is written as the roles that stay.
    for (roles, max, step, left) in [
        ("", 2, 1, ""),
        ("s", 2, 1, "s"),
        ("sd", 1, 1, "sd"),
        ("sua", 2, 1, "sua"),
        ("uau", 2, 1, "u"),
        ("uauau", 3, 1, "uau"),
        ("suauau", 3, 1, "suau"),
        ("sduauau", 3, 1, "sduau"),
        // A system message in the middle belongs to its turn.
        ("suasuau", 3, 1, "suau"),
        ("usdau", 2, 1, "u"),
        // The cut waits for the next user turn, so fewer may stay.
        ("ucttauau", 4, 1, "uau"),
        ("ufraucttau", 6, 1, "ucttau"),
        ("ufraucttau", 5, 1, "u"),
        // The last turn goes whole, however long.
        ("uaucttctta", 3, 1, "ucttctta"),
        ("ucttctta", 3, 1, "ucttctta"),
        ("suuuu", 2, 1, "suu"),
        // Steps: the first turn at or behind a multiple of three.
        ("uauau", 4, 3, "u"),
        ("uauaua", 4, 3, "ua"),
        ("uauauau", 4, 3, "uau"),
        ("uauauaua", 4, 3, "uaua"),
        ("uauauauau", 4, 3, "uau"),
        // A step is never more than the messages that stay at most.
        ("ua", 1, 50, "ua"),
        ("uauaua", 2, 50, "ua"),
        ("uauau", 0, 3, "uauau"),
        ("uauau", 3, 0, "uau"),
    ] {
        let body = body(roles);
        let reading = trim(&body, &policy(max, step, 0));
        let removed = roles.len() - left.len();
        let head = roles.chars().take_while(|role| "sd".contains(*role)).count();
        assert_eq!(reading.removed, removed, "{roles} {max} {step}");
        assert_eq!(reading.forwarded, Some(left.len() - head), "{roles} {max} {step}");
        assert_eq!(reading.untouched, None, "{roles} {max} {step}");
        let Some(content) = spliced(&body, &reading) else {
            assert_eq!(removed, 0, "{roles} {max} {step}");
            continue;
        };
        let all = raw_messages(body.as_bytes());
        let kept = raw_messages(&content);
        assert_eq!(kept, [&all[..head], &all[head + removed..]].concat(), "{roles} {max} {step}");
    }
}

#[test]
fn nothing_but_the_oldest_messages_is_cut_out() {
    let body = "\n{ \"temperature\" : 1e-0 ,\"mess\\u0061ges\" : [ {\"r\\u006fle\":\"syst\\u0065m\"} ,\r\n\t{\"role\":\"user\"} ,\
                {\"role\":\"assistant\",\"x\":[1,{\"role\":1,\"role\":2}]},  {\"content\":\"\\ud83d\\ude00 ] }\",\"role\":\"us\\u0065r\"}\t],\
                \"id\": 123456789012345678901234567890 } \n";
    let reading = trim(body, &policy(1, 1, 0));
    let expected = "\n{ \"temperature\" : 1e-0 ,\"mess\\u0061ges\" : [ {\"r\\u006fle\":\"syst\\u0065m\"} ,\r\n\t\
                    {\"content\":\"\\ud83d\\ude00 ] }\",\"role\":\"us\\u0065r\"}\t],\"id\": 123456789012345678901234567890 } \n";
    assert_eq!(spliced(body, &reading).as_deref(), Some(expected.as_bytes()));
    assert_eq!((reading.forwarded, reading.removed), (Some(1), 2));
}

#[test]
fn bytes_of_history_are_limited_as_well() {
    let body = body("suauaua");
    let all = raw_messages(body.as_bytes());
    let turn = all[5].len() + 1 + all[6].len();
    let two = turn + 1 + all[3].len() + 1 + all[4].len();
    for (max_bytes, max, removed) in [
        (0, 0, 0),
        (10_000, 0, 0),
        (two, 0, 2),
        (two - 1, 0, 4),
        (turn, 0, 4),
        // The last turn goes even so.
        (turn - 1, 0, 4),
        (1, 0, 4),
        // Whichever limit cuts more.
        (two, 2, 4),
        (turn, 4, 4),
        (10_000, 4, 2),
    ] {
        let reading = trim(&body, &policy(max, 1, max_bytes as u64));
        assert_eq!(reading.removed, removed, "{max_bytes} {max}");
    }
}

#[test]
fn shadow_reports_and_changes_nothing() {
    let reading = trim(&body("suauau"), &Policy { shadow: true, ..policy(1, 1, 0) });
    assert_eq!((reading.forwarded, reading.removed), (Some(5), 4));
    assert_eq!((reading.cut, reading.untouched), (None, None));
}

#[test]
fn bodies_that_are_not_understood_pass() {
    let deep = format!(r#"{{"messages":[{}1{}]}}"#, "[".repeat(200), "]".repeat(200));
    let long = body("uauauau");
    for (body, reason) in [
        ("", Untouched::InvalidJson),
        ("prompt", Untouched::InvalidJson),
        (&format!("\u{feff}{long}"), Untouched::Bom),
        (&format!("{long}]"), Untouched::InvalidJson),
        (&format!("{long} {long}"), Untouched::InvalidJson),
        (&long.replace("true", "True"), Untouched::InvalidJson),
        (&long.replace("\"5\"", "\"\n\""), Untouched::InvalidJson),
        (&deep, Untouched::TooDeep),
        ("[]", Untouched::NotObject),
        ("\"messages\"", Untouched::NotObject),
        ("{}", Untouched::NoMessages),
        (r#"{"input":"x"}"#, Untouched::NoMessages),
        (r#"{"messages":null}"#, Untouched::NoMessages),
        (r#"{"messages":{"role":"user"}}"#, Untouched::NoMessages),
        (r#"{"messages":[],"messages":[]}"#, Untouched::Duplicate),
        (&long.replace("model", r"m\u0065ssages"), Untouched::Duplicate),
        (&long.replace(r#"{"role":"user","content":"4"}"#, "4"), Untouched::UnreadableMessage),
        (&long.replace(r#"{"role":"user","content":"4"}"#, "[]"), Untouched::UnreadableMessage),
        (&long.replace(r#"{"role":"user","content":"4"}"#, "{}"), Untouched::UnreadableMessage),
        (&long.replace(r#""user","content":"4""#, r#"1,"content":"4""#), Untouched::UnreadableMessage),
        (&long.replace(r#""user","content":"4""#, r#""user","role":"user""#), Untouched::Duplicate),
        (&long.replace(r#""user","content":"4""#, r#""user","r\u006fle":"user""#), Untouched::Duplicate),
        (&long.replace(r#""user","content":"4""#, r#"null,"role":"user""#), Untouched::Duplicate),
        (&long.replace(r#""content":"4""#, r#""content":"4","content":"5""#), Untouched::Duplicate),
    ] {
        let reading = trim(body, &policy(1, 1, 1));
        assert_eq!((reading.forwarded, reading.removed), (None, 0), "{body}");
        assert_eq!((reading.cut, reading.untouched), (None, Some(reason)), "{body}");
    }
    let reading = trim(&body("saaaa"), &policy(1, 1, 0));
    assert_eq!((reading.forwarded, reading.untouched), (Some(4), Some(Untouched::NoUserTurn)));
}

#[test]
fn bytes_that_are_not_utf_8_matter_only_to_an_edit() {
    let mut bytes = body("uau").into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'0').unwrap();
    bytes[at] = 0xff;
    assert_eq!(trim_bytes(&bytes, &policy(3, 1, 0)).forwarded, Some(3));
    let reading = trim_bytes(&bytes, &policy(1, 1, 0));
    assert_eq!((reading.forwarded, reading.removed), (None, 0));
    assert_eq!((reading.cut, reading.untouched), (None, Some(Untouched::NotUtf8)));
}

#[test]
fn state_is_left_when_a_member_says_so() {
    let members = ["store", "background", "conversation"].map(String::from);
    let leaves = |body: &str| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(&body, &policy(1, 1, 0), &Counter::new(), &members).leaves_state
    };
    for (body, expected) in [
        (r#"{"messages":[]}"#, false),
        (r#"{"messages":[],"store":true}"#, true),
        (r#"{"st\u006fre":true,"messages":[]}"#, true),
        (r#"{"store": false ,"background":null,"messages":[]}"#, false),
        (r#"{"conversation":"c_1","messages":[]}"#, true),
        (r#"{"store":true,"store":false,"messages":[]}"#, true),
        (r#"{"metadata":{"store":true},"messages":[]}"#, false),
        // Whatever is wrong with the messages.
        (r#"{"messages":1,"store":true}"#, true),
        (r#"{"messages":[1],"store":true}"#, true),
        (r#"{"messages":[],"messages":[]}"#, false),
        // A more lenient parser may see it.
        ("\u{feff}{}", true),
        ("[]", true),
    ] {
        assert_eq!(leaves(body), expected, "{body}");
    }
    assert!(!trim("x", &policy(1, 1, 0)).leaves_state);
}

#[test]
fn words_are_distinct_labels() {
    let words: std::collections::BTreeSet<_> = Untouched::ALL.iter().map(|reason| reason.word()).collect();
    assert_eq!(words.len(), Untouched::ALL.len());
}

fn raw_messages(body: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Chat<'a> {
        #[serde(borrow)]
        messages: Vec<&'a RawValue>,
    }
    let chat: Chat<'_> = serde_json::from_slice(body).unwrap();
    chat.messages.into_iter().map(|message| message.get().to_owned()).collect()
}

fn role(message: &str) -> String {
    serde_json::from_str::<Value>(message).unwrap()["role"].as_str().unwrap().to_owned()
}

fn content() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\ud83d\ude00 \" ] } , { [ \\""#.to_owned()),
        Just(
            r#"[{"type":"text","text":"role"},{"type":"image_url","image_url":{"url":"data:,[{"}}]"#
                .to_owned()
        ),
        Just("123456789012345678901234567890".to_owned()),
        Just("null".to_owned()),
    ]
}

fn message(role: &'static str, rest: &'static str) -> impl Strategy<Value = String> {
    (content(), prop::sample::select(vec!["", " ", "\n\t"]), any::<bool>()).prop_map(
        move |(content, w, escape)| {
            let key = if escape { r"r\u006fle" } else { "role" };
            format!(r#"{{{w}"{key}"{w}:{w}"{role}"{w},"content":{w}{content}{rest}{w}}}"#)
        },
    )
}

/// One turn: a user message and what comes of it, tool calls with all of their results.
fn turn() -> impl Strategy<Value = Vec<String>> {
    let calls = r#","tool_calls":[{"id":"a"},{"id":"b"}]"#;
    let tool = || message("tool", r#","tool_call_id":"a""#);
    let parallel = (message("assistant", calls), tool(), tool()).prop_map(|(c, t, u)| vec![c, t, u]);
    let legacy =
        (message("assistant", r#","function_call":{"name":"x"}"#), message("function", r#","name":"x""#))
            .prop_map(|(f, r)| vec![f, r]);
    let single = prop_oneof![message("assistant", ""), message("developer", ""), message("system", "")];
    let step = prop_oneof![parallel, legacy, single.prop_map(|m| vec![m])];
    (message("user", ""), prop::collection::vec(step, 0..4))
        .prop_map(|(user, steps)| [vec![user], steps.concat()].concat())
}

fn history() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    let head = prop::collection::vec(prop_oneof![message("system", ""), message("developer", "")], 0..3);
    let first = prop::option::of(message("assistant", ""));
    let turns = prop::collection::vec(turn(), 1..8);
    (head, first, turns)
        .prop_map(|(head, first, turns)| (head, first.into_iter().chain(turns.concat()).collect()))
}

fn request(messages: &[String], white: &str) -> String {
    let separator = format!("{white},{white}");
    format!(r#"{{"n":1.0,{white}"messages":[{white}{}{white}],"seed":-0}}"#, messages.join(&separator))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_trimmed_request_is_a_conversation(
        (head, history) in history(),
        max in 0_usize..12,
        step in 0_usize..5,
        max_bytes in prop_oneof![Just(0_u64), 1_u64..3000],
        white in prop::sample::select(vec!["", " ", "\r\n\t "]),
    ) {
        let policy = policy(max, step, max_bytes);
        let whole = request(&[head.clone(), history.clone()].concat(), white);
        let reading = trim(&whole, &policy);
        prop_assert_eq!(reading.untouched, None);
        let removed = reading.removed;
        prop_assert_eq!(reading.forwarded, Some(history.len() - removed));
        let sent = spliced(&whole, &reading).unwrap_or_else(|| whole.clone().into_bytes());

        // Removed and kept are the original in order, everything else is identical.
        let kept = &history[removed..];
        prop_assert_eq!(std::str::from_utf8(&sent).unwrap(), request(&[head.clone(), kept.to_vec()].concat(), white));
        serde_json::from_slice::<&RawValue>(&sent).unwrap();

        // The last turn is there; a cut falls before a user turn; no result is without its call.
        let last_turn = history.iter().rposition(|message| role(message) == "user").unwrap();
        prop_assert!(removed <= last_turn);
        prop_assert!(removed == 0 || role(&kept[0]) == "user");

        // The limits hold wherever a user turn allows.
        let size = request(kept, white).len() - request(&[], white).len() + white.len();
        if removed < last_turn {
            prop_assert!(max == 0 || kept.len() <= max);
            prop_assert!(max_bytes == 0 || size as u64 <= max_bytes + 2 * white.len() as u64);
        }

        // Idempotent.
        let again = trim_bytes(&sent, &policy);
        prop_assert_eq!((again.removed, again.cut), (0, None));
    }

    #[test]
    fn the_cut_moves_only_every_step(
        (head, history) in history(),
        max in 1_usize..8,
        step in 1_usize..6,
    ) {
        let policy = policy(max, step, 0);
        let last_turn = history.iter().rposition(|message| role(message) == "user").unwrap();
        let step = step.min(max);
        let is_turn = |index: &usize| role(&history[*index]) == "user";
        for n in 1..=history.len() {
            let removed = trim(&request(&[&head[..], &history[..n]].concat(), ""), &policy).removed;
            // The first turn behind each multiple is where it may be cut, and the first of these that fits is.
            let steps = (1..=n / step).filter_map(|k| (k * step..n).find(is_turn));
            let fits = |cut: &usize| n - cut <= max;
            let expected = std::iter::once(0).chain(steps).find(fits);
            let any = || (0..n).filter(is_turn).find(fits);
            prop_assert_eq!(Some(removed), expected.or_else(any).or((0..n).rfind(is_turn)).or(Some(0)));
            prop_assert!(removed <= last_turn);
        }
    }

    #[test]
    fn never_panics(text in r#"(\{|\}|\[|\]|,|:|"messages"|"role"|"user"|1|\\){0,20}"#, max in 0_usize..3) {
        trim(&text, &policy(max, 1, 1));
    }
}

#[test]
fn thousands_of_turns_are_remembered_in_part() {
    // Of the history three turns fit that are not there.
    let turns = 5000;
    let body = body(&"ua".repeat(turns));
    let whole = trim(&body, &policy(0, 1, 0));
    assert_eq!((whole.removed, whole.untouched), (0, None));
    for kept in [4000, 2500, 1500, 500, 2] {
        for step in [1, 10, 1000] {
            let removed = trim(&body, &policy(2 * kept, step, 0)).removed;
            let step = step.min(2 * kept);
            // Every fourth turn at least is a place, or every eighth step.
            let coarse = if step > 1 { 8 * step.next_multiple_of(2) } else { 16 };
            let least = 2 * (turns - kept);
            assert!((least..least + coarse).contains(&removed), "{kept} {step}: {removed}, {least}");
        }
    }
}

#[test]
fn tools_and_settings_of_responses_lead_as_messages_of_the_authors_do() {
    let policy = Policy { dialect: Dialect::Responses, ..policy(1, 1, 0) };
    let head =
        r#"{"type":"additional_tools","role":"developer","tools":[]},{"role":"developer","content":"d"}"#;
    let history =
        r#"{"role":"user","content":"1"},{"role":"assistant","content":"2"},{"role":"user","content":"3"}"#;
    let body = format!(r#"{{"input":[{head},{history}]}}"#);
    let reading = trim(&body, &policy);
    assert_eq!((reading.forwarded, reading.removed), (Some(1), 2));
    let kept = String::from_utf8(spliced(&body, &reading).unwrap()).unwrap();
    assert_eq!(kept, format!(r#"{{"input":[{head},{{"role":"user","content":"3"}}]}}"#));
    for truncation in [r#""auto""#, r#""\u0061uto""#] {
        let body = body.replace("{\"input\"", &format!("{{\"truncation\":{truncation},\"input\""));
        assert_eq!(trim(&body, &policy).untouched, Some(Untouched::ServerState));
    }
}
