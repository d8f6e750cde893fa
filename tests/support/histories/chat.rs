//! Messages of chat completions.

use super::write::{AUDIO, FILE, IMAGE, Writer};
use super::{Maker, Role};

impl Maker {
    pub(super) fn chat_head(&mut self) {
        for _ in 0..self.writer.pick(&[0, 0, 1, 1, 1, 2, 3]) {
            self.chat_author();
        }
    }

    pub(super) fn chat_author(&mut self) {
        let role = self.writer.pick(&["system", "developer"]);
        let content = self.chat_content(false);
        self.chat_message(role, Some(content), Vec::new());
    }

    pub(super) fn chat_ask(&mut self) {
        let content = self.chat_content(true);
        let mut more = Vec::new();
        if self.writer.once_in(8) {
            more.push(("name", self.writer.text()));
        }
        self.chat_message("user", Some(content), more);
    }

    pub(super) fn chat_answer(&mut self, calls: bool) {
        if !calls {
            if self.writer.once_in(12) {
                let refusal = self.writer.text();
                self.chat_message("assistant", Some("null".to_owned()), vec![("refusal", refusal)]);
            } else {
                let content = self.chat_content(false);
                let more = self.chat_thinking();
                self.chat_message("assistant", Some(content), more);
            }
        } else if self.writer.once_in(5) {
            self.chat_function();
        } else {
            self.chat_tools();
        }
    }

    /// How gateways hand on what others have signed.
    fn chat_thinking(&mut self) -> Vec<(&'static str, String)> {
        if !self.taste.thinks || self.writer.once_in(3) {
            return Vec::new();
        }
        self.thinking += 1;
        let name = self.writer.pick(&["thinking_blocks", "reasoning_details"]);
        let thought = self.writer.text();
        let signature = Writer::unsigned();
        let block = self.writer.object(&[
            ("type", "\"thinking\"".to_owned()),
            ("thinking", thought),
            ("signature", signature),
        ]);
        vec![(name, self.writer.array(&[block]))]
    }

    fn chat_tools(&mut self) {
        let ids: Vec<String> =
            (0..self.writer.pick(&[1, 1, 1, 2, 3, 5])).map(|_| self.writer.id("call")).collect();
        let calls: Vec<String> = ids.iter().map(|id| self.chat_call(id)).collect();
        let mut more = self.chat_thinking();
        more.push(("tool_calls", self.writer.array(&calls)));
        if self.writer.once_in(8) {
            more.push(("function_call", "null".to_owned()));
        }
        let content = match self.writer.rng.u8(..4) {
            0 => None,
            1 => Some(self.chat_content(false)),
            _ => Some("null".to_owned()),
        };
        self.chat_message("assistant", content, more);
        let mut order: Vec<usize> = (0..ids.len()).collect();
        self.writer.rng.shuffle(&mut order);
        for place in order {
            let id = self.writer.string(&ids[place]);
            let content = self.chat_content(false);
            self.chat_message("tool", Some(content), vec![("tool_call_id", id)]);
        }
    }

    fn chat_call(&mut self, id: &str) -> String {
        let w = &mut self.writer;
        let (kind, inner) = if w.once_in(6) { ("custom", "input") } else { ("function", "arguments") };
        let (id, name, arguments) = (w.string(id), w.string("look_up"), w.nested());
        let called = w.object(&[("name", name), (inner, arguments)]);
        let quoted = w.string(kind);
        w.object(&[("id", id), ("type", quoted), (kind, called)])
    }

    fn chat_function(&mut self) {
        let (name, arguments) = (self.writer.string("look_up"), self.writer.nested());
        let called = self.writer.object(&[("name", name.clone()), ("arguments", arguments)]);
        self.chat_message("assistant", Some("null".to_owned()), vec![("function_call", called)]);
        let content = self.writer.loose_text();
        self.chat_message("function", Some(content), vec![("name", name)]);
    }

    fn chat_message(&mut self, role: &str, content: Option<String>, more: Vec<(&str, String)>) {
        let mut members = vec![("role", self.writer.string(role))];
        members.extend(content.map(|content| ("content", content)));
        members.extend(more);
        self.mark(&mut members);
        if self.writer.once_in(10) {
            members.push(("x_more", self.writer.junk(3)));
        }
        let text = self.writer.object(&members);
        let speaker = match role {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Result,
            _ => Role::Author,
        };
        self.push(speaker, text);
    }

    fn chat_content(&mut self, asks: bool) -> String {
        if !self.writer.once_in(3) {
            return self.writer.loose_text();
        }
        let count = self.writer.rng.usize(1..4);
        let parts: Vec<String> = (0..count).map(|_| self.chat_part(asks)).collect();
        self.writer.array(&parts)
    }

    fn chat_part(&mut self, asks: bool) -> String {
        let kind = if asks { self.writer.rng.u8(..6) } else { 0 };
        let w = &mut self.writer;
        let (kind, name, value) = match kind {
            3 => {
                let url = format!("data:image/png;base64,{}", w.base64());
                let (url, detail) = (w.string(&url), w.string("high"));
                let image = w.object(&[("url", url), ("detail", detail)]);
                ("image_url", "image_url", w.no_text(image, IMAGE))
            }
            4 => {
                let data = w.base64();
                let (data, format) = (w.string(&data), w.string("wav"));
                let audio = w.object(&[("data", data), ("format", format)]);
                ("input_audio", "input_audio", w.no_text(audio, AUDIO))
            }
            5 => {
                let data = w.base64();
                let (data, name) = (w.string(&data), w.text());
                let file = w.object(&[("file_data", data), ("filename", name)]);
                ("file", "file", w.no_text(file, FILE))
            }
            _ => ("text", "text", w.loose_text()),
        };
        let mut members = vec![("type", w.string(kind)), (name, value)];
        self.mark(&mut members);
        self.writer.object(&members)
    }
}
