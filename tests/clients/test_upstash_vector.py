"""The official upstash-vector client, through Pillion, with an index that needs time to show a write."""

import socket
import time

import pytest
from upstash_vector import Index, Vector
from upstash_vector.errors import UpstashError
from upstash_vector.types import Data

from conftest import CONFIG
from harness import eventually
from stand_in import embed


def index_at(url):
    return Index(url=url, token="token", retries=0)


@pytest.fixture
def seeded(stand_in):
    """Filled directly, before Pillion sees anything."""
    direct = index_at(stand_in.vector)
    for namespace in ("", "other"):
        direct.upsert([Vector(name, embed(name), {"n": name}) for name in ("a", "b", "c")], namespace=namespace)
    return direct


@pytest.fixture
def index(pillion, seeded):
    pillion.settled("/vector/query-data/nothing-is-there")
    return index_at(f"{pillion.data}/vector")


def cache_status(wire):
    return wire[-1].headers["cache-status"]


def is_hit(wire):
    return cache_status(wire).startswith("pillion; hit")


def test_a_second_identical_query_is_a_hit(index, stand_in, wire):
    first = index.query(vector=embed("a"), top_k=2, include_metadata=True, include_vectors=True)
    assert cache_status(wire) == "pillion; fwd=miss; stored"
    body = wire[-1].content
    second = index.query(vector=embed("a"), top_k=2, include_metadata=True, include_vectors=True)

    assert is_hit(wire)
    assert int(wire[-1].headers["age"]) >= 0
    assert wire[-1].content == body
    assert first[0].id == "a" and first[0].metadata == {"n": "a"} and first[0].vector == embed("a")
    assert second == first
    assert len(stand_in.calls("/query")) == 1


def test_a_second_identical_query_with_data_is_a_hit(index, stand_in, wire):
    # The bot's search, to the letter.
    first = index.query(data="a", top_k=3, include_vectors=False, include_metadata=True)
    second = index.query(data="a", top_k=3, include_vectors=False, include_metadata=True)

    assert is_hit(wire)
    assert [found.id for found in first][0] == "a"
    assert second == first
    assert len(stand_in.calls("/query-data")) == 1


def test_queries_that_differ_are_not_mixed_up(index, pillion, stand_in, wire):
    asked = [
        {"data": "a", "top_k": 1},
        {"data": "b", "top_k": 1},
        {"data": "a", "top_k": 2},
        {"data": "a", "top_k": 1, "include_metadata": True},
        {"data": "a", "top_k": 1, "filter": "n = 'a'"},
        {"data": "a", "top_k": 1, "namespace": "other"},
    ]
    for one in asked:
        index.query(**one)
        assert cache_status(wire) == "pillion; fwd=miss; stored", one
    Index(url=f"{pillion.data}/vector", token="another-token").query(**asked[0])
    assert cache_status(wire) == "pillion; fwd=miss; stored"
    for one in asked:
        index.query(**one)
        assert is_hit(wire), one


def test_a_batch_of_queries(index, stand_in, wire):
    batch = [{"vector": embed("a"), "top_k": 1}, {"vector": embed("b"), "top_k": 1}]

    first = index.query_many(queries=batch)
    second = index.query_many(queries=batch)

    assert [[found.id for found in one] for one in first] == [["a"], ["b"]]
    assert second == first
    assert is_hit(wire)


