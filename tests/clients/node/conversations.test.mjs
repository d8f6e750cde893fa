// Bots hold long conversations with the official SDKs, through Pillion, before an upstream that refuses what the
// vendors refuse. Like real ones they keep all of their history, add what the SDK returned, and send all each time.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { runPillion, startStrict } from "./harness.mjs";

const TURNS = 200;
const LONG = 150; // the turn that alone is longer than the window
const limit = { timeout: 120_000 };
const author = "Be brief.";
const tool = {
  name: "look_up",
  description: "Looks something up.",
  parameters: { type: "object", properties: { q: { type: "string" } } },
};

// How many tools are called at once in a turn.
const callsOf = (turn) => (turn === LONG ? 30 : [0, 1, 3, 0, 0][turn % 5]);

// What the bots have in common. `history` is what they send; `head` of it leads and is always kept.
class Bot {
  head = 0;
  history = [];
  turns = []; // where they begin, behind the head
  asked = []; // of each request: where turns begin, how long the history is, how much Pillion left out

  constructor(Client, baseURL) {
    const record = async (...request) => {
      const response = await fetch(...request);
      this.asked.at(-1).trimmed = Number(response.headers.get("pillion-trimmed") ?? 0);
      return response;
    };
    this.client = new Client({ baseURL, apiKey: "sk-test", maxRetries: 0, timeout: 30_000, fetch: record });
  }

  // The user says something; answers what the bot says in the end.
  async turn(text, streamed) {
    this.turns.push(this.history.length - this.head);
    this.history.push({ role: "user", content: text });
    for (;;) {
      this.asked.push({ turns: [...this.turns], length: this.history.length - this.head });
      const { said, calls } = await this.ask(streamed);
      if (!calls?.length) return said;
      this.give(calls);
    }
  }
}

class ChatBot extends Bot {
  head = 2;
  history = [
    { role: "developer", content: author },
    { role: "system", content: "You are a bot." },
  ];

  constructor(url) {
    super(OpenAI, `${url}/openai/v1`);
  }

  async ask(streamed) {
    const { completions } = this.client.chat;
    // Now and then it has functions, as they were before tools: one call at a time, without a name.
    const old = this.turns.length % 10 === 8;
    const tools = old ? { functions: [tool] } : { tools: [{ type: "function", function: tool }] };
    const request = { model: "gpt-4o", messages: this.history, ...tools };
    const completion = streamed
      ? await completions.stream(request).finalChatCompletion()
      : await completions.create(request);
    const [{ message }] = completion.choices;
    this.history.push(message);
    return { said: message.content, calls: message.tool_calls ?? (message.function_call && [message.function_call]) };
  }

  give(calls) {
    const result = ({ id, name }) => (id ? { role: "tool", tool_call_id: id } : { role: "function", name });
    this.history.push(...calls.map((call) => ({ ...result(call), content: "found" })));
  }
}

class ResponsesBot extends Bot {
  head = 1;
  history = [{ role: "developer", content: author }];

  constructor(url) {
    super(OpenAI, `${url}/openai/v1`);
  }

  async ask(streamed) {
    const { responses } = this.client;
    const request = {
      model: "gpt-4o",
      instructions: "You are a bot.",
      input: this.history,
      store: false,
      include: ["reasoning.encrypted_content"],
      tools: [{ type: "function", strict: false, ...tool }],
    };
    let output = [];
    if (streamed) {
      for await (const event of await responses.create({ ...request, stream: true })) {
        if (event.type === "response.output_item.done") output.push(event.item);
      }
    } else {
      ({ output } = await responses.create(request));
    }
    this.history.push(...output);
    const texts = output.flatMap(({ content }) => content ?? []);
    const calls = output.filter(({ type }) => type === "function_call");
    return { said: texts.map(({ text }) => text).join(""), calls };
  }

  give(calls) {
    this.history.push(
      ...calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "found" })),
    );
  }
}

class MessagesBot extends Bot {
  constructor(url) {
    super(Anthropic, `${url}/anthropic`);
  }

