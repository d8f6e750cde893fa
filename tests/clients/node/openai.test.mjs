// The official openai client for Node, through Pillion.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { startPillion, startStandIn } from "./harness.mjs";

const CHAT = "/v1/chat/completions";
const hello = [{ role: "user", content: "hello there" }];
const limit = { timeout: 60_000 };

async function start(t, options = { maxRetries: 0 }) {
  const standIn = await startStandIn(t);
  const pillion = await startPillion(t, standIn);
  const client = new OpenAI({ baseURL: `${pillion.data}/openai/v1`, apiKey: "sk-test", ...options });
  const direct = new OpenAI({ baseURL: `${standIn.llm}/v1`, apiKey: "sk-test", maxRetries: 0 });
  return { standIn, client, direct };
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new assert.AssertionError({ message: "the call succeeded" });
}

test("chat", limit, async (t) => {
  const { standIn, client } = await start(t);

  const { data, response } = await client.chat.completions.create({ model: "one", messages: hello }).withResponse();

  assert.equal(data.choices[0].message.content, "You said: hello there");
  assert.equal(data.usage.total_tokens, 11);
  assert.match(response.headers.get("x-response-time"), /^\d+\.\d{6}$/);
  assert.match(response.headers.get("server-timing"), /pillion;dur=/);
  const [call] = await standIn.calls(CHAT);
  assert.deepEqual(JSON.parse(call.body), { model: "one", messages: hello });
});

test("streamed chat", limit, async (t) => {
  const { client } = await start(t);

  const stream = await client.chat.completions.create({
    model: "one",
    messages: hello,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);

  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "You said: hello there");
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.total_tokens, 11);
});

test("embeddings", limit, async (t) => {
  const { standIn, client } = await start(t);

  const decoded = await client.embeddings.create({ model: "embedding", input: ["first", "second"] });
  const floats = await client.embeddings.create({
    model: "embedding",
    input: ["first", "second"],
    encoding_format: "float",
  });

  assert.equal(decoded.data.length, 2);
  for (const [n, item] of decoded.data.entries()) {
    assert.equal(item.embedding.length, 8);
    for (const [i, value] of item.embedding.entries()) {
      assert.ok(Math.abs(value - floats.data[n].embedding[i]) < 1e-6);
    }
  }
  const asked = (await standIn.calls("/v1/embeddings")).map((call) => JSON.parse(call.body).encoding_format);
  assert.deepEqual(asked, ["base64", "float"]);
});

for (const encoding of [undefined, "base64", "float"]) {
  test(`of a hundred texts with ninety known ten are asked for (${encoding})`, limit, async (t) => {
    const { standIn, client, direct } = await start(t);
    const texts = Array.from({ length: 100 }, (_, n) => `text ${n}`);
    const fresh = texts.filter((_, n) => n % 10 === 3);
    const known = texts.filter((text) => !fresh.includes(text));
    const format = encoding && { encoding_format: encoding };
    const ask = async (input) => {
      const { data, response } = await client.embeddings.create({ model: "embedding", input, ...format }).withResponse();
      return { ...data, status: response.headers.get("cache-status") };
    };

    const first = await ask(known);
    const merged = await ask(texts);
    const again = await ask(texts);

    assert.equal(first.status, 'pillion; fwd=miss; stored; detail="0/90"');
    assert.equal(merged.status, 'pillion; fwd=miss; stored; detail="90/100"');
    assert.match(again.status, /^pillion; hit; ttl=8[2-6]\d{3}$/);
    const asked = (await standIn.calls("/v1/embeddings")).map((call) => JSON.parse(call.body).input);
    assert.deepEqual(asked, [known, fresh]);
    const whole = await direct.embeddings.create({ model: "embedding", input: texts, ...format });
    assert.deepEqual(merged.data, whole.data);
    assert.deepEqual(again.data, whole.data);
    assert.deepEqual([merged.usage.total_tokens, again.usage.total_tokens], [10, 0]);
  });
}

