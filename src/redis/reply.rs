//! What Redis answers.

use redis::Value;

/// An answer of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// A string.
    Bytes(Vec<u8>),
    /// Several.
    List(Vec<Reply>),
}

impl Reply {
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::Int(number) => Reply::Int(number),
            Value::BulkString(bytes) => Reply::Bytes(bytes),
            Value::SimpleString(text) => Reply::Bytes(text.into_bytes()),
            Value::Okay => Reply::Bytes(b"OK".to_vec()),
            Value::Array(values) => Reply::List(values.into_iter().map(Reply::of).collect()),
            // Nothing else comes of what is asked here, over version 2 of the protocol.
            _ => Reply::Nil,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Reply::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}
