//! Items of Responses.

use super::write::{AUDIO, FILE, IMAGE, Writer};
use super::{Made, Maker, Role};
use crate::strict::id_out_of;

/// Calls and their outputs, and which members hold what is done and what came of it.
const PAIRS: [(&str, &str, &str, &str); 9] = [
    ("function_call", "function_call_output", "arguments", "fc"),
    ("function_call", "function_call_output", "arguments", "fc"),
    ("custom_tool_call", "custom_tool_call_output", "input", "ctc"),
    ("computer_call", "computer_call_output", "action", "cu"),
    ("local_shell_call", "local_shell_call_output", "action", "lsh"),
    ("shell_call", "shell_call_output", "action", "sh"),
    ("apply_patch_call", "apply_patch_call_output", "operation", "apc"),
    ("tool_search_call", "tool_search_output", "arguments", "tsc"),
    ("program", "program_output", "code", "prog"),
];

/// What the vendor did on the way.
const HOSTED: [&str; 6] = [
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "mcp_list_tools",
];

/// Outputs that the vendor itself has, or that nobody has to wait for: they come at once.
const IMPATIENT: [&str; 2] = ["tool_search_output", "program_output"];

impl Maker {
    pub(super) fn responses_head(&mut self) {
        for _ in 0..self.writer.pick(&[0, 0, 0, 1, 1, 2]) {
            self.responses_author();
        }
    }

    pub(super) fn responses_author(&mut self) {
        let role = self.writer.pick(&["system", "developer"]);
        let content = self.responses_content(false);
        self.responses_message(role, content, None);
    }

    pub(super) fn responses_ask(&mut self) {
        let content = self.responses_content(true);
        self.responses_message("user", content, None);
        if !self.late.is_empty() && self.writer.once_in(2) {
            self.catch_up();
        }
    }

    pub(super) fn responses_answer(&mut self, calls: bool) {
        let reasoning = self.responses_reasoning();
        if self.writer.once_in(8) {
            self.responses_hosted(reasoning.as_deref());
        }
        if !calls {
            self.responses_said(reasoning.as_deref());
            return;
        }
        if self.writer.once_in(10) {
            self.responses_approval();
            return;
        }
        let count = self.writer.pick(&[1, 1, 1, 2, 3]);
        let waiting = std::mem::take(&mut self.late).into_iter().map(|output| (output, true));
        let mut outputs: Vec<(Made, bool)> = waiting.collect();
        outputs.extend((0..count).map(|n| self.responses_call(reasoning.as_deref(), n)));
        self.writer.rng.shuffle(&mut outputs);
        // Some come only when others have spoken.
        let wait = self.taste.late && reasoning.is_none() && self.writer.once_in(8);
        for (output, may_wait) in outputs {
            let place = if wait && may_wait { &mut self.late } else { &mut self.made };
            place.push(output);
        }
        if wait && self.writer.once_in(2) {
            self.responses_said(None);
        }
    }

    /// Whatever still waits for its output gets it.
    pub(crate) fn catch_up(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.made.extend(late);
    }

    /// Reasoning that what comes next came out of.
    fn responses_reasoning(&mut self) -> Option<String> {
        if !self.taste.thinks || self.writer.once_in(3) {
            return None;
        }
        let id = self.writer.id("rs");
        let w = &mut self.writer;
        let summary = w.text();
        let summary = w.object(&[("type", "\"summary_text\"".to_owned()), ("text", summary)]);
        let mut members =
            vec![("type", w.string("reasoning")), ("id", w.string(&id)), ("summary", w.array(&[summary]))];
        let signature = Writer::unsigned();
        members.push(("encrypted_content", w.no_text(signature, 0)));
        let text = w.object(&members);
        self.thinking = 1;
        self.push(Role::Other, text);
        Some(id)
    }

    fn responses_id(&mut self, prefix: &str, reasoning: Option<&str>, n: usize) -> String {
        let id =
            reasoning.map_or_else(|| self.writer.id(prefix), |reasoning| id_out_of(prefix, reasoning, n));
        self.writer.string(&id)
    }

    fn responses_said(&mut self, reasoning: Option<&str>) {
        if reasoning.is_none() && self.writer.once_in(3) {
            let content = self.writer.loose_text();
            self.responses_message("assistant", content, None);
            return;
        }
        let w = &mut self.writer;
        let (kind, name) = if w.once_in(12) { ("refusal", "refusal") } else { ("output_text", "text") };
        let mut part = vec![("type", w.string(kind)), (name, w.loose_text())];
        if name == "text" {
            part.push(("annotations", "[]".to_owned()));
        }
        let part = w.object(&part);
        let content = w.array(&[part]);
        let id = self.responses_id("msg", reasoning, 90);
        self.responses_message("assistant", content, Some(id));
    }

    /// A call. Its output is returned, and whether it may come late.
    fn responses_call(&mut self, reasoning: Option<&str>, n: usize) -> (Made, bool) {
        let (call, output, doing, prefix) = self.writer.pick(&PAIRS);
        let id = self.responses_id(prefix, reasoning, n);
        let link = self.writer.id("call");
        let w = &mut self.writer;
        let linked = w.string(&link);
        let mut members = vec![("type", w.string(call)), ("id", id), ("call_id", linked)];
        members.push((
            doing,
            if doing == "action" || doing == "operation" { w.junk_object(2) } else { w.nested() },
        ));
        if call.starts_with("function") || call.starts_with("custom") {
            members.push(("name", w.string("look_up")));
        }
        if w.once_in(3) {
            members.push(("status", w.string("completed")));
        }
        let text = w.object(&members);
        self.push(Role::Other, text);
        (self.responses_output(output, &link), !IMPATIENT.contains(&output))
    }

