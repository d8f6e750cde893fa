// Starts and ends what the Node client tests talk to: the same stand-in as the Python tests, and a real Pillion.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const START_MS = 20_000;
const LIFETIME_SECONDS = 300;

function pillionBinary() {
  const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
  const path = process.env.PILLION_BIN ?? join(target, "debug", "pillion");
  assert.ok(existsSync(path), `${path} is missing: cargo build`);
  return path;
}

function strictBinary() {
  if (process.env.PILLION_STRICT) return process.env.PILLION_STRICT;
  const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
  const homes = [dirname(pillionBinary()), join(target, "debug")];
  const places = homes.map((home) => join(home, "examples", "strict_upstream"));
  const path = places.find((place) => existsSync(place));
  assert.ok(path, `${places[0]} is missing: cargo build --examples`);
  return path;
}

// This process's environment without anything that Pillion or an SDK would read.
function cleanEnvironment() {
  const foreign =
    /^(PILLION_|OPENAI_|ANTHROPIC_|LANG(CHAIN|SMITH)_|UPSTASH_|NEXT_PUBLIC_|VECTOR_|CONVERSATION_|REDIS_)|_proxy$/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)));
}

for (const name of Object.keys(process.env)) {
  // The SDKs of this process look at them.
  if (/^(OPENAI_|ANTHROPIC_|UPSTASH_|NEXT_PUBLIC_)/.test(name)) delete process.env[name];
}

function ended(child) {
  return new Promise((resolve) => child.once("close", (code, signal) => resolve(code ?? signal)));
}

// Resolves with the first value that `look` finds in a line of `stream`; the stream is read to its end all the same.
function firstLine(stream, look, log) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no listener was named:\n${log.join("\n")}`)), START_MS);
    createInterface({ input: stream })
      .on("line", (line) => {
        log.push(line);
        const found = look(line);
        if (found === undefined) return;
        clearTimeout(late);
        resolve(found);
      })
      .on("close", () => {
        clearTimeout(late);
        reject(new Error(`ended without naming a listener:\n${log.join("\n")}`));
      });
  });
}

export async function startStandIn(t) {
  const child = spawn(join(root, ".venv/bin/python"), [join(root, "tests/clients/stand_in.py")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const end = ended(child);
  t.after(async () => {
    child.stdin.end(); // it ends when its input does
    await end;
  });
  const urls = {};
  const bothNamed = (line) => {
    const [, url, service] = line.match(/^listening on (\S+) \((\S+)\)$/) ?? [];
    if (service) urls[service] = url;
    return urls.llm && urls.vector ? urls : undefined;
  };
  const { llm, vector } = await firstLine(child.stdout, bothNamed, []);
  const control = async (path, body) => {
    const options = body && { method: "POST", body: JSON.stringify(body) };
    return (await fetch(llm + path, options)).json();
  };
  return {
    llm,
    vector,
    calls: async (path) => (await control("/_journal")).filter((call) => !path || call.path.split("?")[0] === path),
    fail: (path, statuses) => control("/_fail", { path, statuses }),
    delay: (seconds) => control("/_delay", { seconds }),
  };
}

// The upstream that refuses what the vendors refuse of a conversation.
export async function startStrict(t) {
  const command = ["--kill-after=5", String(LIFETIME_SECONDS), strictBinary()];
  const child = spawn("timeout", command, { stdio: ["pipe", "pipe", "inherit"], env: cleanEnvironment() });
  const end = ended(child);
  t.after(async () => {
    child.stdin.end(); // it ends when its input does
    await end;
  });
  const url = await firstLine(child.stdout, (line) => line.match(/^listening on (\S+?)\/? \(strict\)$/)?.[1], []);
  return { url, counts: async () => (await fetch(`${url}/_counts`)).json() };
}

// A running Pillion before the stand-in, in which nothing is left to settle.
export async function startPillion(t, standIn) {
  const { data } = await runPillion(
    t,
    `  - {name: openai, path: /openai, upstream: "${standIn.llm}", preset: openai, retry: {base: 10ms}}
  - {name: vector, path: /vector, upstream: "${standIn.vector}", preset: upstash-vector, cache: {settle: 1s}}
`,
  );
  // Right after a start nobody knows when the last write was.
  await eventually(async () => {
    const search = { method: "POST", headers: { "content-type": "application/json" }, body: "{}" };
    const answer = await fetch(`${data}/vector/query-data/nothing-is-there`, search);
    await answer.arrayBuffer();
    return !answer.headers.get("cache-status").includes("settle");
  }, "what was written before the start has settled");
  return { data };
}

// A running Pillion with these routes.
export async function runPillion(t, routes) {
  const directory = await mkdtemp(join(tmpdir(), "pillion-node-"));
  const config = join(directory, "pillion.yaml");
  const listeners = "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n";
  await writeFile(config, `version: 1\n${listeners}routes:\n${routes}`);
  const child = spawn(
    "timeout",
    ["--kill-after=5", String(LIFETIME_SECONDS), pillionBinary(), "run", "--config", config],
    { stdio: ["ignore", "ignore", "pipe"], env: cleanEnvironment() },
  );
  const end = ended(child);
  const log = [];
  t.after(async () => {
    child.kill("SIGTERM");
    const code = await end;
    await rm(directory, { recursive: true });
    assert.equal(code, 0, `Pillion ended with ${code}:\n${log.join("\n")}`);
    assert.ok(!log.some((line) => line.includes("panicked")), log.join("\n"));
  });
  const data = await firstLine(child.stderr, (line) => line.match(/listening on (http:\S+?)\/? \(data\)/)?.[1], log);
  return { data };
}

// Records every response that the global `fetch` brings, for SDKs that show none.
export function recordFetch(t) {
  const responses = [];
  const original = globalThis.fetch;
  globalThis.fetch = async (...args) => {
    const response = await original(...args);
    responses.push(response);
    return response;
  };
  t.after(() => {
    globalThis.fetch = original;
  });
  return responses;
}

// Calls `look` until it answers something true.
export async function eventually(look, what, seconds = 15) {
  const deadline = performance.now() + seconds * 1000;
  while (!(await look())) {
    assert.ok(performance.now() < deadline, `not within ${seconds} s: ${what}`);
    await pause(20);
  }
}
