"""The stand-in itself, asked directly by the official clients: a failure here is the harness's, not Pillion's."""

import openai
import pytest
from openai import OpenAI
from upstash_vector import Index
from upstash_vector.errors import UpstashError
from upstash_vector.types import Data

from harness import eventually


def test_it_speaks_to_the_openai_client(stand_in):
    client = OpenAI(base_url=f"{stand_in.llm}/v1", api_key="sk", max_retries=0)
    messages = [{"role": "user", "content": "hi"}]

    assert client.chat.completions.create(model="one", messages=messages).choices[0].message.content == "You said: hi"
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="flaky-500-1-x", messages=messages)
    assert client.chat.completions.create(model="flaky-500-1-x", messages=messages).usage.prompt_tokens == 7
    assert [call["path"] for call in stand_in.calls()] == ["/v1/chat/completions"] * 3


def test_it_shows_a_write_only_after_the_indexing_delay(stand_in):
    index = Index(url=stand_in.vector, token="token", retries=0)
    stand_in.delay(0.5)

    assert index.upsert([Data("a", data="text")], namespace="ns") == "Success"
    assert index.query(data="text", namespace="ns") == []

    eventually(lambda: index.query(data="text", namespace="ns"), "the write is visible", seconds=5)
    assert index.delete(["a", "b"], namespace="ns").deleted == 1
    stand_in.fail("/info", [429])
    with pytest.raises(UpstashError):
        index.info()
    assert index.info().namespaces["ns"].vector_count == 1  # the delete is not visible yet
