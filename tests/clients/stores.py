"""Stand-ins for vector stores whose own servers are not at hand: each answers every request of its API with the least
that its official client takes for a success, and keeps what was asked. None of them stores anything: what is looked at is
which requests reach it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def qdrant(method, path):
    if path.endswith("/points/query"):
        point = {"id": 1, "version": 0, "score": 0.9, "payload": {}}
        return {"result": {"points": [point]}, "status": "ok", "time": 0.001}
    return {"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0.001}


def elasticsearch(method, path):
    if path.endswith("/_search"):
        shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        hits = {"total": {"value": 0, "relation": "eq"}, "max_score": None, "hits": []}
        return {"took": 1, "timed_out": False, "_shards": shards, "hits": hits}
    if path.endswith("/_bulk"):
        return {"took": 1, "errors": False, "items": []}
    return {"_index": "docs", "_id": "1", "_version": 1, "result": "created"}


def turbopuffer(method, path):
    if path.endswith("/query"):
        return {"rows": [{"id": 1, "$dist": 0.1}], "billing": {}, "performance": {}}
    return {"status": "OK", "message": "", "rows_affected": 1, "billing": {}}


def pinecone(method, path):
    if path == "/query":
        return {"matches": [{"id": "a", "score": 0.9}], "namespace": "", "usage": {"readUnits": 1}}
    return {"upsertedCount": 1} if path.endswith("/upsert") else {}


def postgrest(method, path):
    return [{"id": 1, "similarity": 0.9}]


class Store:
    """A stand-in at work, as a context."""

    def __init__(self, respond):
        self.asked = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                server.asked.append(f"{self.command} {self.path}")
                content = json.dumps(respond(self.command, self.path.split("?")[0])).encode()
                accept = self.headers.get("accept") or ""
                # Elasticsearch answers in the type that was asked for, and names itself: its client insists on both.
                kind = accept if accept.startswith("application/vnd.elasticsearch") else "application/json"
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("x-elastic-product", "Elasticsearch")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
