//! Another parser's word on what is forwarded: Python's, which shows members that come twice and leaves numbers as they
//! are spelled.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::strict::Dialect;

/// Whether each pair, a body and what is forwarded in its place, differs by messages in front and by nothing else.
pub(crate) fn agrees(dialect: Dialect, pairs: &[(Vec<u8>, Vec<u8>)]) {
    let mut python = Command::new("python3")
        .args(["-c", include_str!("agrees.py"), dialect.member()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("python3, which has the last word here, does not start: {error}"));
    let mut input = python.stdin.take().unwrap();
    for body in pairs.iter().flat_map(|(whole, sent)| [whole, sent]) {
        // Where it has ended there is an answer to that below.
        let _ = input.write_all(&(body.len() as u32).to_be_bytes()).and_then(|()| input.write_all(body));
    }
    drop(input);
    let output = python.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{dialect:?}: {told}");
    assert_eq!(told.trim(), pairs.len().to_string(), "{dialect:?}");
}
