// The official @upstash/vector client for Node, through Pillion. It asks for `cache-control: no-cache` every time.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Index } from "@upstash/vector";
import { eventually, recordFetch, startPillion, startStandIn } from "./harness.mjs";

const limit = { timeout: 60_000 };
const a = [1, 0, 0, 0, 0, 0, 0, 0.1];
const b = [0, 1, 0, 0, 0, 0, 0, 0.1];

async function start(t) {
  const standIn = await startStandIn(t);
  const direct = new Index({ url: standIn.vector, token: "token" });
  for (const namespace of ["", "other"]) {
    await direct.upsert([{ id: "a", vector: a, metadata: { n: "a" } }, { id: "b", vector: b }], { namespace });
  }
  const pillion = await startPillion(t, standIn);
  const responses = recordFetch(t);
  const index = new Index({ url: `${pillion.data}/vector`, token: "token" });
  const status = () => {
    const last = responses.filter((response) => response.url.startsWith(pillion.data)).at(-1);
    return last.headers.get("cache-status") ?? "";
  };
  const isHit = () => status().startsWith("pillion; hit");
  return { standIn, index, status, isHit };
}

test("a second identical query is a hit although the client forbids it", limit, async (t) => {
  const { standIn, index, status, isHit } = await start(t);
  const query = { vector: a, topK: 2, includeMetadata: true };

  const first = await index.query(query);
  assert.equal(status(), "pillion; fwd=miss; stored");
  const second = await index.query(query);

  assert.ok(isHit(), status());
  assert.deepEqual(first.map((found) => found.id), ["a", "b"]);
  assert.deepEqual(second, first);
  const calls = await standIn.calls("/query");
  assert.equal(calls.length, 1);
});

test("the client does forbid caching", limit, async (t) => {
  const { standIn, index } = await start(t);

  await index.info();

  const [call] = await standIn.calls("/info");
  assert.equal(call.headers["cache-control"], "no-cache");
});

test("a second identical query with data is a hit", limit, async (t) => {
  const { standIn, index, isHit, status } = await start(t);
  const query = { data: "a horse", topK: 1 };

  const first = await index.query(query);
  const second = await index.query(query);

  assert.ok(isHit(), status());
  assert.deepEqual(second, first);
  assert.equal((await standIn.calls("/query-data")).length, 1);
});

const writes = {
  upsert: (other) => other.upsert({ id: "new", vector: a }),
  "upsert with data": (other) => other.upsert([{ id: "new", data: "a horse" }]),
  update: (other) => other.update({ id: "a", metadata: { n: "changed" } }),
  delete: (other) => other.delete("a"),
  reset: (other) => other.reset(),
};

for (const [name, write] of Object.entries(writes)) {
  test(`${name} makes the next search a miss and leaves other namespaces alone`, limit, async (t) => {
    const { index, isHit, status } = await start(t);
    const other = index.namespace("other");
    const query = { vector: a, topK: 5, includeMetadata: true };
    for (const space of [index, other]) {
      await space.query(query);
      await space.query(query);
      assert.ok(isHit(), status());
    }
    const before = await other.query(query);

    await write(other);
    const after = await other.query(query);

    assert.ok(!isHit(), status());
    assert.notDeepEqual(after, before);
    await index.query(query);
    assert.ok(isHit(), "the default namespace was not written to");
    await eventually(async () => {
      assert.deepEqual(await other.query(query), after);
      return after.length > 0 ? isHit() : !status().includes("settle"); // an empty answer is never stored
    }, "the new answer is stored once the write has settled");
  });
}

test("namespaces and everything that is not cached", limit, async (t) => {
  const { standIn, index } = await start(t);

  for (let n = 0; n < 2; n += 1) {
    assert.deepEqual(await index.listNamespaces(), ["", "other"]);
    assert.equal((await index.info()).namespaces.other.vectorCount, 2);
    const [found] = await index.namespace("other").fetch(["a"], { includeMetadata: true });
    assert.deepEqual(found.metadata, { n: "a" });
  }
  await index.deleteNamespace("other");

  assert.deepEqual(await index.listNamespaces(), [""]);
  assert.equal((await standIn.calls("/info")).length, 2);
});

test("no stale answer is stored while the index is behind", limit, async (t) => {
  const { standIn, index, isHit, status } = await start(t);
  await standIn.delay(0.6);
  let stale = 0;
  for (const version of [1, 2]) {
    await index.upsert({ id: "a", vector: a, metadata: { version } });
    await eventually(async () => {
      const [found] = await index.query({ vector: a, topK: 1, includeMetadata: true });
      const fresh = found.metadata.version === version;
      if (!fresh) stale += 1;
      if (isHit() || status().includes("stored")) assert.ok(fresh, `${status()} after version ${version}`);
      return isHit();
    }, `version ${version} is stored`);
  }
  assert.ok(stale > 0, "the index was never behind, so nothing was shown");
});
