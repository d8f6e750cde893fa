"""Starts and ends what the client tests talk to. Every process binds a free port, says or shows which, is ended by its
own handle, and ends by itself when a test run dies."""

import os
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 20
LIFETIME_SECONDS = 300
# What Pillion, or a library of the tests, would read of the environment, and the tests do not mean.
LIBRARIES = ("OPENAI_", "ANTHROPIC_", "UPSTASH_", "LANGCHAIN_", "LANGSMITH_")
OURS = ("PILLION_", "VECTOR_", "CONVERSATION_", "CHROMA_", "REDIS_")
FOREIGN = re.compile(rf"^({'|'.join(LIBRARIES + OURS)})|_proxy$", re.IGNORECASE)
LISTENING = re.compile(r"listening on (http://\S+?)/? \(([^)]+)\)")


def pillion_binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = Path(os.environ.get("PILLION_BIN", target / "debug" / "pillion"))
    assert path.is_file(), f"{path} is missing: cargo build"
    return path


def strict_binary():
    if named := os.environ.get("PILLION_STRICT"):
        return Path(named)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    places = [directory / "examples" / "strict_upstream" for directory in (pillion_binary().parent, target / "debug")]
    path = next((path for path in places if path.is_file()), None)
    assert path, f"{places[0]} is missing: cargo build --examples"
    return path


def clean_environment(**extra):
    """This process's environment without anything that Pillion or an SDK would read."""
    return {**{k: v for k, v in os.environ.items() if not FOREIGN.search(k)}, **extra}


def eventually(look, what, seconds=15.0):
    """Calls `look` until it answers something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class StandIn:
    def __init__(self):
        command = [sys.executable, str(HERE / "stand_in.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        lines = [self.process.stdout.readline() for _ in range(2)]
        urls = {match.group(2): match.group(1) for match in map(LISTENING.search, lines) if match}
        assert set(urls) == {"llm", "vector"}, f"the stand-in did not start: {lines}"
        self.llm, self.vector = urls["llm"], urls["vector"]
        self.control = httpx.Client(base_url=self.llm, trust_env=False, timeout=10)

    def calls(self, path=None):
        """What arrived, in order; `path` selects by the path without its query."""
        journal = self.control.get("/_journal").json()
        return [call for call in journal if path is None or call["path"].split("?")[0] == path]

    def fail(self, path, statuses):
        self.control.post("/_fail", json={"path": path, "statuses": statuses}).raise_for_status()

    def delay(self, seconds):
        self.control.post("/_delay", json={"seconds": seconds}).raise_for_status()

    def stop(self):
        self.control.close()
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


class Strict:
    """The upstream that refuses what the vendors refuse of a conversation."""

    def __init__(self):
        command = ["timeout", "--kill-after=5", str(LIFETIME_SECONDS), strict_binary()]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
        )
        line = self.process.stdout.readline()
        match = LISTENING.search(line)
        assert match and match.group(2) == "strict", f"the strict upstream did not start: {line!r}"
        self.url = match.group(1)

    def counts(self):
        return httpx.get(f"{self.url}/_counts", trust_env=False, timeout=10).json()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


class Pillion:
    """A running `pillion run`. `urls` has `data`, `admin`, and one `route NAME` for each route with its own listener."""

    def __init__(self, config, directory, listeners=("data", "admin"), environment=None):
        path = Path(directory) / "pillion.yaml"
        path.write_text(config)
        self.process = subprocess.Popen(
            ["timeout", "--kill-after=5", str(LIFETIME_SECONDS), pillion_binary(), "run", "--config", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment or clean_environment(),
        )
        self.log = []
        self.urls = {}
        lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self.reader.start()
        deadline = time.monotonic() + START_SECONDS
        while missing := [name for name in listeners if name not in self.urls]:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self.process.terminate()  # `timeout` hands it on, and kills what stays
                self.process.wait(timeout=30)
                raise AssertionError(f"Pillion did not say where {missing} listens:\n{''.join(self.log)}")
            if match := LISTENING.search(line):
                self.urls[match.group(2)] = match.group(1)

    def _read(self, lines):
        for line in self.process.stderr:
            self.log.append(line)
            lines.put(line)
        lines.put(None)

    def settled(self, search):
        """Waits until an answer may be stored: right after a start nobody knows when the last write was."""
        with httpx.Client(trust_env=False, timeout=10) as client:
            ask = lambda: client.post(f"{self.data}{search}", json={}).headers["cache-status"]
            eventually(lambda: "settle" not in ask(), "what was written before the start has settled")
        return self

    def __getattr__(self, name):
        if name in ("data", "admin"):
            return self.urls[name]
        raise AttributeError(name)

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=30)  # not longer: what does not end in five seconds is killed by `timeout`
        self.reader.join(timeout=5)
        self.process.stderr.close()
        log = "".join(self.log)
        assert code == 0, f"Pillion ended with {code}:\n{log}"
        assert "panicked" not in log, log


class Chroma:
    """A real `chroma run`. It binds port 0 but does not say which port it got; its listening socket shows it."""

    def __init__(self, directory):
        self.log = Path(directory) / "chroma.log"
        binary = Path(sys.executable).with_name("chroma")
        assert binary.is_file(), f"{binary} is missing: tests/setup tests"
        command = [binary, "run", "--path", Path(directory) / "data", "--host", "127.0.0.1", "--port", "0"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["timeout", "--foreground", "--kill-after=5", str(LIFETIME_SECONDS), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=clean_environment(ANONYMIZED_TELEMETRY="False"),
            )
        self.port = eventually(self._listening_port, "chroma listens", seconds=60)
        self.url = f"http://127.0.0.1:{self.port}"

        def alive():
            try:
                return httpx.get(f"{self.url}/api/v2/heartbeat", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        eventually(alive, "chroma answers its heartbeat", seconds=60)

    def _listening_port(self):
        assert self.process.poll() is None, f"chroma ended:\n{self.log.read_text()}"
        ours = set()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in [str(self.process.pid), *children]:
            try:
                ours |= {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
            except OSError:
                continue  # a descriptor was closed while we looked: the next round sees
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                return int(fields[1].split(":")[1], 16)
        return None

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)
