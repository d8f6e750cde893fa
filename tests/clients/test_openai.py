"""The official openai client, through Pillion."""

import asyncio
import base64
import json
import socket
import struct

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from stand_in import embed

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]


def client_for(url, **options):
    return OpenAI(base_url=url, **{"api_key": "sk-test", "timeout": 30, "max_retries": 0, **options})


@pytest.fixture
def client(pillion):
    return client_for(f"{pillion.data}/openai/v1")


def test_chat(client, stand_in):
    answer = client.chat.completions.with_raw_response.create(model="one", messages=HELLO, temperature=0.7)

    completion = answer.parse()
    assert completion.choices[0].message.content == "You said: hello there"
    assert completion.usage.total_tokens == 11
    assert answer.headers["x-request-id"] == "req_stand_in_1"
    assert float(answer.headers["x-response-time"]) >= 0
    assert "pillion;dur=" in answer.headers["server-timing"]
    assert "x-should-retry" not in answer.headers
    [call] = stand_in.calls(CHAT)
    assert json.loads(call["body"]) == {"model": "one", "messages": HELLO, "temperature": 0.7}
    assert call["headers"]["authorization"] == "Bearer sk-test"
    assert call["headers"]["host"] == stand_in.llm.removeprefix("http://")


def test_chat_of_the_asynchronous_client_that_the_bot_uses(pillion):
    async def ask():
        async with AsyncOpenAI(base_url=f"{pillion.data}/openai/v1", api_key="sk-test", max_retries=0) as client:
            asked = [client.chat.completions.create(
                model="one", messages=[{"role": "user", "content": f"number {n}"}]) for n in range(10)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [f"You said: number {n}" for n in range(10)]


def test_streamed_chat(client):
    stream = client.chat.completions.create(
        model="one", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )

    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [11]
    assert chunks[-1].choices == []


def test_a_stream_shows_no_usage_to_a_client_that_did_not_ask(client):
    chunks = list(client.chat.completions.create(model="one", messages=HELLO, stream=True))

    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_the_bytes_of_a_stream_are_the_upstreams(client, stand_in):
    def events(client):
        with client.chat.completions.with_streaming_response.create(
            model="one", messages=HELLO, stream=True, stream_options={"include_usage": True}
        ) as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert "content-length" not in response.headers
            return b"".join(response.iter_bytes())

    through_pillion = events(client)
    assert through_pillion == events(client_for(f"{stand_in.llm}/v1"))
    assert through_pillion.endswith(b"data: [DONE]\n\n")


def test_embeddings(client, stand_in):
    texts = ["first", "second"]

    decoded = client.embeddings.create(model="embedding", input=texts)  # the client asks for base64 and decodes
    floats = client.embeddings.create(model="embedding", input=texts, encoding_format="float")

    assert [item.embedding for item in floats.data] == [embed(text) for text in texts]
    for ours, exact in zip(decoded.data, floats.data, strict=True):
        assert ours.embedding == pytest.approx(exact.embedding, abs=1e-6)
    asked = [json.loads(call["body"])["encoding_format"] for call in stand_in.calls("/v1/embeddings")]
    assert asked == ["base64", "float"]


TEXTS = [f"text {n}" for n in range(100)]
NEW = TEXTS[3::10]
KNOWN = [text for text in TEXTS if text not in NEW]


@pytest.mark.parametrize("encoding", [None, "base64", "float"])
def test_of_a_hundred_texts_with_ninety_known_ten_are_asked_for(client, stand_in, encoding):
    def ask(texts):
        options = {"encoding_format": encoding} if encoding else {}
        raw = client.embeddings.with_raw_response.create(model="drifting", input=texts, **options)
        return raw.parse(), raw.headers["cache-status"]

    def given(text, call):  # what the stand-in gave for it; base64 is of float32
        vector = embed(f"{text} {call}")
        if encoding == "float":
            return vector
        vector = list(struct.unpack("<8f", struct.pack("<8f", *vector)))
        return base64.b64encode(struct.pack("<8f", *vector)).decode() if encoding == "base64" else vector

    _, first = ask(KNOWN)
    merged, second = ask(TEXTS)
    again, third = ask(TEXTS)

    assert first == 'pillion; fwd=miss; stored; detail="0/90"'
    assert second == 'pillion; fwd=miss; stored; detail="90/100"'
    # A day, and up to a twentieth less, so that what was stored together does not end together.
    assert 82_000 <= int(third.removeprefix("pillion; hit; ttl=")) <= 86_400
    assert [json.loads(call["body"])["input"] for call in stand_in.calls("/v1/embeddings")] == [KNOWN, NEW]
    for answer in (merged, again):
        assert [item.index for item in answer.data] == list(range(100))
        assert [item.embedding for item in answer.data] == [given(text, 2 if text in NEW else 1) for text in TEXTS]
        assert answer.model == "drifting" and answer.object == "list"
    assert (merged.usage.total_tokens, again.usage.total_tokens) == (10, 0)


def test_lists_of_tokens(client, stand_in):
    ask = lambda tokens: client.embeddings.create(model="drifting", input=tokens, encoding_format="float")

    one = ask([1, 2]).data[0].embedding
    first, second = ask([[3], [1, 2]]).data

    assert (one, second.embedding) == (embed("[1, 2] 1"), embed("[1, 2] 1"))
    assert first.embedding == embed("[3] 2")
    assert [json.loads(call["body"])["input"] for call in stand_in.calls("/v1/embeddings")] == [[1, 2], [[3]]]


def test_another_account_gets_vectors_of_its_own(client, pillion, stand_in):
    url = f"{pillion.data}/openai/v1"
    clients = [client, client, client_for(url, api_key="sk-other"), client_for(url, organization="o"), client_for(url, project="p")]

    vectors = [one.embeddings.create(model="drifting", input="x", encoding_format="float").data[0].embedding for one in clients]

    assert vectors == [embed(f"x {call}") for call in (1, 1, 2, 3, 4)]


def test_an_error_for_what_is_not_known_is_the_clients_own_exception(client, stand_in):
    client.embeddings.create(model="embedding", input=["a"])
    stand_in.fail("/v1/embeddings", [400])

    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="embedding", input=["a", "b"])

    assert len(client.embeddings.create(model="embedding", input=["a", "b"]).data) == 2


