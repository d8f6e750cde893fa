"""The official clients of vector stores, through Pillion, before stand-ins: hit, write, miss, other names still a hit.
Which requests reach the store is what tells."""

import pytest
from elasticsearch import Elasticsearch
from pinecone import Pinecone
from postgrest import SyncPostgrestClient
from qdrant_client import QdrantClient, models
from turbopuffer import Turbopuffer

import stores

CONFIG = """\
version: 1
listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
routes:
  - name: store
    path: /store
    upstream: "{upstream}"
    preset: {preset}
    cache: {{{cache}}}
"""
# A function that reads, as its user says.
READS = """\
    rules:
      - name: match-documents
        methods: [POST]
        path: '^/rest/v1/rpc/match_documents$'
        operation: search
        action: cache
"""
VECTOR = [0.1, 0.2]


@pytest.fixture
def start(start_pillion):
    """Starts a store and Pillion before it; gives what the store was asked, and where Pillion listens."""
    started = []

    def start(preset, cache="", respond=None, rules="", search=None):
        store = stores.Store(respond or getattr(stores, preset)).__enter__()
        started.append(store)
        pillion = start_pillion(CONFIG.format(upstream=store.url, preset=preset, cache=cache) + rules)
        if search:
            pillion.settled(f"/store{search}")
        return store.asked, f"{pillion.data}/store"

    yield start
    for store in started:
        store.__exit__()


def test_qdrant(start):
    asked, url = start("qdrant", "aliases: false, settle: 3s", search="/collections/none/points/query")
    client = QdrantClient(url=url, check_compatibility=False)
    point = models.PointStruct(id=1, vector=VECTOR)

    def reaches(collection):
        before = len(asked)
        assert client.query_points(collection, query=VECTOR, limit=3).points[0].id == 1
        return len(asked) > before

    assert reaches("one") and reaches("two")
    assert not reaches("one") and not reaches("two")

    # It waits by itself, so the next search is stored at once.
    client.upsert("one", points=[point])
    assert asked[-1] == "PUT /collections/one/points?wait=true"
    assert not reaches("two")
    assert reaches("one") and not reaches("one")

    client.delete("one", points_selector=[1])
    assert reaches("one") and not reaches("one")

    client.upsert("one", points=[point], wait=False)
    assert reaches("one") and reaches("one"), "the store settles"


def test_qdrant_names_may_be_aliases(start):
    asked, url = start("qdrant")
    client = QdrantClient(url=url, check_compatibility=False)
    client.query_points("alias", query=VECTOR)
    client.upsert("one", points=[models.PointStruct(id=1, vector=VECTOR)])
    before = len(asked)
    client.query_points("alias", query=VECTOR)
    assert len(asked) == before + 1


def test_elasticsearch(start):
    asked, url = start("elasticsearch", "aliases: false, settle: 3s", search="/none/_search")
    client = Elasticsearch(url)

    def reaches(index):
        before = len(asked)
        knn = {"field": "v", "query_vector": VECTOR, "k": 3, "num_candidates": 10}
        assert client.search(index=index, knn=knn)["hits"]["hits"] == []
        return len(asked) > before

    assert reaches("docs") and reaches("other")
    assert not reaches("docs") and not reaches("other")

    client.index(index="docs", id="1", document={"a": 1}, refresh="wait_for")
    assert not reaches("other")
    assert reaches("docs") and not reaches("docs")

    client.bulk(operations=[{"index": {"_index": "docs"}}, {"a": 1}], refresh=True)
    assert reaches("other") and reaches("docs"), "each line of a bulk may name its own index"
    assert not reaches("other")

    client.index(index="docs", document={"a": 1})
    assert not reaches("other")
    assert reaches("docs") and reaches("docs"), "the store settles"


def test_turbopuffer(start):
    asked, url = start("turbopuffer", "settle: 0s")
    client = Turbopuffer(api_key="key", base_url=url)

    def reaches(namespace, **more):
        before = len(asked)
        found = client.namespace(namespace).query(rank_by=("vector", "ANN", VECTOR), top_k=3, **more)
        assert found.rows[0].id == 1
        return len(asked) > before

    assert reaches("one") and reaches("two")
    assert not reaches("one") and not reaches("two")

    client.namespace("one").write(upsert_rows=[{"id": 1, "vector": VECTOR}], distance_metric="cosine_distance")
    assert not reaches("two")
    assert reaches("one") and not reaches("one")

    eventual = {"consistency": {"level": "eventual"}}
    assert reaches("one", **eventual) and reaches("one", **eventual)


def test_pinecone(start):
    asked, url = start("pinecone", "settle: 0s")
    index = Pinecone(api_key="key").Index(host=url)

    def reaches(**namespace):
        before = len(asked)
        assert index.query(vector=VECTOR, top_k=3, **namespace).matches[0].id == "a"
        return len(asked) > before

    assert reaches() and reaches(namespace="one")
    assert not reaches() and not reaches(namespace="one")

    index.upsert(vectors=[("a", VECTOR)])
    assert not reaches(namespace="one")
    assert reaches() and not reaches()

    index.delete(ids=["a"], namespace="one")
    assert not reaches()
    assert reaches(namespace="one") and not reaches(namespace="one")

    # One namespace by two names.
    index.upsert(vectors=[("a", VECTOR)], namespace="__default__")
    assert reaches()


@pytest.mark.parametrize("rules, cached", [("", False), (READS, True)])
def test_supabase(start, rules, cached):
    asked, url = start("supabase-rpc", respond=stores.postgrest, rules=rules)
    client = SyncPostgrestClient(f"{url}/rest/v1", headers={"apikey": "key", "Authorization": "Bearer key"})

    def reaches():
        before = len(asked)
        found = client.rpc("match_documents", {"query_embedding": VECTOR, "match_count": 3}).execute()
        assert found.data[0]["id"] == 1
        return len(asked) > before

    assert reaches()
    assert reaches() != cached
    for write in (
        lambda: client.from_("documents").insert({"id": 1}),
        lambda: client.from_("documents").delete().eq("id", 1),
        lambda: client.rpc("add_document", {"id": 1}),
    ):
        write().execute()
        assert reaches()
        assert reaches() != cached
