//! What is decided about every failure, written from the design and not from the code.
//!
//! A cell says how many attempts are made of a request of that class while the failure lasts, and the word under which
//! the retry that is not made is counted; no word where nothing is counted. `ok`: the answer is 200 and whole. `cut`: 200,
//! and its content breaks off. `-`: there is no such failure in that class.

use super::failures::At;
use super::failures::Cause::{
    self, Bill, BreakerOpen, BudgetEmpty, Cut, FirstEvent, Full, GoAway, Handshake, LaterEvent, Refused,
    RefusedStream, Reused, Status, Unanswered, Unresolved, Untrusted,
};
use crate::support::relay::Does::{Close, Reset, Stall};

/// A failure, in all the ways that must come to the same.
pub(super) struct Row {
    pub(super) failure: &'static str,
    pub(super) causes: &'static [Cause],
    /// Fields of the request.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// Lines of the route's configuration.
    pub(super) lines: &'static [&'static str],
    /// A line of the whole configuration.
    pub(super) top: &'static str,
    /// The word under which a retry is counted.
    pub(super) reason: &'static str,
    /// What the client gets while it lasts.
    pub(super) answer: &'static str,
    /// By class.
    pub(super) cells: [&'static str; 6],
}

const fn row(
    failure: &'static str,
    causes: &'static [Cause],
    reason: &'static str,
    answer: &'static str,
    cells: [&'static str; 6],
) -> Row {
    Row { failure, causes, fields: &[], lines: &[], top: "", reason, answer, cells }
}

impl Row {
    const fn asked(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.fields = fields;
        self
    }

    const fn limited(mut self, top: &'static str) -> Self {
        self.top = top;
        self
    }

    const fn configured(mut self, lines: &'static [&'static str]) -> Self {
        self.lines = lines;
        self
    }
}

const fn plain(status: u16) -> Cause {
    Status(status, &[])
}

