"""What the proxies ask: nginx's `return` (cheap, counts requests), the same over TLS, and the lab's own for streams."""

import http.client
import json
import os
import subprocess
from pathlib import Path

from . import wire
from .process import OPEN_FILES, Cores, Server, free_ports

NGINX_PATHS = "".join(f"{kind}_temp_path tmp; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def nginx_head(folder: Path, errors: str = "error.log") -> str:
    """What every nginx of the lab has in common."""
    user = "user root;" if os.getuid() == 0 else ""
    return f"""{user} worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/{errors} error;
worker_rlimit_nofile {OPEN_FILES};
events {{ worker_connections {OPEN_FILES - 500}; }}
"""


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority, and a certificate of 127.0.0.1 and localhost by it with its key."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    for command in (
        ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench authority"],
        ["-keyout", "leaf.key", "-out", "leaf.pem", "-subj", "/CN=localhost", "-CA", "ca.pem", "-CAkey", "ca.key"]
        + ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", names],
    ):
        subprocess.run(["openssl", "req", "-x509", *key, *command], cwd=folder, check=True, capture_output=True)
    return folder / "ca.pem", folder / "leaf.pem", folder / "leaf.key"


def _search(size: int) -> str:
    """Answers with so many bytes. A word of nginx's configuration is at most 4 KB long."""
    before, after = wire.search_answer(size)
    pieces = [after[at : at + 2000] for at in range(0, len(after), 2000)]
    variables = "\n".join(f"set $piece{n} '{piece}';" for n, piece in enumerate(pieces))
    return f"{variables} return 200 '{before}$request_id" + "".join(f"$piece{n}" for n in range(len(pieces))) + "';"


class Upstreams:
    def __init__(self, folder: Path, load: Path, cores: Cores) -> None:
        folder = folder / "upstream"
        folder.mkdir()
        self.authority, certificate, key = certificates(folder)
        # Searches have ports of their own. Were there one for everything, to Pillion every POST would be a write that
        # may change what searches find: services that share an authority share its store.
        self.fast, self.vector, self.tls, self.live, self.live_vector = free_ports(5)
        chat, small = wire.chat_answer(), wire.small_answer()
        server = f"""keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
  client_max_body_size 50m; client_body_buffer_size 512k;
  location = /count {{ stub_status; }}
  location ~ /chat/completions$ {{ return 200 '{chat[0]}$request_id{chat[1]}'; }}
  location ~ /query/small$ {{ return 200 '{small[0]}$request_id{small[1]}'; }}
  location ~ /query/large$ {{ {_search(wire.LARGE_ANSWER)} }}
  location ~ /query {{ {_search(wire.SEARCH_ANSWER)} }}
  location / {{ return 404; }}"""
        config = folder / "nginx.conf"
        config.write_text(
            nginx_head(folder)
            + f"""http {{ access_log off; {NGINX_PATHS}
 server {{ listen 127.0.0.1:{self.fast} backlog=4096; {server} }}
 server {{ listen 127.0.0.1:{self.vector} backlog=4096; {server} }}
 server {{ listen 127.0.0.1:{self.tls} ssl backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {key};
  ssl_session_cache shared:s:1m; {server} }}
}}
"""
        )
        nginx = ["nginx", "-c", str(config), "-p", str(folder)]
        self._servers = [Server("upstream", nginx, cores.upstream, [self.fast, self.vector, self.tls], folder)]
        own = [str(load), "upstream", "--to", f"127.0.0.1:{self.live}", "--to", f"127.0.0.1:{self.live_vector}"]
        try:
            self._servers.append(Server("upstream-live", own, cores.upstream, [self.live, self.live_vector], folder))
        except BaseException:
            self.stop()
            raise

    def requests(self) -> int:
        """Requests that the fast upstream and its TLS twin have seen, these look-ups excluded."""
        connection = http.client.HTTPConnection("127.0.0.1", self.fast, timeout=5)
        connection.request("GET", "/count")
        total = int(connection.getresponse().read().split()[9])
        connection.close()
        self._looks = getattr(self, "_looks", 0) + 1
        return total - self._looks

    def live_counts(self) -> dict[str, int]:
        """Calls that the live upstream has seen since this was last asked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.live, timeout=5)
        connection.request("GET", "/counts")
        counts = json.loads(connection.getresponse().read())
        connection.close()
        return counts

    def stop(self) -> None:
        for server in self._servers:
            server.stop()
