"""A real Redis of the lab's own, and the few commands that the lab gives it."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

from .process import Failed, Server, free_ports

#: The server: another version, or Valkey.
PROGRAM = os.environ.get("PILLION_REDIS_SERVER", "redis-server")


class Redis:
    def __init__(self, folder: Path, core: str, *more: str) -> None:
        if not shutil.which(PROGRAM):
            raise Failed(f"{PROGRAM} is not installed: tests/setup tests")
        folder.mkdir(exist_ok=True)
        (self.port,) = free_ports(1)
        self._folder, self._core, self._more = folder, core, more
        self._server: Server | None = None
        self.start()

    def start(self, *more: str) -> None:
        """Starts it, or starts it again, on the same port and with what it saved. Does not wait until that is loaded."""
        command = [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self._folder), *self._more, *more]
        self._server = Server("redis", command, self._core, [self.port], self._folder)

    def ask(self, *words: str) -> object:
        """One command's answer: text, number, list or None."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            return self._call(connection.makefile("rwb"), words)

    def answers(self) -> bool:
        """Whether it does what it is asked: not while it loads."""
        try:
            return self.ask("PING") == "PONG"
        except (OSError, Failed):
            return False

    def keys(self) -> list[tuple[str, int, bytes]]:
        """Every key, how long it still lives in milliseconds (-1: for ever), and what lies there."""
        found = []
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            wire = connection.makefile("rwb")
            cursor = "0"
            while True:
                cursor, names = self._call(wire, ["SCAN", cursor, "COUNT", "1000"])
                for name in names:
                    lives, content = self._call(wire, ["PTTL", name]), self._call(wire, ["DUMP", name], raw=True)
                    # -2: it has ended meanwhile.
                    if lives != -2:
                        found.append((name, lives, content or b""))
                if cursor == "0":
                    return found

    def cpu(self) -> float:
        return self._server.cpu()

    def signal(self, number: signal.Signals) -> None:
        self._server.signal(number)

    def kill(self) -> None:
        self._server.signal(signal.SIGKILL)
        self._server.stop()

    def stop(self) -> None:
        if self._server.alive():
            # One that is stopped would not hear that it is to end.
            self._server.signal(signal.SIGCONT)
        self._server.stop()

    def version(self) -> str:
        told = dict(line.split(":", 1) for line in self.ask("INFO", "server").splitlines() if ":" in line)
        name = told.get("server_name", "redis")
        return f"{name} {told[name + '_version' if name == 'valkey' else 'redis_version']}"

    def _call(self, wire, words, raw: bool = False) -> object:
        parts = [word.encode() for word in words]
        wire.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        wire.flush()
        return self._answer(wire, raw)

    def _answer(self, wire, raw: bool) -> object:
        line = wire.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failed(f"redis: {rest.decode()}")
        if kind == b"*":
            return [self._answer(wire, raw) for _ in range(int(rest))]
        if kind == b"$":
            if int(rest) < 0:
                return None
            content = wire.read(int(rest) + 2)[:-2]
            return content if raw else content.decode(errors="replace")
        if kind not in (b":", b"+"):
            raise Failed("redis: the connection broke")
        return int(rest) if kind == b":" else rest.decode()


def wait_until(what: str, holds, seconds: float = 30, every: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(every)
