"""The upstream of the client tests: OpenAI-like under /v1, Upstash-Vector-like beside it, and a journal of every call.

    python stand_in.py [--indexing-delay SECONDS]

Binds two free ports of 127.0.0.1, prints `listening on http://127.0.0.1:PORT (llm)` and the same for `(vector)`, and
ends when its standard input closes, so that it never outlives the test that started it. Two, because they are two
services: Pillion flushes more than a namespace where routes of different presets share one upstream.

Chat and embeddings choose their answer by the model's name: see `ERRORS`, and `flaky-STATUS-N-anything`, which fails N
times and succeeds from then on; `reset` ends the connection; `drifting` embeds a text differently with every call, as
real models do a little. Everything else fails when told so by `POST /_fail`.

For the tests themselves:
    GET  /_journal               every call received: method, path, headers, body
    POST /_fail   {"path", "statuses"}   the next calls of this path are answered so
    POST /_delay  {"seconds"}    how long from now on a write of the vector index takes to become visible
"""

import argparse
import base64
import hashlib
import json
import math
import socket
import struct
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

DIMENSION = 8


def openai_error(status, message, kind, code=None, param=None, headers=None):
    # Odd spacing on purpose: a proxy that parses and prints again is seen.
    inner = json.dumps({"message": message, "type": kind, "param": param, "code": code}, indent=1)
    return status, f'{{"error" :  {inner} }}\n', headers or {}


ERRORS = {
    "bad-request": openai_error(
        400, "This model's maximum context length is 10 tokens.", "invalid_request_error", "context_length_exceeded", "messages"
    ),
    "missing": openai_error(404, "The model `missing` does not exist.", "invalid_request_error", "model_not_found"),
    "rate-limited": openai_error(
        429, "Rate limit reached.", "requests", "rate_limit_exceeded",
        headers={"retry-after-ms": "10", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "10ms"},
    ),
    "no-quota": openai_error(429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
    "broken": openai_error(500, "The server had an error.", "server_error"),
    "overloaded": openai_error(503, "The engine is overloaded.", "server_error"),
}
UNAUTHORIZED = openai_error(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")


def embed(text):
    """A vector of unit length, the same for the same text."""
    digest = hashlib.sha256(str(text).encode()).digest()
    raw = [byte - 127.5 for byte in digest[:DIMENSION]]
    norm = math.sqrt(sum(x * x for x in raw))
    return [round(x / norm, 6) for x in raw]


class VectorIndex:
    """Writes take effect for readers `delay` seconds after they were acknowledged, in the order they came."""

    def __init__(self, delay):
        self.delay = delay
        self.lock = threading.Lock()
        self.latest = {"": {}}
        self.visible = {"": {}}
        self.pending = []

    def settle(self):
        now = time.monotonic()
        while self.pending and self.pending[0][0] <= now:
            self.pending.pop(0)[1](self.visible)

    def write(self, change):
        with self.lock:
            result = change(self.latest)
            self.pending.append((time.monotonic() + self.delay, change))
            self.settle()
            return result

    def read(self, look):
        with self.lock:
            self.settle()
            return look(self.visible)


def cosine(a, b):
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b)) / norm if norm else 0.0


def shown(record, asked):
    out = {"id": record["id"]}
    for flag, field in (("includeVectors", "vector"), ("includeMetadata", "metadata"), ("includeData", "data")):
        if asked.get(flag) and record.get(field) is not None:
            out[field] = record[field]
    return out


class VectorError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def as_list(body):
    return body if isinstance(body, list) else [body]