    fn responses_output(&mut self, output: &str, link: &str) -> Made {
        let w = &mut self.writer;
        // The reference names a local shell's call by `id`, the guide by `call_id`.
        let by = if output == "local_shell_call_output" && w.once_in(2) { "id" } else { "call_id" };
        let mut members = vec![("type", w.string(output)), (by, w.string(link))];
        let (name, value) = match output {
            "function_call_output" if w.once_in(4) => ("output", self.responses_parts(true)),
            "computer_call_output" => {
                let url = format!("data:image/png;base64,{}", w.base64());
                let url = w.string(&url);
                let shown = ("image_url", w.no_text(url, IMAGE));
                let shot = w.object(&[("type", "\"computer_screenshot\"".to_owned()), shown]);
                ("output", shot)
            }
            "tool_search_output" => ("tools", w.junk(2)),
            "program_output" => ("result", w.loose_text()),
            "shell_call_output" => {
                let (out, err) = (w.loose_text(), w.loose_text());
                let chunk = w.object(&[("stdout", out), ("stderr", err)]);
                ("output", w.array(&[chunk]))
            }
            _ => ("output", w.loose_text()),
        };
        members.push((name, value));
        let text = self.writer.object(&members);
        self.push(Role::Other, text);
        self.made.pop().unwrap_or_else(super::made_of_string)
    }

    fn responses_approval(&mut self) {
        let id = self.writer.id("mcpr");
        let w = &mut self.writer;
        let quoted = w.string(&id);
        let arguments = w.nested();
        let asked = w.object(&[
            ("type", "\"mcp_approval_request\"".to_owned()),
            ("id", quoted.clone()),
            ("name", "\"look_up\"".to_owned()),
            ("server_label", "\"s\"".to_owned()),
            ("arguments", arguments),
        ]);
        let answered = w.object(&[
            ("type", "\"mcp_approval_response\"".to_owned()),
            ("approval_request_id", quoted),
            ("approve", "true".to_owned()),
        ]);
        self.push(Role::Other, asked);
        if self.writer.once_in(3) {
            self.asked = true;
        } else {
            self.push(Role::Other, answered);
        }
    }

    fn responses_hosted(&mut self, reasoning: Option<&str>) {
        let kind = self.writer.pick(&HOSTED);
        let id = self.responses_id("h", reasoning, 80);
        let w = &mut self.writer;
        let mut members = vec![("type", w.string(kind)), ("id", id), ("status", w.string("completed"))];
        match kind {
            "image_generation_call" => {
                let picture = w.base64();
                let picture = w.string(&picture);
                members.push(("result", w.no_text(picture, 0)));
            }
            "mcp_call" => members.push(("output", w.loose_text())),
            _ => members.push(("action", w.junk_object(2))),
        }
        let text = w.object(&members);
        self.push(Role::Other, text);
    }

    fn responses_message(&mut self, role: &str, content: String, id: Option<String>) {
        let w = &mut self.writer;
        let mut members = vec![("role", w.string(role)), ("content", content)];
        match w.rng.u8(..4) {
            0 | 1 => members.push(("type", w.string("message"))),
            2 if id.is_none() => members.push(("type", "null".to_owned())),
            _ => {}
        }
        if let Some(id) = id {
            members.push(("id", id));
        }
        self.mark(&mut members);
        let text = self.writer.object(&members);
        let speaker = match role {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Author,
        };
        self.push(speaker, text);
    }

    fn responses_content(&mut self, asks: bool) -> String {
        if self.writer.once_in(2) { self.writer.loose_text() } else { self.responses_parts(asks) }
    }

    fn responses_parts(&mut self, asks: bool) -> String {
        let count = self.writer.rng.usize(1..4);
        let parts: Vec<String> = (0..count).map(|_| self.responses_part(asks)).collect();
        self.writer.array(&parts)
    }

    fn responses_part(&mut self, asks: bool) -> String {
        let kind = if asks { self.writer.rng.u8(..7) } else { 0 };
        let w = &mut self.writer;
        let (kind, name, value) = match kind {
            3 => {
                let url = format!("data:image/png;base64,{}", w.base64());
                let url = w.string(&url);
                ("input_image", "image_url", w.no_text(url, IMAGE))
            }
            4 => {
                let data = w.base64();
                let (data, format) = (w.string(&data), w.string("mp3"));
                let audio = w.object(&[("data", data), ("format", format)]);
                ("input_audio", "input_audio", w.no_text(audio, AUDIO))
            }
            5 => {
                let data = w.base64();
                let data = w.string(&data);
                ("input_file", "file_data", w.no_text(data, FILE))
            }
            _ => ("input_text", "text", w.loose_text()),
        };
        let mut members = vec![("type", w.string(kind)), (name, value)];
        self.mark(&mut members);
        self.writer.object(&members)
    }
}
