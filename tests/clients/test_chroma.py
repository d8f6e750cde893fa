"""chromadb's own HttpClient, through Pillion, before a real Chroma server."""

import uuid

import chromadb
import pytest
from chromadb.config import Settings
from chromadb.errors import NotFoundError

from harness import eventually

QUERY = [[0.1, 0.2, 0.3]]


def client_at(url):
    host, port = url.removeprefix("http://").split(":")
    return chromadb.HttpClient(
        host=host, port=int(port), ssl=False, settings=Settings(anonymized_telemetry=False)
    )


@pytest.fixture
def pillion(start_pillion, chroma):
    return start_pillion(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nroutes:\n"
        f"  - {{name: chroma, listen: 127.0.0.1:0, upstream: '{chroma.url}', preset: chroma-v2}}\n",
        listeners=["route chroma"],
    )


@pytest.fixture
def names():
    """Of two collections, of this test only."""
    tag = uuid.uuid4().hex[:12]
    return f"one-{tag}", f"two-{tag}"


@pytest.fixture
def seeded(chroma, names):
    """Filled directly, before Pillion sees anything."""
    direct = client_at(chroma.url)
    for name in names:
        collection = direct.create_collection(name, embedding_function=None)
        collection.add(ids=["a", "b"], embeddings=[[0.1, 0.2, 0.3], [0.9, 0.1, 0.0]], documents=["A", "B"])
    yield direct
    for collection in direct.list_collections():
        if collection.name.endswith(names):
            direct.delete_collection(collection.name)


@pytest.fixture
def client(pillion, seeded):
    return client_at(pillion.urls["route chroma"])


@pytest.fixture
def collections(client, names):
    return tuple(client.get_collection(name, embedding_function=None) for name in names)


def ids(answer):
    return answer["ids"][0]


def search(collection):
    return collection.query(query_embeddings=QUERY, n_results=5)


def cache_status(wire):
    response = wire[-1]
    assert response.request.url.path.endswith("/query"), response.request.url
    return response.headers["cache-status"]


def is_hit(wire):
    return cache_status(wire).startswith("pillion; hit")


def test_the_second_query_is_a_hit(collections, seeded, names, wire):
    one, _ = collections

    first = search(one)
    assert cache_status(wire) == "pillion; fwd=miss; stored"
    second = search(one)

    assert is_hit(wire)
    assert ids(first) == ["a", "b"] and first["documents"] == [["A", "B"]]
    assert second == first
    assert first == search(seeded.get_collection(names[0], embedding_function=None))


def test_queries_that_differ_are_not_mixed_up(collections, wire):
    one, _ = collections

    near_a = search(one)
    near_b = one.query(query_embeddings=[[0.9, 0.1, 0.0]], n_results=5)
    assert cache_status(wire) == "pillion; fwd=miss; stored"
    single = one.query(query_embeddings=QUERY, n_results=1)
    assert cache_status(wire) == "pillion; fwd=miss; stored"

    assert (ids(near_a), ids(near_b), ids(single)) == (["a", "b"], ["b", "a"], ["a"])


RECORD_WRITES = {
    "add": (
        lambda one: one.add(ids=["c"], embeddings=[[0.1, 0.2, 0.31]], documents=["C"]),
        lambda answer: "c" in ids(answer),
    ),
    "upsert": (
        lambda one: one.upsert(ids=["b"], embeddings=[[0.1, 0.2, 0.3]], documents=["B2"]),
        lambda answer: "B2" in answer["documents"][0],
    ),
    "update": (
        lambda one: one.update(ids=["a"], embeddings=QUERY, documents=["A2"]),
        lambda answer: "A2" in answer["documents"][0],
    ),
    "delete": (lambda one: one.delete(ids=["a"]), lambda answer: ids(answer) == ["b"]),
}


@pytest.mark.parametrize(("write", "shows"), RECORD_WRITES.values(), ids=RECORD_WRITES.keys())
def test_a_write_makes_the_next_query_a_miss_and_other_collections_stay_hits(collections, wire, write, shows):
    one, two = collections
    for collection in collections:
        search(collection)
        search(collection)
        assert is_hit(wire)

    write(one)
    answer = search(one)

    assert not is_hit(wire)
    assert shows(answer)
    search(two)
    assert is_hit(wire), "the other collection was not written to"

    def hit_again():
        assert search(one) == answer
        return is_hit(wire)

    eventually(hit_again, "the new answer is stored")


def test_a_changed_collection_makes_the_next_query_a_miss(collections, names, wire):
    one, _ = collections
    search(one)
    search(one)
    assert is_hit(wire)

    one.modify(name=f"renamed-{names[0]}", metadata={"changed": True})
    answer = search(one)

    assert not is_hit(wire)
    assert ids(answer) == ["a", "b"]


def test_a_deleted_collection_is_not_answered_from_memory(client, collections, names, wire):
    one, _ = collections
    search(one)
    search(one)
    assert is_hit(wire)

    client.delete_collection(names[0])

    with pytest.raises(NotFoundError):
        search(one)
    assert not wire[-1].headers.get("cache-status", "").startswith("pillion; hit")


def test_a_collection_made_again_under_its_name_shows_its_own_records(client, collections, names):
    one, _ = collections
    assert ids(search(one)) == ["a", "b"]

    client.delete_collection(names[0])
    again = client.create_collection(names[0], embedding_function=None)
    again.add(ids=["z"], embeddings=QUERY)

    assert ids(search(again)) == ["z"]


def test_writes_and_searches_in_turn_never_show_an_old_answer(collections):
    one, _ = collections

    for n in range(30):
        one.upsert(ids=["a"], embeddings=QUERY, metadatas=[{"n": n}])
        for _ in range(2):
            answer = one.query(query_embeddings=QUERY, n_results=1, where={"n": {"$gte": 0}})
            assert answer["metadatas"] == [[{"n": n}]]