test("models", limit, async (t) => {
  const { client } = await start(t);

  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);

  assert.deepEqual(ids, ["one", "two"]);
});

test("an upstream's error is the client's own class, its body unchanged", limit, async (t) => {
  const { standIn, client, direct } = await start(t);
  const classes = [
    ["bad-request", OpenAI.BadRequestError, "context_length_exceeded", 1],
    ["missing", OpenAI.NotFoundError, "model_not_found", 1],
    ["rate-limited", OpenAI.RateLimitError, "rate_limit_exceeded", 4],
    ["no-quota", OpenAI.RateLimitError, "insufficient_quota", 1],
    ["broken", OpenAI.InternalServerError, null, 4],
    ["overloaded", OpenAI.InternalServerError, null, 4],
  ];
  for (const [model, kind, code, attempts] of classes) {
    const before = (await standIn.calls(CHAT)).length;
    const through = await failure(client.chat.completions.create({ model, messages: hello }));
    const calls = (await standIn.calls(CHAT)).length - before;
    const plain = await failure(direct.chat.completions.create({ model, messages: hello }));

    assert.ok(through instanceof kind, `${model}: ${through}`);
    assert.equal(through.code, code);
    assert.equal(through.status, plain.status);
    assert.deepEqual(through.error, plain.error);
    assert.equal(calls, attempts, model);
  }
});

test("a wrong key is an authentication error", limit, async (t) => {
  const { client } = await start(t, { maxRetries: 0, apiKey: "sk-wrong" });

  const error = await failure(client.chat.completions.create({ model: "one", messages: hello }));

  assert.ok(error instanceof OpenAI.AuthenticationError, String(error));
  assert.equal(error.code, "invalid_api_key");
});

test("a passing failure is hidden from a client that does not retry", limit, async (t) => {
  const { standIn, client } = await start(t);

  const answer = await client.chat.completions.create({ model: "flaky-500-1-once", messages: hello });

  assert.equal(answer.choices[0].message.content, "You said: hello there");
  assert.equal((await standIn.calls(CHAT)).length, 2);
});

test("a client that would retry is told not to", limit, async (t) => {
  const { standIn, client } = await start(t, {});
  assert.equal(client.maxRetries, 2);

  const error = await failure(client.chat.completions.create({ model: "no-quota", messages: hello }));

  assert.ok(error instanceof OpenAI.RateLimitError, String(error));
  assert.equal(error.headers.get("x-should-retry"), "false");
  assert.equal((await standIn.calls(CHAT)).length, 1);
});

for (const [model, most] of [["broken", 4], ["reset", 4], ["no-quota", 1]]) {
  test(`its tries and Pillion's do not multiply (${model})`, limit, async (t) => {
    const { standIn, client } = await start(t, {});
    assert.equal(client.maxRetries, 2);

    const error = await failure(client.chat.completions.create({ model, messages: hello }));

    assert.ok(error instanceof OpenAI.APIError, String(error));
    const calls = (await standIn.calls(CHAT)).length;
    assert.ok(calls >= 1 && calls <= most, `${calls} upstream calls`);
  });
}

test("a long history arrives as its head and at most twenty messages", limit, async (t) => {
  const { standIn, client } = await start(t);
  const messages = [{ role: "system", content: "Be brief." }];
  for (let turn = 0; turn < 14; turn += 1) {
    messages.push({ role: "user", content: `question ${turn}` }, { role: "assistant", content: `answer ${turn}` });
  }
  messages.push({ role: "user", content: "the last question" });

  await client.chat.completions.create({ model: "one", messages });

  const [call] = await standIn.calls(CHAT);
  const [head, ...tail] = JSON.parse(call.body).messages;
  assert.deepEqual(head, messages[0]);
  assert.ok(tail.length >= 1 && tail.length <= 20, `${tail.length} messages`);
  assert.deepEqual(tail, messages.slice(-tail.length));
});
