"""What is measured. Each scenario first checks that the answers are right, and counts errors while it measures."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import wire
from .peers import Peer
from .process import Cores, Failed, pinned
from .redis import Redis, wait_until
from .upstreams import Upstreams

KEY = f"Authorization: Bearer {wire.SECRET}"
DIRECT = "direct"

CPU = "CPU us/request"
THROUGHPUT = "requests/s, one core"
BUSY = "core busy %"
P50 = "added p50 us at 300/s"
P99 = "added p99 us at 300/s"
ERRORS = "errors"
#: What others may use of the proxies' core during a turn.
QUIET = 0.05
#: How many entries S2m looks among.
ENTRIES = (1_000, 1_000_000)
REDIS = "CPU us/request of Redis"
REDIS_HITS = 'pillion_redis_lookups_total{result="hit"}'
MILLION = "CPU among a million, times that among a thousand"
#: Requests of S6's day: each conversation begins anew some three times, so its mean length is a steady one.
DAY = 10_000
PROMPTS, SEARCHES, READ = "MB of prompts read", "searches executed", "MB read in all"
SAVED = "times less read than directly"


@dataclass(frozen=True)
class Load:
    """A scenario that wrk can drive."""

    title: str
    path: str
    bodies: str
    answer: int
    hit: bool = False
    latency: bool = False


LOADS = {
    "S1": Load(
        "pass-through, 1 KB up, 1.5 KB down", "/plain/v1/chat/completions", "chat-1k", wire.CHAT_ANSWER, latency=True
    ),
    "S1c": Load(
        "the same as a chat, through its preset",
        "/openai/v1/chat/completions",
        "chat-1k",
        wire.CHAT_ANSWER,
        latency=True,
    ),
    "S2": Load(
        "hit of 100 searches, 3 KB up, 8 KB down", "/vector/query/news", "search-3k", wire.SEARCH_ANSWER, hit=True
    ),
    "S2b": Load(
        "hit of 100 searches, 17.6 KB up, 8 KB down", "/vector/query/big", "search-18k", wire.SEARCH_ANSWER, hit=True
    ),
    "S3": Load(
        "chat of 200 messages, 200 KB up, Pillion trims to 20",
        "/openai/v1/chat/completions",
        "chat-200k",
        wire.CHAT_ANSWER,
        latency=True,
    ),
    "S3d": Load(
        "the same, its text dense with escapes and not ASCII",
        "/openai/v1/chat/completions",
        "chat-200k-dense",
        wire.CHAT_ANSWER,
    ),
    "S8": Load(
        "pass-through over TLS upstream, 1 KB up, 1.5 KB down",
        "/tls/v1/chat/completions",
        "chat-1k",
        wire.CHAT_ANSWER,
        latency=True,
    ),
    "S9": Load(
        "hit of 100 searches out of Redis, where another instance stored them, 3 KB up, 8 KB down",
        "/vector/query/news",
        "search-3k",
        wire.SEARCH_ANSWER,
        hit=True,
        latency=True,
    ),
    "S2m": Load(
        "hit among a thousand entries and among a million, 3 KB up, 256 bytes down",
        "/vector/query/small",
        "search-any",
        wire.SMALL_ANSWER,
        hit=True,
    ),
} | {
    f"P{size}": Load(
        f"pass-through, {size} KB up, 1.5 KB down", "/plain/v1/chat/completions", f"chat-{size}k", wire.CHAT_ANSWER
    )
    for size in (10, 100, 1000)
} | {
    f"T{messages}": Load(
        f"chat of {messages} messages of 1 KB, Pillion trims to 20",
        "/openai/v1/chat/completions",
        f"chat-{messages}",
        wire.CHAT_ANSWER,
    )
    for messages in (20, 2000)
}
#: Asked for by name only: how cost grows.
GROWTH = ("P10", "P100", "P1000", "T20", "T2000")
TITLES = {name: load.title for name, load in LOADS.items()} | {
    "S4": "streams of 40 events, one every 5 ms",
    "S5": "64 identical misses at once, upstream takes 200 ms",
    "S6": "a bot's day: searches, chats, 1 % writes",
    "S7": "open streams",
    "memory": "resident memory",
}


@dataclass
class Results:
    #: Values of the rounds, by scenario, measure and peer.
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, scenario: str, measure: str, peer: str, value: float) -> None:
        self.values.setdefault(scenario, {}).setdefault(measure, {}).setdefault(peer, []).append(value)

    def most(self, scenario: str, measure: str, peer: str, value: float) -> None:
        peers = self.values.setdefault(scenario, {}).setdefault(measure, {})
        peers[peer] = [max(value, *peers.get(peer, [0.0]))]

    def errors(self) -> float:
        return sum(sum(v) for s in self.values.values() for v in s.get(ERRORS, {}).values())


def core_use(core: str) -> float:
    """Seconds for which the core was busy, whoever it was."""
    line = next(line for line in open("/proc/stat") if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Lab:
    def __init__(self, folder: Path, up: Upstreams, cores: Cores, load: Path, rounds: int, seconds: int) -> None:
        self.up, self.cores, self.load, self.rounds, self.seconds = up, cores, load, rounds, seconds
        self.folder = folder
        self.bodies = wire.bodies(folder)
        self.results = Results()
        #: How much of the proxies' core others used, at worst, by scenario.
        self.disturbed: dict[str, float] = {}
        self._lua = Path(__file__).parent.parent / "wrk.lua"

    # -- asking once

    def ask(
        self, address: str, path: str, content: bytes, headers: list[str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        fields = dict(line.split(": ", 1) for line in [KEY, "Content-Type: application/json", *headers])
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", path, content, fields)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def _check(self, name: str, peer: Peer) -> None:
        """That answers are whole, that hits are hits and nothing else is, and that what is to be trimmed is."""
        load, where = LOADS[name], f"{name} through {peer.name}"
        path = peer.path(name, load.path)
        serials = []
        for file in self.bodies[load.bodies][:2] * 2:
            response, answer = self.ask(peer.address(path), path, file.read_bytes(), peer.headers)
            if response.status != 200:
                raise Failed(f"{where}: status {response.status}: {answer[:300]!r}")
            own_words = "S1" in peer.paths or "" in peer.paths  # a gateway may word the answer anew
            if len(answer) != load.answer and not own_words:
                raise Failed(f"{where}: {len(answer)} bytes, not {load.answer}")
            found = re.search(rb"[0-9a-f]{32}", answer)
            serials.append(found.group() if found else answer)
            trimmed = int(response.getheader("Pillion-Trimmed", "0"))
            if name in ("S3", "S3d") and peer.name.startswith("pillion") and trimmed not in (179, 180):
                raise Failed(f"{where}: not trimmed")
        if load.hit and not (serials[0] == serials[2] and serials[1] == serials[3] and serials[0] != serials[1]):
            raise Failed(f"{where}: a repeat is no hit, or a hit is another body's")
        if not load.hit and len(set(serials)) != len(serials):
            raise Failed(f"{where}: an answer came twice")
        if load.hit:
            for file in self.bodies[load.bodies]:
                self.ask(peer.address(path), path, file.read_bytes(), peer.headers)

    # -- driving

    def _run(self, command: list[str], seconds: float) -> str:
        done = subprocess.run(pinned(self.cores.load, command), capture_output=True, text=True, timeout=seconds + 90)
        if done.returncode:
            raise Failed(f"{' '.join(map(str, command[:4]))}: {done.stderr[-500:] or done.stdout[-500:]}")
        return done.stdout

    def _load(
        self, command: str, address: str, path: str, body: Path, headers: list[str], within: int = 0, **options: object
    ) -> dict:
        words = [str(self.load), command, "--to", address, "--path", path, "--body", str(body)]
        for line in [KEY, *headers]:
            words += ["--header", line]
        for option, value in options.items():
            words += [f"--{option}", str(value)]
        return json.loads(self._run(words, within or self.seconds))

    def _wrk(self, name: str, peer: Peer, entries: int = 0) -> None:
        """A peer's turn. One in which others used the proxies' core is taken again; the quietest counts."""
        turns = []
        for _ in range(4):
            turns.append(self._turn(name, peer, self.seconds, entries))
            if turns[-1]["others"] < QUIET:
                break
        turn = min(turns, key=lambda turn: turn["others"])
        if turn["others"] >= QUIET:
            self.disturbed[name] = max(turn["others"], self.disturbed.get(name, 0.0))
        for measure in (CPU, THROUGHPUT, BUSY):
            among = f", {entries:,} entries" if entries else ""
            self.results.add(name, measure + among, peer.name, turn[measure])
        self.results.add(name, ERRORS, peer.name, sum(turn[ERRORS] for turn in turns))
        if not entries:
            self.results.most("memory", "MiB loaded, most", peer.name, peer.server.memory())

    def _turn(self, name: str, peer: Peer, seconds: int, entries: int = 0) -> dict[str, float]:
        load = LOADS[name]
        path = peer.path(name, load.path)
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--timeout", "30s", "-s", str(self._lua)]
        command += [f"http://{peer.address(path)}{path}", "--", KEY, *peer.headers]
        command += [str(file) for file in self.bodies[load.bodies]] + ([f"of={entries}"] if entries else [])
        seen = self.up.requests()
        cpu, core, begin = peer.server.cpu(), core_use(self.cores.proxy), time.monotonic()
        output = self._run(command, seconds)
        cpu, core, took = peer.server.cpu() - cpu, core_use(self.cores.proxy) - core, time.monotonic() - begin
        seen = self.up.requests() - seen
        told = json.loads(output.split("JSON")[1])
        requests, errors = told["requests"], told["errors"]
        if not requests:
            # A gateway that has just started may not answer the first 32 within seconds.
            if seconds > 15:
                raise Failed(f"{name} through {peer.name}: no request was answered in {seconds} s")
            return self._turn(name, peer, seconds * 4, entries)
        # What the upstream saw tells a hit from a miss and an attempt from a repeat; wrk leaves some behind at its end.
        expected, slack = (0, len(self.bodies[load.bodies])) if load.hit else (requests, 64)
        if abs(seen - expected) > slack:
            self.results.notes.append(f"{name} {peer.name}: upstream saw {seen} requests, expected {expected}")
            errors += abs(seen - expected)
        if told["bytes"] < requests * (load.answer - 200) and "" not in peer.paths:
            self.results.notes.append(f"{name} {peer.name}: answers are short, {told['bytes'] / requests:.0f} bytes")
            errors += 1
        return {
            CPU: cpu / requests * 1e6,
            THROUGHPUT: requests / (told["microseconds"] / 1e6),
            BUSY: min(100.0, cpu / took * 100),
            ERRORS: errors,
            # A proxy that waits for its core is not measured alone: caches are cold, batches are larger.
            "others": (core - cpu) / took,
        }

    def _rate(self, name: str, address: str, path: str, headers: list[str]) -> tuple[float, float, int]:
        body = self.bodies[LOADS[name].bodies][0]
        told = self._load("rate", address, path, body, headers, rate=300, seconds=self.seconds)
        return told["latency_p50"], told["latency_p99"], told["errors"]

    def _in_turns(self, name: str, peers: list[Peer], measure: Callable[[int, Peer], None]) -> None:
        """Rounds in which each peer has its turn, and each round another begins."""
        for number in range(self.rounds):
            print(f"{name}: round {number + 1} of {self.rounds}", file=sys.stderr)
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                measure(number, peer)

    # -- the scenarios

    def wrk(self, name: str, peers: list[Peer]) -> None:
        load = LOADS[name]
        for peer in peers:
            self._check(name, peer)
            self._turn(name, peer, 1)
        self._in_turns(name, peers, lambda _, peer: self._wrk(name, peer))
        if not load.latency:
            return
        slow = {peer.name for peer in peers if min(self.results.values[name][THROUGHPUT][peer.name]) < 450}
        if slow:
            self.results.notes.append(f"{name}: no latency of {', '.join(sorted(slow))}: 300 requests a second fill it")
        for number in range(self.rounds):
            print(f"{name}: latency, round {number + 1} of {self.rounds}", file=sys.stderr)
            path = load.path
            port = self.up.fast
            base50, base99, _ = self._rate(name, f"127.0.0.1:{port}", path, [])
            self.results.add(name, P50, DIRECT, base50)
            self.results.add(name, P99, DIRECT, base99)
            quick = [peer for peer in peers if peer.name not in slow]
            first = number % max(1, len(quick))
            for peer in quick[first:] + quick[:first]:
                p50, p99, errors = self._rate(name, peer.address(path), peer.path(name, path), peer.headers)
                self.results.add(name, P50, peer.name, p50 - base50)
                self.results.add(name, P99, peer.name, p99 - base99)
                self.results.add(name, ERRORS, peer.name, errors)

    def shared(self, stores: Peer, peer: Peer, redis: Redis) -> None:
        """S9: what one instance has stored is given by another, which asks Redis about every search."""
        name, files = "S9", self.bodies[LOADS["S9"].bodies]
        path = LOADS[name].path
        wait_until("Redis is in use", lambda: all(self._metric(each, "pillion_redis_up") == 1 for each in (stores, peer)))
        for file in files:
            self.ask(stores.address(path), path, file.read_bytes(), [])
        wait_until("all are in Redis", lambda: int(redis.ask("DBSIZE")) > len(files))
        self.wrk(name, [peer])
        before, hits = redis.cpu(), self._metric(peer, REDIS_HITS)
        self._turn(name, peer, self.seconds)
        hits = self._metric(peer, REDIS_HITS) - hits
        self.results.add(name, REDIS, peer.name, (redis.cpu() - before) / max(1, hits) * 1e6)
        if self._metric(peer, "pillion_redis_lease"):
            raise Failed(f"S9: {peer.name} may answer from its own memory")

    def million(self, start: dict[str, Callable[[], Peer]]) -> None:
        """S2m: of each a process with a thousand entries and one with a million, measured in turns."""
        name, path, body = "S2m", LOADS["S2m"].path, self.bodies["search-any"][0]
        peers: list[tuple[Peer, int]] = []
        try:
            for peer_name, fresh in start.items():
                for entries in ENTRIES:
                    print(f"S2m: {entries:,} entries into {peer_name}", file=sys.stderr)
                    peer = fresh()
                    peers.append((peer, entries))
                    idle = peer.server.memory()
                    told = self._load(
                        "fill", peer.address(path), path, body, peer.headers, within=900, count=entries, connections=32
                    )
                    kept = self._kept(peer)
                    if told["errors"] or kept != entries:
                        raise Failed(f"S2m: {told['errors']} errors, {kept} entries of {entries} in {peer_name}")
                    each = (peer.server.memory() - idle) * 1024 / entries
                    self.results.add(name, f"KiB resident per entry, {entries:,} entries", peer_name, each)
                    self._turn(name, peer, 1, entries)
            for number in range(self.rounds):
                print(f"S2m: round {number + 1} of {self.rounds}", file=sys.stderr)
                first = number % len(peers)
                for peer, entries in peers[first:] + peers[:first]:
                    self._wrk(name, peer, entries)
            for peer_name in start:
                few, many = (self.results.values[name][f"{CPU}, {each:,} entries"][peer_name] for each in ENTRIES)
                for one, other in zip(few, many):
                    self.results.add(name, MILLION, peer_name, other / one)
        finally:
            for peer, _ in peers:
                peer.server.stop()

    def _kept(self, peer: Peer) -> int:
        """Entries in Pillion's cache, as it says itself."""
        return int(self._metric(peer, "pillion_cache_entries"))

    def _metric(self, peer: Peer, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", peer.admin_port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return float(re.search(rf"^{re.escape(name)} (\S+)", text, re.M).group(1))

    def streams(self, peers: list[Peer]) -> None:
        """S4."""
        path, body = "/live/openai/v1/chat/completions", self.bodies["chat-stream"][0]
        wanted = ["x-bench: stream 40 5000"]
        base: dict[str, float] = {}

        def measure(_: int, peer: Peer | None) -> None:
            address = peer.address(path) if peer else f"127.0.0.1:{self.up.live}"
            cpu = peer.server.cpu() if peer else 0.0
            headers = wanted + (peer.headers if peer else [])
            told = self._load("streams", address, path, body, headers, seconds=self.seconds, connections=32)
            add, name = self.results.add, peer.name if peer else DIRECT
            if peer:
                add("S4", "CPU us/event", name, (peer.server.cpu() - cpu) / told["events"] * 1e6)
            else:
                base.clear()
            for key, measure in (
                ("first_p50", "added to first event p50 us"),
                ("delay_p50", "added per event p50 us"),
                ("delay_p99", "added per event p99 us"),
            ):
                base.setdefault(key, told[key])
                add("S4", measure, name, told[key] - (base[key] if peer else 0))
            add("S4", "events per read", name, told["events"] / told["reads"])
            add("S4", ERRORS, name, told["errors"])

        for number in range(self.rounds):
            print(f"S4: round {number + 1} of {self.rounds}", file=sys.stderr)
            measure(number, None)
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                measure(number, peer)

    def herd(self, peers: list[Peer]) -> None:
        """S5."""
        serial = 0
        file = self.folder / "herd.json"

        def measure(_: int, peer: Peer) -> None:
            nonlocal serial
            serial += 1
            file.write_bytes(wire.search(5000 + serial, 256))
            self.up.live_counts()
            path = "/live/vector/query/herd"
            told = self._load(
                "herd", peer.address(path), path, file, ["x-bench: wait 200", *peer.headers], connections=64
            )
            self.results.add("S5", "upstream calls", peer.name, self.up.live_counts()["searches"])
            if told["delay_count"]:
                self.results.add("S5", "slowest waiter after the answer, ms", peer.name, told["delay_max"] / 1000)
            self.results.add("S5", ERRORS, peer.name, told["errors"])

        self._in_turns("S5", peers, measure)

    def day(self, peers: list[Peer]) -> None:
        """S6: the work that reaches the upstream, without and with."""
        add = self.results.add
        for number in range(self.rounds):
            print(f"S6: round {number + 1} of {self.rounds}", file=sys.stderr)
            direct = 0.0
            for peer in [None, *peers]:
                address, name = (peer.address("/live/"), peer.name) if peer else (f"127.0.0.1:{self.up.live}", DIRECT)
                self.up.live_counts()
                cpu = peer.server.cpu() if peer else 0.0
                told = json.loads(self._run(day_command(self.load, address, number + 1), 120))
                counts = self.up.live_counts()
                read = (counts["chat_bytes"] + counts["search_bytes"]) / 1e6
                add("S6", "upstream calls", name, counts["searches"] + counts["chats"] + counts["writes"])
                add("S6", PROMPTS, name, counts["chat_bytes"] / 1e6)
                add("S6", SEARCHES, name, counts["searches"])
                add("S6", READ, name, read)
                add("S6", ERRORS, name, told["errors"])
                if peer is None:
                    direct = read
                    add("S6", "searches that a cache without a flaw leaves", name, told["least"])
                    continue
                add("S6", SAVED, name, direct / read)
                add("S6", CPU, name, (peer.server.cpu() - cpu) / DAY * 1e6)
                add("memory", "MiB after a day", name, peer.server.memory())

    def open_streams(self, start: dict[str, Callable[[], Peer]]) -> None:
        """S7, each time with a fresh process: what an allocator keeps would hide what a stream takes."""
        path, body = "/live/openai/v1/chat/completions", self.bodies["chat-stream"][0]
        for count in (1000, 8000):
            for name, fresh in start.items():
                print(f"S7: {count} streams through {name}", file=sys.stderr)
                peer = fresh()
                try:
                    self.ask(peer.address(path), path, body.read_bytes(), ["x-bench: stream 2 1000", *peer.headers])
                    idle = peer.server.memory()
                    words = [str(self.load), "hold", "--to", peer.address(path), "--path", path, "--body", str(body)]
                    words += ["--connections", str(count)]
                    for line in [KEY, "x-bench: stream 3 20000000", *peer.headers]:
                        words += ["--header", line]
                    holding = subprocess.Popen(
                        pinned(self.cores.load, words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                    try:
                        told = json.loads(holding.stdout.readline())
                        time.sleep(0.5)
                        loaded = peer.server.memory()
                    finally:
                        holding.stdin.close()
                        holding.wait(timeout=30)
                        holding.stdout.close()
                    self.results.add(
                        "S7", f"KiB per stream at {count}", name, (loaded - idle) * 1024 / max(1, told["open"])
                    )
                    self.results.add("S7", ERRORS, name, told["errors"])
                finally:
                    peer.server.stop()


def day_command(load: Path, address: str, seed: int) -> list[str]:
    """A day of S6, always the same for the same seed."""
    command = [str(load), "day", "--to", address, "--chat", "/live/openai/v1/chat/completions"]
    command += ["--vector", "/live/vector", "--requests", str(DAY), "--seed", str(seed), "--header", KEY]
    return command


def versions() -> dict[str, str]:
    told = {}
    for program, flag in (("nginx", "-v"), ("haproxy", "-v"), ("varnishd", "-V"), ("wrk", "-v")):
        found = shutil.which(program) or shutil.which(f"/usr/sbin/{program}")
        if found:
            done = subprocess.run([found, flag], capture_output=True, text=True)
            told[program] = (done.stdout + done.stderr).strip().split("\n")[0]
    return told
