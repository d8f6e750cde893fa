"""Processes of the lab: started pinned, on free ports of loopback, and ended by their own handle."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

OPEN_FILES = 20000


class Failed(Exception):
    """The lab cannot go on."""


class Cores:
    """The measured proxies share one core, which nothing else uses; upstreams and load share the others."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise Failed("at least two cores are needed: one for the proxies alone")
        self.proxy = str(cores[0])
        self.load = str(cores[-1])
        self.upstream = str(cores[1])

    def all(self) -> list[str]:
        return sorted({self.proxy, self.upstream, self.load})

    def leave_proxy_core(self) -> None:
        """Takes this process, and what it starts without pinning, off the proxies' core."""
        os.sched_setaffinity(0, {core for core in os.sched_getaffinity(0) if str(core) != self.proxy})


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def pinned(core: str, command: list[str]) -> list[str]:
    # A lab that is killed takes its processes with it.
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", core, *map(str, command)]


class Server:
    """A server of the lab, with the processes it forked."""

    def __init__(self, name: str, command: list[str], core: str, ports: list[int], folder: Path, env=None) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                pinned(core, command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=env,
            )
        try:
            for port in ports:
                self._wait_for(port)
        except BaseException:
            self.stop()
            raise

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise Failed(f"{self.name} does not listen on port {port}:\n{self.log.read_text(errors='replace')[-2000:]}")

    def pids(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except OSError:
                pass
        return found

    def cpu(self) -> float:
        """Seconds of CPU that the server and what it forked have used, by the kernel's clock of each process."""
        total = 0
        for pid in self.pids():
            try:
                total += time.clock_gettime_ns((~pid << 3) | 2)
            except OSError:
                pass
        return total / 1e9

    def memory(self) -> float:
        """MiB resident; pages that its processes share count once."""
        total = 0
        for pid in self.pids():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