const UNAVAILABLE: &[Cause] = &[plain(503)];
const PASSED_ON: &str = "as it came";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    //   how it failed; how it comes about; what a retry is counted as; what the client gets if it lasts
    //       search      embedding   write by id  chat       leaves state  other
    row("the name does not resolve", &[Unresolved], "never_sent", "502 `dns_error`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent"]),
    row("the connection is refused", &[Refused], "never_sent", "502 `connection_refused`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent"]),
    row("no connection within `connect`", &[Unanswered], "never_sent", "504 `connection_timeout`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent"]),
    row("the TLS handshake breaks off", &[Handshake(Close), Handshake(Reset)], "never_sent", "502 `tls_protocol_error`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent"]),
    row("the certificate does not verify", &[Untrusted], "", "502 `tls_certificate_error`",
        ["1",        "1",        "1",        "1",        "1",        "1"]),
    row("HTTP/2: REFUSED_STREAM, or a graceful GOAWAY before the request's stream", &[RefusedStream, GoAway(0)],
        "never_sent", "502 `connection_terminated`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent"]),
    row("HTTP/2: GOAWAY with an error", &[GoAway(2)], "reset", "502 `connection_terminated`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "1 class",  "1 class"]),
    row("a reused connection ends before a byte of the answer", &[Reused(Close), Reused(Reset)], "reused",
        "200, or 502 `connection_terminated`",
        ["2 ok",     "2 ok",     "2 ok",     "2 ok",     "1 class",  "1 class"]),
    row("a new connection ends before a byte of the answer", &[Cut(At::Head, Close), Cut(At::Head, Reset)], "reset",
        "502 `connection_terminated`",
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "1 class",  "1 class"]),
    row("it ends within the content", &[Cut(At::Content, Close), Cut(At::Content, Reset)], "reset",
        "502 `http_response_incomplete`, or 200 and cut off",
        ["4 spent",  "4 spent",  "4 spent",  "1 cut",    "1 cut",    "1 cut"]),
    row("no head within `first_byte`", &[Cut(At::Head, Stall)], "timeout", "504 `http_response_timeout`",
        ["4 spent",  "4 spent",  "4 spent",  "1 class",  "1 class",  "1 class"]),
    row("no further content within `idle`", &[Cut(At::Content, Stall)], "timeout",
        "504 `http_response_timeout`, or 200 and cut off",
        ["4 spent",  "4 spent",  "4 spent",  "1 cut",    "1 cut",    "1 cut"]),
    row("408, 409, 500, 502, 504, 529",
        &[plain(408), plain(409), plain(500), plain(502), plain(504), plain(529)], "status", PASSED_ON,
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "1 class",  "1 class"]),
    row("503", UNAVAILABLE, "status", PASSED_ON,
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "1 class"]),
    row("429", &[plain(429)], "too_many_requests", PASSED_ON,
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "4 spent",  "1 class"]),
    row("429 about billing", &[Bill], "", PASSED_ON,
        ["1 billing", "1 billing", "1 billing", "1 billing", "1 billing", "1 billing"]),
    row("400, 401, 404, 413, 422, 425, 501, 505, 511",
        &[plain(400), plain(401), plain(404), plain(413), plain(422), plain(425), plain(501), plain(505), plain(511)],
        "", PASSED_ON,
        ["1",        "1",        "1",        "1",        "1",        "1"]),
    row("an error of the upstream's own as the first event of a stream", &[FirstEvent("server_error")], "stream_error",
        PASSED_ON,
        ["-",        "-",        "-",        "4 spent",  "1",        "-"]),
    row("the connection ends before the first event of a stream",
        &[Cut(At::FirstEvent, Close), Cut(At::FirstEvent, Reset)], "reset",
        "502 `http_response_incomplete`, or 200 and cut off",
        ["-",        "-",        "-",        "4 spent",  "1 cut",    "-"]),
    row("an error about billing as the first event", &[FirstEvent("insufficient_quota")], "", PASSED_ON,
        ["-",        "-",        "-",        "1 billing", "1",       "-"]),
    row("an error of the request as the first event", &[FirstEvent("invalid_request_error")], "", PASSED_ON,
        ["-",        "-",        "-",        "1",        "1",        "-"]),
    row("an error as a later event", &[LaterEvent("server_error"), LaterEvent("invalid_request_error")], "", PASSED_ON,
        ["-",        "-",        "-",        "1",        "1",        "-"]),
    row("503 with `x-should-retry: false`", &[Status(503, &[("x-should-retry", "false")])], "", PASSED_ON,
        ["1 upstream_says_no", "1 upstream_says_no", "1 upstream_says_no", "1 upstream_says_no",
         "1 upstream_says_no", "1 upstream_says_no"]),
    row("400 with `x-should-retry: true`", &[Status(400, &[("x-should-retry", "true")])], "status", PASSED_ON,
        ["4 spent",  "4 spent",  "4 spent",  "4 spent",  "1 class",  "1 class"]),
    row("503 with a `Retry-After` beyond `max_wait`", &[Status(503, &[("retry-after", "30")])], "", PASSED_ON,
        ["1 max_wait", "1 max_wait", "1 max_wait", "1 max_wait", "1 max_wait", "1 class"]),
    row("503 with a `Retry-After` beyond the client's own deadline", &[Status(503, &[("retry-after-ms", "900")])], "",
        PASSED_ON,
        ["1 deadline", "1 deadline", "1 deadline", "1 deadline", "1 deadline", "1 class"])
        .asked(&[("x-stainless-read-timeout", "0.9")]),
    row("no head within the client's own deadline", &[Cut(At::Head, Stall)], "", "504 `http_response_timeout`",
        ["1 deadline", "1 deadline", "1 deadline", "1 deadline", "1 deadline", "1 deadline"])
        .asked(&[("x-stainless-read-timeout", "2")]),
    row("503 to the second retry of an SDK", UNAVAILABLE, "status", PASSED_ON,
        ["2 spent",  "2 spent",  "2 spent",  "2 spent",  "2 spent",  "1 class"])
        .asked(&[("x-stainless-retry-count", "2")]),
    row("503 to a request with `Pillion-Retry: off`", UNAVAILABLE, "", PASSED_ON,
        ["1 disabled", "1 disabled", "1 disabled", "1 disabled", "1 disabled", "1 class"])
        .asked(&[("pillion-retry", "off")]),
    row("503 while the budget is empty", &[BudgetEmpty], "", PASSED_ON,
        ["1 budget", "1 budget", "1 budget", "1 budget", "1 budget", "1 class"])
        .configured(&["breaker: {enabled: false}"]),
    row("the breaker is open", &[BreakerOpen], "", "503 `destination_unavailable`",
        ["0",        "0",        "0",        "0",        "0",        "0"])
        .configured(&["breaker: {open: 1h, max_open: 1h}"]),
    row("as many requests as `max_in_flight` are under way", &[Full], "", "503 `connection_limit_reached`",
        ["0",        "0",        "0",        "0",        "0",        "0"])
        .limited("limits: {max_in_flight: 1}"),
    row("503 to content larger than `replay_body`", UNAVAILABLE, "", PASSED_ON,
        ["1 size",   "1 size",   "1 size",   "1 size",   "1 size",   "1 class"])
        .configured(&["limits: {replay_body: 8B}"]),
    row("503 to content that `memory.buffers` had no room for", UNAVAILABLE, "", PASSED_ON,
        ["1 memory", "1 memory", "1 memory", "1 memory", "1 memory", "1 class"])
        .limited("memory: {buffers: 8B}"),
];