  async ask(streamed) {
    const { messages } = this.client;
    const { parameters, ...named } = tool;
    const request = {
      model: "claude-sonnet-5-5",
      max_tokens: 1000,
      system: author,
      messages: this.history,
      tools: [{ ...named, input_schema: parameters }],
    };
    const { content } = await (streamed ? messages.stream(request).finalMessage() : messages.create(request));
    this.history.push({ role: "assistant", content });
    const texts = content.filter(({ type }) => type === "text");
    return { said: texts.map(({ text }) => text).join(""), calls: content.filter(({ type }) => type === "tool_use") };
  }

  give(calls) {
    const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "found" }));
    this.history.push({ role: "user", content: results });
  }
}

async function start(t, Kind, window) {
  const strict = await startStrict(t);
  const route = (name) =>
    `  - {name: ${name}, path: /${name}, upstream: "${strict.url}", preset: ${name}, window: ${window}}\n`;
  const { data } = await runPillion(t, route("openai") + route("anthropic"));
  return { strict, bot: new Kind(data) };
}

// The whole conversation. Every turn is answered, and nothing that arrives is refused, were it to be sent again.
async function hold(bot, strict, thinks = () => false) {
  for (let turn = 0; turn < TURNS; turn += 1) {
    let text = `Question ${turn}.`;
    if (callsOf(turn)) text += ` tools:${callsOf(turn)}`;
    if (thinks(turn)) text += " think";
    assert.ok(await bot.turn(text, turn % 4 === 1), `turn ${turn}`);
  }
  const { requests, rejected, rejections, sizes } = await strict.counts();
  assert.equal(rejected, 0, JSON.stringify(rejections));
  assert.equal(requests, bot.asked.length);
  assert.deepEqual(
    sizes,
    bot.asked.map(({ length, trimmed }) => bot.head + length - trimmed),
  );
  return bot.asked;
}

// How many cuts there were; they only move on.
function cuts(asked) {
  const trimmed = asked.map((one) => one.trimmed);
  assert.deepEqual(trimmed, [...trimmed].sort((a, b) => a - b));
  assert.equal(trimmed[0], 0);
  return new Set(trimmed).size;
}

for (const Kind of [ChatBot, ResponsesBot, MessagesBot]) {
  test(`a long conversation is whole turns to the upstream (${Kind.name})`, limit, async (t) => {
    const { strict, bot } = await start(t, Kind, "{}");

    const asked = await hold(bot, strict);

    assert.ok(cuts(asked) > TURNS / 2);
    for (const { turns, length, trimmed } of asked) {
      const cut = turns.indexOf(trimmed);
      assert.notEqual(cut, -1, "a turn begins there");
      if (length - trimmed > 20) assert.equal(cut, turns.length - 1, "only the last turn may be longer");
      if (cut > 0) assert.ok(length - turns[cut - 1] > 20, "one turn more would have fitted");
    }
    assert.equal(asked.some(({ length, trimmed }) => length - trimmed > 20), Kind !== MessagesBot);
  });

  test(`a window that moves in steps keeps its beginning (${Kind.name})`, limit, async (t) => {
    const { strict, bot } = await start(t, Kind, "{step: 10}");

    const asked = await hold(bot, strict);

    assert.ok(cuts(asked) <= asked.at(-1).length / 10);
    for (const { turns, length, trimmed } of asked) {
      assert.ok(turns.includes(trimmed));
      assert.ok(length - trimmed <= Math.max(20, length - turns.at(-1)));
    }
  });
}

for (const window of ["{}", "{step: 10}"]) {
  test(`thinking stays behind what it was thought about (${window})`, limit, async (t) => {
    const { strict, bot } = await start(t, MessagesBot, window);

    const asked = await hold(bot, strict, (turn) => turn % 40 < 3); // by then what was thought long ago may go

    cuts(asked);
    assert.ok(asked.at(-1).trimmed > 0);
    const blocks = bot.history.flatMap(({ content }) => content);
    assert.ok(blocks.filter(({ type }) => type === "thinking").length >= (TURNS * 3) / 40);
  });
}

test("thinking in every turn", limit, async (t) => {
  const { strict, bot } = await start(t, MessagesBot, "{}");

  await hold(bot, strict, () => true);
});

test("reasoning stays with what it led to", limit, async (t) => {
  const { strict, bot } = await start(t, ResponsesBot, "{}");

  const asked = await hold(bot, strict, () => true);

  cuts(asked);
  assert.ok(asked.at(-1).trimmed > 0);
  assert.ok(bot.history.filter(({ type }) => type === "reasoning").length >= TURNS);
});
