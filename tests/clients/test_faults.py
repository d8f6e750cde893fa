"""The official openai client, as it comes, before an upstream that fails: its three tries and Pillion's four do not
multiply to twelve. With PILLION_FAULTS=1 the figures go into the table of `make bench-faults`."""

import os
import socket
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from harness import ROOT

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]
MOST = 4


def row(what, bar, seen, ok):
    """One row of the table, as `row` of tests/integration/faults/mod.rs."""
    if os.environ.get("PILLION_FAULTS") == "1":
        table = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "tmp" / "faults.tsv"
        with table.open("a") as file:
            file.write(f"{what}\t{bar}\t{seen}\t{'ok' if ok else 'MISSED'}\n")
    assert ok, f"{what}: {seen}, which is not {bar}"


def attempts(pillion):
    """Attempts at the upstream, as Pillion counts them: connections that are refused are seen by nobody else."""
    text = httpx.get(f"{pillion.admin}/metrics", trust_env=False).text
    samples = [line for line in text.splitlines() if line.startswith("pillion_upstream_attempts_total{")]
    return sum(int(line.rsplit(" ", 1)[1]) for line in samples)


def client_for(url):
    client = OpenAI(base_url=url, api_key="sk-test")
    assert client.max_retries == 2
    return client


def ask(client, model, stream=False):
    return client.chat.completions.create(model=model, messages=HELLO, stream=stream)


@pytest.mark.parametrize("model", ["broken", "reset", "no-quota"])
def test_without_pillion_it_tries_three_times(stand_in, model):
    with pytest.raises(openai.APIError):
        ask(client_for(f"{stand_in.llm}/v1"), model)

    assert len(stand_in.calls(CHAT)) == 3


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("model", "name", "status", "most"),
    [
        ("broken", "that says 500", 500, MOST),
        ("reset", "that resets", 502, MOST),
        ("no-quota", "that says 429, out of quota", 429, 1),
    ],
)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_the_tries_of_both_do_not_multiply(pillion, stand_in, model, name, status, most, stream, warm):
    client = client_for(f"{pillion.data}/openai/v1")
    if warm:
        ask(client, "one")

    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, model, stream)

    assert caught.value.status_code == status
    calls = len(stand_in.calls(CHAT))
    assert calls == attempts(pillion), "the stand-in and Pillion have counted the same"
    calls -= warm
    what = f"one{' streamed' if stream else ''} call of OpenAI's SDK, an upstream {name}{', on a kept connection' if warm else ''}"
    row(f"{what}: upstream calls", "1" if most == 1 else f"<= {most}", calls, 1 <= calls <= most)


def test_nor_where_connections_are_refused(start_pillion):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening
        pillion = start_pillion(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\nroutes:\n"
            f"  - {{name: openai, path: /openai, upstream: 'http://127.0.0.1:{taken.getsockname()[1]}',"
            " preset: openai, retry: {base: 10ms}}\n"
        )
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client_for(f"{pillion.data}/openai/v1"), "one")
        calls = attempts(pillion)

    assert caught.value.status_code == 502
    what = "one call of OpenAI's SDK, an upstream that refuses"
    row(f"{what}: upstream calls", f"<= {MOST}", calls, 1 <= calls <= MOST)
