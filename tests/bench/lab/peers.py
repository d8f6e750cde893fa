"""Pillion and its peers, each set up for the scenarios that it can do.

Paths are the same for all: /plain and /openai pass through, /vector is cached, /live/... goes to the upstream that
waits and streams, /tls to the one over TLS.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from . import wire
from .process import OPEN_FILES, Cores, Server, free_ports
from .upstreams import NGINX_PATHS, Upstreams, nginx_head

PASS = {"S1", "S1c", "S3", "S3d", "S8", "P10", "P100", "P1000", "T20", "T2000"}
STREAM = {"S4", "S7"}
CACHE = {"S2", "S2b"}


@dataclass
class Peer:
    name: str
    #: What it can do.
    can: set[str]
    port: int
    server: Server
    #: What its requests carry besides.
    headers: list[str] = field(default_factory=list)
    #: Paths of its own, by scenario.
    paths: dict[str, str] = field(default_factory=dict)
    #: Where /live/ is served, if elsewhere.
    live_port: int = 0
    #: Pillion's own numbers.
    admin_port: int = 0

    def address(self, path: str) -> str:
        port = self.live_port if self.live_port and path.startswith("/live/") else self.port
        return f"127.0.0.1:{port}"

    def path(self, scenario: str, usual: str) -> str:
        return self.paths.get(scenario, self.paths.get("", usual))


class Missing(Exception):
    """A peer that is not installed, and what would install it."""


def _environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", **more}


def _executable(*candidates: str | Path, how: str) -> str:
    for candidate in candidates:
        found = shutil.which(str(candidate))
        if found:
            return found
    raise Missing(how)


def pillion(
    binary: Path,
    folder: Path,
    up: Upstreams,
    cores: Cores,
    repository: Path,
    large: bool = False,
    redis: str = "",
) -> Peer:
    """`large` is for S2m: room for a million entries, which take longer to fill than they usually live."""
    port, admin = free_ports(2)
    memory, ttl = ("{cache: 4GiB}", "1h") if large else ("{}", "5m")
    config = folder / "pillion.yaml"
    # Everything that exists is on. Four values are the lab's: one worker for one core, a store that shows its writes at
    # once (S6), since after a write through Upstash's preset nothing is stored for 30 seconds, patience with a Redis that
    # shares its core with the load (S9), and room for thousands of open streams (S7).
    config.write_text(f"""version: 1
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
workers: 1
memory: {memory}
limits: {{max_in_flight: 100000}}
redis: {{url: "{redis}", timeout: 1s}}
tls: {{ca: {up.authority}}}
routes:
  - {{name: plain, path: /plain, upstream: "http://127.0.0.1:{up.fast}", preset: http}}
  - {{name: openai, path: /openai, upstream: "http://127.0.0.1:{up.fast}", preset: openai}}
  - name: vector
    path: /vector
    upstream: http://127.0.0.1:{up.vector}
    preset: upstash-vector
    cache: {{ttl: {ttl}, settle: 0s}}
  - {{name: live-openai, path: /live/openai, upstream: "http://127.0.0.1:{up.live}", preset: openai}}
  - name: live-vector
    path: /live/vector
    upstream: http://127.0.0.1:{up.live_vector}
    preset: upstash-vector
    cache: {{settle: 0s}}
  - {{name: tls, path: /tls, upstream: "https://127.0.0.1:{up.tls}", preset: http}}
