"""The recipe for a bot: three variables of its environment, nothing else. And what happens when Pillion gets them too."""

import json
import socket
import subprocess
import sys

import pytest
from upstash_vector import Index
from upstash_vector.types import Data

from harness import HERE, LISTENING, clean_environment, pillion_binary

EXIT_CONFIGURATION = 78


def run_bot(environment):
    done = subprocess.run(
        [sys.executable, HERE / "bot.py"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bot_rides_with_three_variables_changed(pillion, stand_in):
    Index(url=stand_in.vector, token="token").upsert([Data("a horse", data="pillion"), Data("else", data="other")])
    before = clean_environment(
        OPENAI_API_KEY="sk-bot",
        UPSTASH_VECTOR_REST_TOKEN="bot-token",
        OPENAI_BASE_URL=f"{stand_in.llm}/v1",
        UPSTASH_VECTOR_REST_URL=stand_in.vector,
    )
    direct = run_bot(before)
    pillion.settled("/vector/query-data/nothing-is-there")
    calls = len(stand_in.calls())

    through = run_bot({
        **before,
        "OPENAI_BASE_URL": f"{pillion.data}/openai/v1",
        "UPSTASH_VECTOR_REST_URL": f"{pillion.data}/vector",
        "NO_PROXY": "127.0.0.1,localhost",
        # A machine where a proxy is set: without NO_PROXY the bot would look for Pillion behind it.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    })

    assert through == direct
    assert through["answer"] == "You said: what is a horse?"
    ours = stand_in.calls()[calls:]
    assert [call["path"] for call in ours] == ["/query-data", "/v1/chat/completions"], "one of two searches was a hit"
    assert [call["headers"]["authorization"] for call in ours] == ["Bearer bot-token", "Bearer sk-bot"]
    assert all("pillion" in call["headers"]["via"] for call in ours)


def refused(arguments, environment, directory):
    """Runs Pillion, which must refuse its configuration before it listens; answers what it said."""
    done = subprocess.run(
        ["timeout", "--kill-after=5", "20", pillion_binary(), *arguments],
        env=environment, cwd=directory, capture_output=True, text=True, timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == EXIT_CONFIGURATION, f"ended with {done.returncode}:\n{said}"
    assert not LISTENING.search(said)
    return said


def names_the_way_out(said):
    assert "UPSTASH_VECTOR_REST_URL" in said
    assert "PILLION_VECTOR_URL" in said, "what to set instead"
    assert "panicked" not in said


@pytest.mark.parametrize("command", ["run", "check"])
def test_pillion_with_the_bots_variables_in_its_own_environment_refuses_the_loop(tmp_path, command):
    environment = clean_environment(
        OPENAI_BASE_URL="http://127.0.0.1:8080/openai/v1",
        UPSTASH_VECTOR_REST_URL="http://127.0.0.1:8080/vector",
        NO_PROXY="127.0.0.1,localhost",
    )

    names_the_way_out(refused([command], environment, tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
def test_the_loop_is_seen_on_any_port_and_by_any_name_of_this_machine(tmp_path, host, listen):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "pillion.yaml").write_text(
        f"version: 1\nlisten: {listen}:{port}\nadmin: {{listen: 127.0.0.1:0}}\nroutes:\n"
        "  - name: openai\n    path: /openai\n    upstream: https://api.openai.com\n    preset: openai\n"
        "  - name: vector\n    path: /vector\n"
        "    upstream: ${PILLION_VECTOR_URL:-${UPSTASH_VECTOR_REST_URL:-}}\n    preset: upstash-vector\n"
    )
    environment = clean_environment(
        OPENAI_BASE_URL=f"http://{host}:{port}/openai/v1",
        UPSTASH_VECTOR_REST_URL=f"http://{host}:{port}/vector",
        NO_PROXY="127.0.0.1,localhost",
    )

    names_the_way_out(refused(["run", "--config", "pillion.yaml"], environment, tmp_path))
