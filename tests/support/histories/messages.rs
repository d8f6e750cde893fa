//! Messages of Anthropic's API.

use super::write::{FILE, IMAGE, Writer};
use super::{Maker, Role};

impl Maker {
    pub(super) fn messages_head(&mut self) {
        for _ in 0..self.writer.pick(&[0, 0, 0, 0, 1, 2]) {
            self.messages_author();
        }
    }

    pub(super) fn messages_author(&mut self) {
        let content = self.messages_text();
        self.messages_message("system", content);
    }

    pub(super) fn messages_ask(&mut self) {
        let content = if self.writer.once_in(3) {
            let count = self.writer.rng.usize(1..4);
            let blocks: Vec<String> = (0..count).map(|_| self.messages_asked()).collect();
            self.writer.array(&blocks)
        } else {
            self.writer.text()
        };
        self.messages_message("user", content);
    }

    pub(super) fn messages_answer(&mut self, calls: bool) {
        let mut blocks = self.messages_thinking();
        if self.writer.once_in(8) {
            let [search, found] = self.messages_hosted();
            blocks.extend([search, found]);
        }
        if !calls {
            if blocks.is_empty() && self.writer.once_in(2) {
                let content = self.writer.text();
                self.messages_message("assistant", content);
                return;
            }
            blocks.push(self.messages_block());
            let content = self.writer.array(&blocks);
            self.messages_message("assistant", content);
            return;
        }
        if self.writer.once_in(3) {
            blocks.push(self.messages_block());
        }
        let ids: Vec<String> =
            (0..self.writer.pick(&[1, 1, 1, 2, 3, 5])).map(|_| self.writer.id("toolu")).collect();
        for id in &ids {
            let (id, name, input) =
                (self.writer.string(id), self.writer.string("look_up"), self.writer.junk_object(3));
            let mut members =
                vec![("type", self.writer.string("tool_use")), ("id", id), ("name", name), ("input", input)];
            self.mark(&mut members);
            blocks.push(self.writer.object(&members));
        }
        let content = self.writer.array(&blocks);
        self.messages_message("assistant", content);
        self.messages_results(ids);
    }

    fn messages_results(&mut self, mut ids: Vec<String>) {
        self.writer.rng.shuffle(&mut ids);
        // Two messages of the user's in a row are one to the vendor.
        let split = if ids.len() > 1 && self.writer.once_in(8) {
            self.writer.rng.usize(1..ids.len())
        } else {
            ids.len()
        };
        let second = ids.split_off(split);
        let is_split = !second.is_empty();
        for ids in [ids, second].iter().filter(|ids| !ids.is_empty()) {
            let mut blocks: Vec<String> = ids.iter().map(|id| self.messages_result(id)).collect();
            if !is_split && self.writer.once_in(6) {
                blocks.push(self.messages_asked());
            }
            let content = self.writer.array(&blocks);
            self.messages_written("user", content, Role::Result);
        }
    }

    fn messages_result(&mut self, id: &str) -> String {
        let mut members =
            vec![("type", self.writer.string("tool_result")), ("tool_use_id", self.writer.string(id))];
        match self.writer.rng.u8(..5) {
            0 => {}
            1 => {
                let count = self.writer.rng.usize(1..3);
                let parts: Vec<String> =
                    (0..count)
                        .map(|_| {
                            if self.writer.once_in(3) { self.messages_image() } else { self.messages_block() }
                        })
                        .collect();
                members.push(("content", self.writer.array(&parts)));
            }
            _ => members.push(("content", self.writer.loose_text())),
        }
        if self.writer.once_in(6) {
            members.push(("is_error", "true".to_owned()));
        }
        self.mark(&mut members);
        self.writer.object(&members)
    }

    fn messages_thinking(&mut self) -> Vec<String> {
        if !self.taste.thinks || self.writer.once_in(3) {
            return Vec::new();
        }
        let mut blocks = Vec::new();
        for _ in 0..if self.writer.once_in(6) { 2 } else { 1 } {
            let signature = Writer::unsigned();
            self.writer.opaque += signature.len() as u64;
            let members = if self.writer.once_in(5) {
                vec![("type", self.writer.string("redacted_thinking")), ("data", signature)]
            } else {
                let thought = self.writer.loose_text();
                vec![
                    ("type", self.writer.string("thinking")),
                    ("thinking", thought),
                    ("signature", signature),
                ]
            };
            blocks.push(self.writer.object(&members));
            self.thinking += 1;
        }
        blocks
    }

    /// What the vendor does itself, and what came of it.
    fn messages_hosted(&mut self) -> [String; 2] {
        let id = self.writer.id("srvtoolu");
        let w = &mut self.writer;
        let (quoted, name, input) = (w.string(&id), w.string("web_search"), w.junk_object(2));
        let search = w.object(&[
            ("type", "\"server_tool_use\"".to_owned()),
            ("id", quoted.clone()),
            ("name", name),
            ("input", input),
        ]);
        let content = w.base64();
        let content = w.string(&content);
        let found = w.no_text(content, 0);
        let (title, url) = (w.text(), w.string("https://example.com/"));
        let found = w.object(&[
            ("type", "\"web_search_result\"".to_owned()),
            ("title", title),
            ("url", url),
            ("encrypted_content", found),
        ]);
        let found = w.array(&[found]);
        let result = w.object(&[
            ("type", "\"web_search_tool_result\"".to_owned()),
            ("tool_use_id", quoted),
            ("content", found),
        ]);
        [search, result]
    }

    /// A block that a user may begin with.
    fn messages_asked(&mut self) -> String {
        match self.writer.rng.u8(..5) {
            0 => self.messages_image(),
            1 => {
                let data = self.writer.base64();
                let w = &mut self.writer;
                let (data, kind) = (w.string(&data), w.string("application/pdf"));
                let source =
                    w.object(&[("type", "\"base64\"".to_owned()), ("media_type", kind), ("data", data)]);
                let source = w.no_text(source, FILE);
                let title = w.text();
                let mut members = vec![("type", w.string("document")), ("source", source), ("title", title)];
                self.mark(&mut members);
                self.writer.object(&members)
            }
            _ => self.messages_block(),
        }
    }

    fn messages_image(&mut self) -> String {
        let data = self.writer.base64();
        let w = &mut self.writer;
        let (data, kind) = (w.string(&data), w.string("image/png"));
        let source = w.object(&[("type", "\"base64\"".to_owned()), ("media_type", kind), ("data", data)]);
        let source = w.no_text(source, IMAGE);
        let mut members = vec![("type", w.string("image")), ("source", source)];
        self.mark(&mut members);
        self.writer.object(&members)
    }

    fn messages_text(&mut self) -> String {
        if self.writer.once_in(2) {
            return self.writer.text();
        }
        let block = self.messages_block();
        self.writer.array(&[block])
    }

    fn messages_block(&mut self) -> String {
        let mut members = vec![("type", self.writer.string("text")), ("text", self.writer.text())];
        self.mark(&mut members);
        self.writer.object(&members)
    }

    fn messages_message(&mut self, role: &str, content: String) {
        let speaker = match role {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Author,
        };
        self.messages_written(role, content, speaker);
    }

    fn messages_written(&mut self, role: &str, content: String, speaker: Role) {
        let members = [("role", self.writer.string(role)), ("content", content)];
        let text = self.writer.object(&members);
        self.push(speaker, text);
    }
}