WRITES = {
    "upsert": lambda index, ns: index.upsert([Vector("new", embed("new"))], namespace=ns),
    "upsert-data": lambda index, ns: index.upsert([Data("new", data="new")], namespace=ns),
    "update": lambda index, ns: index.update("a", metadata={"n": "changed"}, namespace=ns),
    "delete": lambda index, ns: index.delete(["a"], namespace=ns),
    "reset": lambda index, ns: index.reset(namespace=ns),
    "delete-namespace": lambda index, ns: index.delete_namespace(ns),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_makes_the_next_search_a_miss_and_leaves_other_namespaces_alone(index, stand_in, wire, write):
    def search(namespace):
        return index.query(data="a", top_k=5, include_metadata=True, namespace=namespace)

    for namespace in ("", "other"):
        search(namespace)
        search(namespace)
        assert is_hit(wire)
    before = search("other")

    write(index, "other")
    searched = len(stand_in.calls("/query-data/other"))
    after = search("other")

    assert not is_hit(wire)
    assert len(stand_in.calls("/query-data/other")) == searched + 1
    assert after != before
    search("")
    assert is_hit(wire), "the default namespace was not written to"

    def settled():
        assert search("other") == after
        # An empty answer is never stored: who fills the namespace without Pillion's knowledge is to be seen.
        return is_hit(wire) if after else "settle" not in cache_status(wire)

    eventually(settled, "the new answer is stored once the write has settled")
    search("other")
    assert is_hit(wire) == bool(after)


def test_a_reset_of_everything_reaches_every_namespace(index, wire):
    for namespace in ("", "other"):
        assert index.query(data="a", namespace=namespace)

    index.reset(all=True)

    for namespace in ("", "other"):
        assert index.query(data="a", namespace=namespace) == []
        assert not is_hit(wire)


def test_a_write_that_fails_makes_the_next_search_a_miss_too(index, stand_in, wire):
    index.query(data="a")
    stand_in.fail("/upsert", [400])

    with pytest.raises(UpstashError, match="As scripted"):
        index.upsert([Vector("new", embed("new"))])

    index.query(data="a")
    assert not is_hit(wire)


def test_reads_that_must_not_be_cached_reach_the_index_each_time(index, stand_in):
    for _ in range(2):
        assert index.info().namespaces["other"].vector_count == 3
        assert index.list_namespaces() == ["", "other"]
        assert index.fetch(["a", "zzz"], include_metadata=True)[0].metadata == {"n": "a"}

    assert len(stand_in.calls("/info")) == 2
    assert len(stand_in.calls("/list-namespaces")) == 2


def test_no_stale_answer_is_stored_while_the_index_is_behind(index, stand_in, wire):
    stand_in.delay(0.6)  # the index shows a write later than it acknowledges it, but sooner than `settle`
    stale = 0
    for version in range(1, 4):
        index.upsert([Vector("a", embed("a"), {"version": version})])
        stored = None

        def hit():
            nonlocal stale, stored
            [found] = index.query(vector=embed("a"), top_k=1, include_metadata=True)
            fresh = found.metadata.get("version") == version
            stale += not fresh
            if "stored" in cache_status(wire) or is_hit(wire):
                assert fresh, f"{cache_status(wire)} with {found.metadata} after version {version} was written"
                stored = True
            return is_hit(wire)

        eventually(hit, f"version {version} is stored")
        assert stored
    assert stale > 0, "the index was never behind, so nothing was shown"


def test_with_the_presets_own_settle_nothing_is_stored_while_the_index_may_be_behind(
    start_pillion, stand_in, seeded, wire
):
    pillion = start_pillion(CONFIG.format(llm=stand_in.llm, vector=stand_in.vector, settle=""))
    index = index_at(f"{pillion.data}/vector")
    index.query(data="a")
    assert "settle" in cache_status(wire), "nobody knows what was written before the start"
    stand_in.delay(1.5)
    index.upsert([Data("new", data="new", metadata={})])
    written = time.monotonic()

    def seen():
        found = index.query(data="new", top_k=1)
        assert cache_status(wire).startswith("pillion; fwd=") and "stored" not in cache_status(wire)
        return found[0].id == "new"

    eventually(seen, "the write becomes visible")
    # Visible now, yet the preset's 30 s are not over: the next one is forwarded all the same.
    assert seen()
    assert time.monotonic() - written < 30
    assert "settle" in cache_status(wire)


def test_a_passing_failure_is_hidden(index, stand_in, wire):
    stand_in.fail("/query-data", [503, 500])
    assert index.query(data="a", top_k=1)[0].id == "a"
    assert len(stand_in.calls("/query-data")) == 3

    stand_in.fail("/upsert", [500])
    assert index.upsert([Vector("new", embed("new"))]) == "Success"
    assert len(stand_in.calls("/upsert")) == 1 + 2  # one was made directly, to fill it


def test_an_upstreams_error_is_the_clients_own_and_is_not_stored(pillion, stand_in, wire):
    index = Index(url=f"{pillion.data}/vector", token="wrong", retries=0)

    for calls in (1, 2):
        with pytest.raises(UpstashError, match="Unauthorized"):
            index.query(data="a")
        assert wire[-1].status_code == 401
        assert wire[-1].json() == {"error": "Unauthorized: Invalid auth token", "status": 401}
        assert len(stand_in.calls("/query-data")) == calls


def test_an_index_that_is_not_there_is_the_clients_own_exception(start_pillion, wire):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        pillion = start_pillion(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nroutes:\n"
            f"  - {{name: vector, path: /vector, upstream: 'http://127.0.0.1:{taken.getsockname()[1]}',"
            " preset: upstash-vector}\n"
        )
        with pytest.raises(UpstashError):
            index_at(f"{pillion.data}/vector").query(data="a")

    assert wire[-1].status_code == 502
    assert wire[-1].json()["status"] == 502
