// Another tokenizer as an oracle for the window's tokens: of 300 random conversations exactly those turns are forwarded
// that js-tiktoken finds room for. A message costs 3 and the tokens of every string in it.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { Tiktoken } from "js-tiktoken/lite";
import cl100k from "js-tiktoken/ranks/cl100k_base";
import o200k from "js-tiktoken/ranks/o200k_base";
import { runPillion } from "./harness.mjs";

const CONVERSATIONS = 300;
const rooms = [25, 80, 200, 500, 1200];
const models = { "gpt-4o": new Tiktoken(o200k), "gpt-4": new Tiktoken(cl100k) };

const phrases = [
  "The quick brown fox jumps over the lazy dog.",
  "I'll say it's what they'd've DONE, WE'RE sure.",
  "Wie heißt der größte Fluß Österreichs? Donaudampfschifffahrtsgesellschaft!",
  "Où est passé l’été ? À Noël, peut-être…",
  "¿Cuántos años tienes, señor Muñoz?",
  "В чащах юга жил бы цитрус? Да, но фальшивый экземпляр!",
  "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。",
  "色は匂へど散りぬるを、カタカナとＦＵＬＬ幅も。",
  "키스의 고유조건은 입술끼리 만나야 하고",
  "نص حكيم له سر قاطع وذو شأن عظيم",
  "זה כיף סתם לשמוע איך תנצח קרפד",
  "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
  "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
  "🙂👍🏽👩‍👩‍👧‍👦🇦🇹 ✈️ 🏳️‍🌈",
  "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
  "def f(x):\n    if x > 10_000:\n        return {'a': [1, 2, 3]}\n\treturn None\n\n\n",
  'SELECT * FROM "users" WHERE id IN (1, 22, 333, 4444) -- \\o/\r\n',
  "for (let i = 0; i < 1e9; i++) { a[i] ??= `${i}`; }\n\n  // done",
  "<div class=\"x\"><p>&nbsp;</p></div>\n<|endoftext|>",
  "https://example.org/a/b?c=d%20e&f=1234567890#g",
  "     lots   of\t\tspace \n \n\n   ",
  "snake_case camelCase HTTPServer2 x=-1.5e-10 0xDEADBEEF",
  "∑∫√∞ ≠ ≤ ≥ → ⇒ ½ ² ™ © № ﷽",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "....................----------------====!!!!????",
];

// A seeded source of numbers below n.
function dice(seed) {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % n;
  };
}

function invent(roll) {
  const some = (most, make) => Array.from({ length: 1 + roll(most) }, make);
  const text = () => some(3, () => phrases[roll(phrases.length)]).join([" ", "", "\n"][roll(3)]);
  const say = (role) => {
    const content = roll(6) ? text() : some(2, () => ({ type: "text", text: text() }));
    return { role, content, ...(roll(8) ? {} : { name: "zoë_42" }) };
  };
  const messages = roll(2) ? [say("system")] : [];
  const turns = 1 + roll(12);
  for (let turn = 0; turn < turns; turn += 1) {
    messages.push(say("user"));
    if (turn < turns - 1) messages.push(...some(2, () => say("assistant")));
  }
  return messages;
}

// Special tokens are text here: nothing that a user writes is one.
function tokens(encoding, { role, content, name }) {
  const texts = [role, ...(typeof content === "string" ? [content] : content.map(({ text }) => text))];
  if (name) texts.push(name);
  return 3 + sum(texts.map((text) => encoding.encode(text, [], []).length));
}

const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);

// Lengthens the last message until the longest suffix that there is room for takes all of it, or one token more: then
// no text of it can be counted wrong by one without another suffix being forwarded.
function fill(encoding, messages, room, over) {
  const costs = messages.map((message) => tokens(encoding, message));
  const start = messages.findIndex(({ role }, n) => role === "user" && sum(costs.slice(n)) <= room);
  if (start === -1) return;
  const last = messages.at(-1);
  const part = typeof last.content === "string" ? last : last.content.at(-1);
  const member = part === last ? "content" : "text";
  const others = sum(costs.slice(start, -1));
  for (let tries = 0; tries < 5; tries += 1) {
    const missing = room + over - others - tokens(encoding, last);
    part[member] += " a".repeat(Math.max(0, missing));
  }
}

// The longest suffix of whole turns that there is room for, the last one in any case, behind the head.
function expected(encoding, messages, room) {
  const head = messages.findIndex(({ role }) => role !== "system");
  const turns = messages.flatMap(({ role }, n) => (role === "user" ? [n] : []));
  const costs = messages.map((message) => tokens(encoding, message));
  const fits = (start) => sum(costs.slice(start)) <= room;
  return [...messages.slice(0, head), ...messages.slice(turns.find(fits) ?? turns.at(-1))];
}

// Answers with what it was sent.
async function startEcho(t) {
  const server = createServer(async (request, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    for await (const piece of request) response.write(piece);
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${server.address().port}`;
}

test("the turns that there is room for", { timeout: 120_000 }, async (t) => {
  const echo = await startEcho(t);
  const route = (room) =>
    `  - {name: room-${room}, path: /${room}, upstream: "${echo}", preset: openai,
     window: {max_messages: 0, max_tokens: ${room}}}\n`;
  const { data } = await runPillion(t, rooms.map(route).join(""));
  const found = { whole: 0, cut: 0, last: 0 };
  for (let seed = 1; seed <= CONVERSATIONS; seed += 1) {
    const roll = dice(seed);
    const messages = invent(roll);
    const room = rooms[roll(rooms.length)];
    const model = Object.keys(models)[roll(2)];
    if (roll(3)) fill(models[model], messages, room, roll(2));
    let body = JSON.stringify({ model, messages });
    if (roll(2)) body = body.replace(/[^\0-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

    const headers = { "content-type": "application/json", authorization: "Bearer sk-test" };
    const answer = await fetch(`${data}/${room}/v1/chat/completions`, { method: "POST", headers, body });

    const wanted = expected(models[model], messages, room);
    const forwarded = (await answer.json()).messages;
    const costs = messages.map((message) => tokens(models[model], message));
    assert.deepEqual(forwarded, wanted, `seed ${seed}, ${model}, max_tokens ${room}, messages of ${costs} tokens`);
    const users = wanted.filter(({ role }) => role === "user").length;
    found[wanted.length === messages.length ? "whole" : users > 1 ? "cut" : "last"] += 1;
  }
  t.diagnostic(`of ${CONVERSATIONS} conversations ${JSON.stringify(found)}`);
  for (const [kind, count] of Object.entries(found)) assert.ok(count >= 30, `${kind}: ${count}`);
});