def test_models(client):
    assert [model.id for model in client.models.list()] == ["one", "two"]


@pytest.mark.parametrize(
    ("model", "kind", "code", "attempts"),
    [
        ("bad-request", openai.BadRequestError, "context_length_exceeded", 1),
        ("missing", openai.NotFoundError, "model_not_found", 1),
        ("rate-limited", openai.RateLimitError, "rate_limit_exceeded", 4),
        ("no-quota", openai.RateLimitError, "insufficient_quota", 1),
        ("broken", openai.InternalServerError, None, 4),
        ("overloaded", openai.InternalServerError, None, 4),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_an_upstreams_error_is_the_clients_own_exception_and_its_body_unchanged(
    client, stand_in, model, kind, code, attempts, stream
):
    with pytest.raises(kind) as through:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    calls = len(stand_in.calls(CHAT))
    with pytest.raises(kind) as direct:
        client_for(f"{stand_in.llm}/v1").chat.completions.create(model=model, messages=HELLO, stream=stream)

    assert type(through.value) is type(direct.value)
    assert through.value.code == code
    assert through.value.status_code == direct.value.status_code
    assert through.value.response.content == direct.value.response.content
    for name in ("retry-after-ms", "x-ratelimit-reset-requests", "content-type"):
        assert through.value.response.headers.get(name) == direct.value.response.headers.get(name)
    assert calls == attempts


def test_a_wrong_key_is_an_authentication_error(pillion, stand_in):
    client = client_for(f"{pillion.data}/openai/v1", api_key="sk-wrong")

    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="one", messages=HELLO)

    assert caught.value.code == "invalid_api_key"
    assert len(stand_in.calls(CHAT)) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_passing_failure_is_hidden_from_a_client_that_does_not_retry(client, stand_in, status, stream):
    model = f"flaky-{status}-1-once"

    answer = client.chat.completions.create(model=model, messages=HELLO, stream=stream)

    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    assert text == "You said: hello there"
    first, second = stand_in.calls(CHAT)
    assert first["body"] == second["body"]


def test_a_passing_failure_of_embeddings_is_hidden(client, stand_in):
    assert client.embeddings.create(model="flaky-500-2-twice", input="x", encoding_format="float").data
    assert len(stand_in.calls("/v1/embeddings")) == 3


@pytest.mark.parametrize(("model", "attempts"), [("no-quota", 1), ("broken", 4)])
def test_a_client_that_would_retry_is_told_not_to(pillion, stand_in, model, attempts):
    client = OpenAI(base_url=f"{pillion.data}/openai/v1", api_key="sk-test")
    assert client.max_retries == 2

    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)

    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(stand_in.calls(CHAT)) == attempts


def test_no_retry_hint_where_the_class_keeps_us_from_retrying(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="bad-request", messages=HELLO)

    assert "x-should-retry" not in caught.value.response.headers


def test_an_upstream_that_is_not_there_is_the_clients_own_exception(start_pillion):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        pillion = start_pillion(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nroutes:\n"
            f"  - {{name: openai, path: /openai, upstream: 'http://127.0.0.1:{taken.getsockname()[1]}',"
            " preset: openai, retry: {base: 10ms}}\n"
        )
        client = OpenAI(base_url=f"{pillion.data}/openai/v1", api_key="sk-test")

        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="one", messages=HELLO)

    assert caught.value.status_code == 502
    assert caught.value.body["message"] and caught.value.type
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "pillion" in caught.value.response.headers["proxy-status"]


def test_a_long_history_arrives_as_its_head_and_at_most_twenty_messages(client, stand_in):
    history = [{"role": "system", "content": "Be brief."}]
    for turn in range(14):
        history.append({"role": "user", "content": f"question {turn}"})
        history.append({"role": "assistant", "content": f"réponse {turn}"})
    history.append({"role": "user", "content": "the last question"})
    assert len(history) == 30

    answer = client.chat.completions.with_raw_response.create(model="one", messages=history)

    assert answer.parse().choices[0].message.content == "You said: the last question"
    [call] = stand_in.calls(CHAT)
    head, *tail = json.loads(call["body"])["messages"]
    assert head == history[0]
    assert 1 <= len(tail) <= 20
    assert tail == history[-len(tail):]
    assert tail[0]["role"] == "user"
    assert int(answer.headers["pillion-trimmed"]) == 29 - len(tail)


def test_a_short_history_arrives_whole(client, stand_in):
    answer = client.chat.completions.with_raw_response.create(model="one", messages=HELLO * 20)

    assert "pillion-trimmed" not in answer.headers
    [call] = stand_in.calls(CHAT)
    assert len(json.loads(call["body"])["messages"]) == 20