def vector_command(index, command, namespace, query, body):
    """The `result` of one command of the Upstash Vector REST API."""

    def upsert(with_data):
        records = []
        for item in as_list(body):
            vector = embed(item["data"]) if with_data else item.get("vector")
            if vector is None:
                raise VectorError(422, "a vector is missing")
            records.append({
                "id": str(item["id"]), "vector": vector, "metadata": item.get("metadata"), "data": item.get("data"),
            })

        def change(state):
            state.setdefault(namespace, {}).update({record["id"]: record for record in records})

        index.write(change)
        return "Success"

    def update():
        def change(state):
            record = state.get(namespace, {}).get(str(body["id"]))
            if record is None:
                return {"updated": 0}
            fresh = dict(record)
            fresh.update({k: body[k] for k in ("vector", "metadata", "data") if k in body})
            state[namespace][fresh["id"]] = fresh
            return {"updated": 1}

        return index.write(change)

    def delete():
        ids = body if isinstance(body, list) else body.get("ids")
        prefix = None if isinstance(body, list) else body.get("prefix")

        def change(state):
            records = state.get(namespace, {})
            gone = [i for i in list(records) if (ids and i in map(str, ids)) or (prefix and i.startswith(prefix))]
            for i in gone:
                del records[i]
            return {"deleted": len(gone)}

        return index.write(change)

    def reset():
        def change(state):
            for name in list(state) if "all" in query.split("&") else [namespace]:
                state[name] = {}

        index.write(change)
        return "Success"

    def delete_namespace():
        def change(state):
            if state.pop(namespace, None) is None:
                raise VectorError(404, f"Namespace {namespace} does not exist")

        index.write(change)
        return "Success"

    def search(with_data):
        def one(asked):
            vector = embed(asked["data"]) if with_data else asked["vector"]

            def look(state):
                found = [
                    {**shown(record, asked), "score": round((1 + cosine(vector, record["vector"])) / 2, 7)}
                    for record in state.get(namespace, {}).values()
                ]
                return sorted(found, key=lambda hit: (-hit["score"], hit["id"]))[: asked.get("topK", 10)]

            return index.read(look)

        if isinstance(body, list) and len(body) != 1:
            return [one(asked) for asked in body]
        return one(as_list(body)[0])

    def fetch():
        def look(state):
            records = state.get(namespace, {})
            return [shown(records[str(i)], body) if str(i) in records else None for i in body.get("ids", [])]

        return index.read(look)

    def info():
        def look(state):
            counts = {name: {"vectorCount": len(records), "pendingVectorCount": 0} for name, records in state.items()}
            return {
                "vectorCount": sum(len(records) for records in state.values()),
                "pendingVectorCount": len(index.pending),
                "indexSize": 0,
                "dimension": DIMENSION,
                "similarityFunction": "COSINE",
                "namespaces": counts,
            }

        return index.read(look)

    commands = {
        "upsert": lambda: upsert(False),
        "upsert-data": lambda: upsert(True),
        "update": update,
        "delete": delete,
        "reset": reset,
        "delete-namespace": delete_namespace,
        "query": lambda: search(False),
        "query-data": lambda: search(True),
        "fetch": fetch,
        "info": info,
        "list-namespaces": lambda: index.read(lambda state: sorted(state)),
    }
    if command not in commands:
        raise VectorError(404, f"Command is not available: {command}")
    return commands[command]()


