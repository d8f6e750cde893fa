"""Every test has its own stand-in and its own Pillion: nothing that one test did can be seen by another."""

import os

import httpx
import pytest

from harness import LIBRARIES, Chroma, Pillion, StandIn, Strict

# The tests talk to loopback only; a proxy of this machine is not to see that.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
os.environ["ANONYMIZED_TELEMETRY"] = "False"
for name in [name for name in os.environ if name.startswith(LIBRARIES)]:
    del os.environ[name]
os.environ["LANGSMITH_TRACING"] = "false"

CONFIG = """\
version: 1
listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
routes:
  - {{name: openai, path: /openai, upstream: "{llm}", preset: openai, retry: {{base: 10ms}}}}
  - {{name: vector, path: /vector, upstream: "{vector}", preset: upstash-vector, cache: {{{settle}}}}}
"""


@pytest.fixture
def stand_in():
    process = StandIn()
    yield process
    process.stop()


@pytest.fixture
def strict():
    process = Strict()
    yield process
    process.stop()


@pytest.fixture
def start_pillion(tmp_path):
    """Starts Pillion with a configuration; it is ended, and must end well, when the test is over."""
    started = []

    def start(config, **options):
        directory = tmp_path / f"pillion-{len(started)}"
        directory.mkdir()
        started.append(Pillion(config, directory, **options))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def pillion(start_pillion, stand_in):
    """Pillion before the stand-in; a write of the vector index settles in one second."""
    return start_pillion(CONFIG.format(llm=stand_in.llm, vector=stand_in.vector, settle="settle: 1s"))


@pytest.fixture
def wire(monkeypatch):
    """Every response that an SDK of this process received over httpx, in order."""
    responses = []
    send = httpx.Client.send

    def recording(self, request, **options):
        response = send(self, request, **options)
        responses.append(response)
        return response

    monkeypatch.setattr(httpx.Client, "send", recording)
    return responses


@pytest.fixture(scope="session")
def chroma(tmp_path_factory):
    process = Chroma(tmp_path_factory.mktemp("chroma"))
    yield process
    process.stop()