""")
    command = [str(binary), "run", "--config", str(config)]
    server = Server("pillion", command, cores.proxy, [port, admin], folder, _environment())
    return Peer("pillion", PASS | CACHE | STREAM | {"S2m", "S5", "S6"}, port, server, admin_port=admin)


def nginx(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    _executable("nginx", how="tests/setup bench")
    (port,) = free_ports(1)
    config = folder / "nginx.conf"
    keep = "keepalive 128; keepalive_requests 1000000000; keepalive_timeout 1h;"
    to = {"fast": up.fast, "vector": up.vector, "tls": up.tls, "live": up.live, "live_vector": up.live_vector}
    pools = "\n".join(f" upstream {name} {{ server 127.0.0.1:{number}; {keep} }}" for name, number in to.items())
    # $request_body is empty where the body went to a file: hence the first buffer. A stored response begins with its
    # key, which must fit into the second: hence the location of the large searches.
    config.write_text(
        nginx_head(folder)
        + f"""http {{
 access_log off; {NGINX_PATHS} sendfile on; keepalive_requests 1000000000; keepalive_timeout 1h;
 client_body_buffer_size 512k; client_max_body_size 50m;
 proxy_http_version 1.1; proxy_set_header Connection "";
 proxy_cache_path {folder}/cache levels=1:2 keys_zone=c:64m inactive=1h max_size=1g use_temp_path=off;
 proxy_cache_methods POST; proxy_cache_valid 200 5m;
 proxy_cache_key "$request_uri $http_authorization $request_body"; open_file_cache max=2000;
{pools}
 server {{ listen 127.0.0.1:{port} backlog=4096;
  location / {{ proxy_pass http://fast; }}
  location /vector/ {{ proxy_pass http://vector; proxy_cache c; }}
  location /vector/query/big {{ proxy_pass http://vector; proxy_cache c; proxy_buffer_size 32k; proxy_buffers 8 32k; }}
  location /live/openai/ {{ proxy_pass http://live; proxy_buffering off; }}
  location /live/vector/ {{ proxy_pass http://live_vector; proxy_cache c; proxy_cache_lock on; }}
  location /tls/ {{ proxy_pass https://tls; proxy_ssl_verify on; proxy_ssl_trusted_certificate {up.authority};
   proxy_ssl_name localhost; proxy_ssl_session_reuse on; }}
 }}
}}
"""
    )
    server = Server("nginx", ["nginx", "-c", str(config), "-p", str(folder)], cores.proxy, [port], folder)
    return Peer("nginx", PASS | CACHE | STREAM | {"S5"}, port, server)


def haproxy(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    program = _executable("haproxy", "/usr/sbin/haproxy", how="tests/setup bench")
    port, live = free_ports(2)
    config = folder / "haproxy.cfg"
    # It cannot cache a POST. Streams have a frontend of their own: without `http-no-delay` 40 events come in 4 reads,
    # with it the others pay.
    config.write_text(f"""global
  nbthread 1
  maxconn {OPEN_FILES // 2 - 500}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 1h
  http-reuse always
frontend pass
  bind 127.0.0.1:{port}
  use_backend tls if {{ path_beg /tls/ }}
  default_backend fast
frontend streams
  bind 127.0.0.1:{live}
  option http-no-delay
  default_backend live
backend fast
  server fast 127.0.0.1:{up.fast}
backend live
  option http-no-delay
  server live 127.0.0.1:{up.live}
backend tls
  server tls 127.0.0.1:{up.tls} ssl verify required ca-file {up.authority} sni str(localhost) verifyhost localhost
""")
    server = Server("haproxy", [program, "-f", str(config)], cores.proxy, [port, live], folder)
    return Peer("haproxy", PASS | STREAM | {"S5"}, port, server, live_port=live)


def varnish(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    program = _executable("varnishd", "/usr/sbin/varnishd", how="tests/setup bench")
    (port,) = free_ports(1)
    config = folder / "default.vcl"
    # The hash of a body is bodyaccess's (varnish-modules). It has no TLS of its own.
    config.write_text(f"""vcl 4.1;
import std;
import bodyaccess;
backend fast {{ .host = "127.0.0.1"; .port = "{up.fast}"; }}
backend live {{ .host = "127.0.0.1"; .port = "{up.live}"; }}
backend live_vector {{ .host = "127.0.0.1"; .port = "{up.live_vector}"; }}
backend vector {{ .host = "127.0.0.1"; .port = "{up.vector}"; }}
sub vcl_recv {{
  if (req.url ~ "^/live/vector/") {{ set req.backend_hint = live_vector; }}
  else if (req.url ~ "^/live/") {{ set req.backend_hint = live; }}
  else if (req.url ~ "^/vector/") {{ set req.backend_hint = vector; }}
  else {{ set req.backend_hint = fast; }}
  if (req.url ~ "^/vector/" || req.url ~ "^/live/vector/") {{
    std.cache_req_body(512KB);
    set req.http.x-method = req.method;
    return (hash);
  }}
  return (pass);
}}
sub vcl_hash {{
  hash_data(req.url);
  hash_data(req.http.authorization);
  bodyaccess.hash_req_body();
  return (lookup);
}}
sub vcl_backend_fetch {{
  if (bereq.http.x-method) {{ set bereq.method = bereq.http.x-method; unset bereq.http.x-method; }}
}}
sub vcl_backend_response {{
  if (bereq.url ~ "/vector/") {{ unset beresp.http.set-cookie; set beresp.ttl = 300s; }}
}}
""")
    work = folder / "work"
    command = [program, "-F", "-j", "none", "-n", str(work), "-f", str(config), "-a", f"127.0.0.1:{port}"]
    command += ["-s", "malloc,256m", "-p", "thread_pools=1", "-p", "thread_pool_min=80", "-p", "thread_pool_max=300"]
    command += ["-p", "http_max_hdr=64", "-p", "timeout_idle=60"]
    server = Server("varnish", command, cores.proxy, [port], folder)
    # A thread for each open stream: S7 is not for it.
    return Peer("varnish", {"S1", "S1c", "S3", "S4", "S5"} | CACHE, port, server)


def envoy(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    program = _executable("envoy", repository / "target/peers/envoy/bin/envoy", how="make bench-peers")
    (port,) = free_ports(1)

    def cluster(name: str, upstream: int, tls: str = "") -> str:
        return f"""  - name: {name}
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 20000, max_pending_requests: 20000, max_requests: 20000}}]}}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
{tls}"""

    config = folder / "envoy.yaml"
    tls = f"""    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context: {{validation_context: {{trusted_ca: {{filename: {up.authority}}}}}}}
"""
    config.write_text(f"""static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{prefix: /live/}}, route: {{cluster: live, timeout: 0s}}}}
              - {{match: {{prefix: /tls/}}, route: {{cluster: tls}}}}
              - {{match: {{prefix: /}}, route: {{cluster: fast}}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{cluster("fast", up.fast)}
{cluster("live", up.live)}
{cluster("tls", up.tls, tls)}
""")
    command = [program, "--config-path", str(config), "--concurrency", "1", "--log-level", "error"]
    command += ["--use-dynamic-base-id"]
    server = Server("envoy", command, cores.proxy, [port], folder)
    return Peer("envoy", PASS | STREAM, port, server)


def traefik(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    program = _executable("traefik", repository / "target/peers/traefik/bin/traefik", how="make bench-peers")
    (port,) = free_ports(1)
    routes = folder / "routes.yaml"
    routers = {"fast": "PathPrefix(`/`)", "live": "PathPrefix(`/live/`)", "tls": "PathPrefix(`/tls/`)"}
    urls = {"fast": f"http://127.0.0.1:{up.fast}", "live": f"http://127.0.0.1:{up.live}"}
    urls["tls"] = f"https://127.0.0.1:{up.tls}"
    lines = ["http:", "  routers:"]
    lines += [f'    {name}: {{rule: "{rule}", service: {name}}}' for name, rule in routers.items()]
    lines += ["  services:"]
    lines += [
        f'    {name}: {{loadBalancer: {{serversTransport: all, servers: [{{url: "{url}"}}]}}}}'
        for name, url in urls.items()
    ]
    lines += ["  serversTransports:"]
    lines += [f'    all: {{maxIdleConnsPerHost: 1000, serverName: localhost, rootCAs: ["{up.authority}"]}}']
    routes.write_text("\n".join(lines) + "\n")
    config = folder / "traefik.yaml"
    # It reads and writes a request as long as that takes.
    config.write_text(f"""global: {{checkNewVersion: false, sendAnonymousUsage: false}}
entryPoints:
  web:
    address: 127.0.0.1:{port}
    transport: {{respondingTimeouts: {{readTimeout: 0s}}}}
providers: {{file: {{filename: {routes}}}}}
log: {{level: ERROR}}
""")
    command = [program, f"--configFile={config}"]
    server = Server("traefik", command, cores.proxy, [port], folder, _environment(GOMAXPROCS="1"))
    return Peer("traefik", PASS | STREAM, port, server)


def litellm(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    how = "make bench-peers"
    program = _executable(repository / "target/peers/litellm/bin/litellm", how=how)
    (port,) = free_ports(1)
    config = folder / "litellm.yaml"
    config.write_text(f"""model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_base: "http://127.0.0.1:{up.fast}/v1", api_key: bench}}
litellm_settings: {{telemetry: false}}
""")
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = _environment(
        LITELLM_LOCAL_MODEL_COST_MAP="True", DISABLE_ADMIN_UI="True", LITELLM_MASTER_KEY=wire.SECRET
    )
    server = Server("litellm", command, cores.proxy, [port], folder, environment)
    return Peer("litellm", {"S1", "S3"}, port, server, paths={"": "/v1/chat/completions"})


def portkey(folder: Path, up: Upstreams, cores: Cores, repository: Path) -> Peer:
    start = repository / "target/peers/portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    if not start.exists():
        raise Missing("make bench-peers")
    (port,) = free_ports(1)
    node = _executable("node", how="tests/setup tests")
    command = [node, str(start), f"--port={port}", "--headless"]
    server = Server("portkey", command, cores.proxy, [port], folder, _environment(NODE_ENV="production"))
    headers = ["x-portkey-provider: openai", f"x-portkey-custom-host: http://127.0.0.1:{up.fast}/v1"]
    return Peer("portkey", {"S1", "S3"}, port, server, headers, {"": "/v1/chat/completions"})


#: In the order of the table.
PEERS = {
    "nginx": nginx,
    "haproxy": haproxy,
    "varnish": varnish,
    "envoy": envoy,
    "traefik": traefik,
    "litellm": litellm,
    "portkey": portkey,
}