class State:
    def __init__(self, delay):
        self.index = VectorIndex(delay)
        self.lock = threading.Lock()
        self.journal = []
        self.failures = {}
        self.flaky = Counter()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, state):
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: Server

    def log_message(self, *_):
        pass

    def content(self):
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def answer(self, status, body, headers=None):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        fields = {"content-type": "application/json", **(headers or {}), "content-length": str(len(data))}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.handle_call()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def handle_call(self):
        content = self.content()
        url = urlsplit(self.path)
        if url.path.startswith("/_"):
            return self.control(url.path, content)
        with self.server.state.lock:
            self.server.state.journal.append({
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": content.decode("utf-8", "replace"),
            })
            number = len(self.server.state.journal)
            scripted = self.server.state.failures.get(url.path) or [None]
            status = scripted.pop(0)
        body = json.loads(content) if content.strip() else None
        if url.path.startswith("/v1/"):
            return self.openai(url.path, body, status, number)
        return self.vector(url, body, status)

    def control(self, path, content):
        state = self.server.state
        asked = json.loads(content) if content else {}
        with state.lock:
            if path == "/_journal":
                return self.answer(200, state.journal)
            if path == "/_fail":
                state.failures[asked["path"]] = list(asked["statuses"])
                return self.answer(200, {})
            if path == "/_delay":
                state.index.delay = asked["seconds"]
                return self.answer(200, {})
        return self.answer(404, {})

    def reset(self):
        """RST, without a byte of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    # OpenAI

    def openai(self, path, body, status, number):
        key = self.headers.get("authorization", "")
        if not key.startswith("Bearer ") or "wrong" in key:
            return self.answer(*UNAUTHORIZED)
        model = (body or {}).get("model", "")
        if status:
            return self.answer(*openai_error(status, "As scripted.", "server_error"))
        if model in ERRORS:
            return self.answer(*ERRORS[model])
        if model == "reset":
            return self.reset()
        if model.startswith("flaky-"):
            _, failing, times, _ = model.split("-", 3)
            with self.server.state.lock:
                self.server.state.flaky[model] += 1
                if self.server.state.flaky[model] <= int(times):
                    return self.answer(*openai_error(int(failing), "Try again.", "server_error"))
        headers = {
            "x-request-id": f"req_stand_in_{number}",
            "openai-processing-ms": "1",
            "x-ratelimit-remaining-tokens": "149984",
        }
        if path == "/v1/chat/completions":
            return self.chat(body, headers)
        if path == "/v1/embeddings":
            return self.embeddings(body, headers, number)
        if path == "/v1/models":
            models = [{"id": i, "object": "model", "created": 1, "owned_by": "stand-in"} for i in ("one", "two")]
            return self.answer(200, {"object": "list", "data": models}, headers)
        return self.answer(*openai_error(404, f"Invalid URL (POST {path})", "invalid_request_error"))

    def chat(self, body, headers):
        words = f"You said: {body['messages'][-1]['content']}".split(" ")
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        base = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            done = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            return self.answer(200, done, headers)

        with_usage = (body.get("stream_options") or {}).get("include_usage")
        self.send_response(200)
        for name, value in {**headers, "content-type": "text/event-stream", "transfer-encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()

        def event(data):
            line = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        def chunk(choices, usage=None):
            out = {**base, "object": "chat.completion.chunk", "choices": choices}
            event(json.dumps({**out, "usage": usage} if with_usage else out))

        def delta(what, reason=None):
            chunk([{"index": 0, "delta": what, "finish_reason": reason}])

        delta({"role": "assistant", "content": ""})
        for n, word in enumerate(words):
            delta({"content": f" {word}" if n else word})
        delta({}, "stop")
        if with_usage:
            chunk([], usage)
        event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def embeddings(self, body, headers, number):
        def form(vector):
            if body.get("encoding_format") == "base64":
                return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            return vector

        asked = body["input"]
        if not isinstance(asked, list) or isinstance(asked[0], int):  # a text, or the tokens of one
            asked = [asked]
        drift = f" {number}" if body["model"] == "drifting" else ""
        data = [
            {"object": "embedding", "index": n, "embedding": form(embed(f"{text}{drift}"))}
            for n, text in enumerate(asked)
        ]
        usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
        self.answer(200, {"object": "list", "data": data, "model": body["model"], "usage": usage}, headers)

    # Upstash Vector

    def vector(self, url, body, status):
        def failure(status, message):
            self.answer(status, {"error": message, "status": status})

        key = self.headers.get("authorization", "")
        if not key.startswith("Bearer ") or "wrong" in key:
            return failure(401, "Unauthorized: Invalid auth token")
        if status:
            return failure(status, "As scripted.")
        command, _, namespace = url.path.strip("/").partition("/")
        try:
            result = vector_command(self.server.state.index, command, unquote(namespace), url.query, body)
        except VectorError as error:
            return failure(error.status, str(error))
        except (KeyError, TypeError) as error:
            return failure(400, f"malformed request: {error!r}")
        return self.answer(200, {"result": result})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--indexing-delay", type=float, default=0.0)
    state = State(parser.parse_args().indexing_delay)
    for service in ("llm", "vector"):
        server = Server(state)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"listening on http://127.0.0.1:{server.server_address[1]} ({service})", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
