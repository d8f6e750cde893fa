//! Signs the thinking of a conversation as the vendor would have, had each answer been to a request of which the window
//! left out what it leaves out.

use serde_json::Value;

use crate::histories::{History, UNSIGNED};
use crate::strict::Dialect;
use crate::strict::binding::Prefix;

/// `cut` says how many messages behind the head were left out when this one was the answer.
pub(crate) fn sign(history: &mut History, cut: impl Fn(usize) -> usize) {
    let dialect = history.dialect;
    if dialect == Dialect::Chat {
        return;
    }
    let mut request: Value = serde_json::from_slice(&history.body).unwrap();
    let Value::Array(mut elements) = request[dialect.member()].take() else { return };
    let head = history.head;
    // Grown on while the cut is where it was: a long conversation has much thinking.
    let mut grown: Option<(usize, usize, Prefix)> = None;
    for n in head..elements.len() {
        let element = history.elements[n].clone();
        if element.thinking == 0 {
            continue;
        }
        let from = head + cut(n - head);
        let kept = grown.take().filter(|(known, _, _)| *known == from);
        let (_, to, mut prefix) = kept.unwrap_or_else(|| {
            let mut prefix = Prefix::of(dialect, &request);
            elements[..head].iter().for_each(|element| prefix.add(dialect, element));
            (from, from, prefix)
        });
        elements[to..n].iter().for_each(|element| prefix.add(dialect, element));
        let mut at = element.span.start;
        let mut put = |signature: &str| {
            at += memchr::memmem::find(&history.body[at..], b"\"bound-").unwrap() + 1;
            history.body[at..at + UNSIGNED.len()].copy_from_slice(signature.as_bytes());
            at += UNSIGNED.len();
        };
        if dialect == Dialect::Responses {
            let signature = prefix.signature();
            put(&signature);
            elements[n]["encrypted_content"] = signature.into();
            prefix.add(dialect, &elements[n]);
        } else {
            prefix.role("assistant");
            for block in elements[n]["content"].as_array_mut().unwrap() {
                let member = match block["type"].as_str() {
                    Some("thinking") => "signature",
                    Some("redacted_thinking") => "data",
                    _ => "",
                };
                if !member.is_empty() {
                    let signature = prefix.signature();
                    put(&signature);
                    block[member] = signature.into();
                }
                prefix.block(block);
            }
        }
        grown = Some((from, n + 1, prefix));
    }
}
