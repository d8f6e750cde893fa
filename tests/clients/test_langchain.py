"""LangChain's `trim_messages` as an oracle for the window: what it keeps of 15,000 random histories, and what Pillion
forwards of them. Where they are meant to differ the reason is known before either is asked."""

import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_messages,
    trim_messages,
)

HISTORIES = 15_000
CONNECTIONS = 4
WINDOWS = (1, 2, 3, 5, 8, 13, 20)

# Every reason for which the two differ, and there is no other.
REASONS = {
    "head": "LangChain keeps the first system message only, Pillion all that lead",
    "last turn": "the last turn alone is too long: LangChain keeps nothing of it, Pillion sends it whole",
    "opening": "all of it fits, and it does not begin with a user: LangChain drops what is before, Pillion nothing",
    "no user": "there is no user message: LangChain keeps the system message, Pillion changes nothing",
}


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was sent, so that who asked sees what arrived."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        content = self.rfile.read(int(self.headers["content-length"]))
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self.wfile.write(head.encode() + content)


@pytest.fixture
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def invent(dice):
    """A history as LangChain's messages. The number of each is its `id`, which is not sent, and in its content."""
    history = []

    def say(kind, text=None, **options):
        number = str(len(history))
        history.append(kind(number if text is None else text, id=number, **options))

    def use_tools():
        names = [f"call_{len(history)}_{n}" for n in range(dice.choice((1, 1, 2, 3)))]
        calls = [{"name": "look_up", "args": {"q": "où?"}, "id": name} for name in names]
        say(AIMessage, dice.choice(("", "Let me see.")), tool_calls=calls)
        dice.shuffle(names)
        for name in names:
            say(ToolMessage, tool_call_id=name)

    def author(role):
        say(SystemMessage, additional_kwargs={"__openai_role__": role} if role == "developer" else {})

    for role in dice.choice(((), (), ("system",), ("system",), ("system",), ("developer",), ("system", "developer"))):
        author(role)
    if dice.random() < 0.1:
        say(AIMessage)
    for _ in range(dice.choice((0, *range(1, 13)))):
        if history and dice.random() < 0.05:
            author("system")
        say(HumanMessage, dice.choice((None, [{"type": "text", "text": f"🙂 {len(history)}"}])))
        while dice.random() < 0.3:
            use_tools()
        if dice.random() < 0.9:
            say(AIMessage)
    if dice.random() < 0.7:
        say(HumanMessage)
        while dice.random() < 0.2:
            use_tools()
    return history


def why_they_differ(history, window):
    """The reasons that are known before either is asked; none, and they are to agree."""
    head = next((n for n, message in enumerate(history) if not isinstance(message, SystemMessage)), len(history))
    behind = history[head:]
    users = [n for n, message in enumerate(behind) if isinstance(message, HumanMessage)]
    reasons = set()
    if head > 1:
        reasons.add("head")
    if behind and not users:
        reasons.add("no user")
    elif users and len(behind) - users[-1] > window:
        reasons.add("last turn")
    elif users and users[0] > 0 and len(behind) <= window:
        reasons.add("opening")
    return reasons


def kept_by_langchain(history, window):
    leads = bool(history) and isinstance(history[0], SystemMessage)  # it counts that one too
    kept = trim_messages(
        history, strategy="last", start_on="human", include_system=True, token_counter=len, max_tokens=window + leads
    )
    return [int(message.id) for message in kept]


def expected(history, window, kept, reasons):
    """What Pillion is to forward, from what LangChain keeps and the reasons to do otherwise."""
    head = next((n for n, message in enumerate(history) if not isinstance(message, SystemMessage)), len(history))
    users = [n for n, message in enumerate(history) if isinstance(message, HumanMessage)]
    behind = kept[1:] if head else kept
    if "no user" in reasons or "opening" in reasons:
        behind = range(head, len(history))
    elif "last turn" in reasons:
        behind = range(users[-1], len(history))
    return [*range(head), *behind]


def compare(url, seeds):
    """Sends the history of each seed on one connection, and counts what came of it."""
    counts = Counter()
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    for seed in seeds:
        dice = random.Random(seed)
        history, window = invent(dice), dice.choice(WINDOWS)
        messages = convert_to_openai_messages(history)
        content = json.dumps({"model": "one", "messages": messages}, ensure_ascii=False).encode()
        connection.request("POST", f"/{window}/v1/chat/completions", content, {"content-type": "application/json"})
        answer = connection.getresponse()
        forwarded = json.loads(answer.read())["messages"]

        kept, reasons = kept_by_langchain(history, window), why_they_differ(history, window)
        case = f"seed {seed}, max_messages {window}: {[message['role'] for message in messages]}"
        assert answer.status == 200, case
        assert forwarded == [messages[n] for n in expected(history, window, kept, reasons)], f"{reasons} {case}"
        assert (forwarded != [messages[n] for n in kept]) == bool(reasons), f"{reasons} {case}"
        assert int(answer.headers.get("pillion-trimmed", 0)) == len(messages) - len(forwarded), case
        counts["agree"] += not reasons
        counts["agree, trimmed"] += not reasons and len(forwarded) < len(messages)
        counts.update(reasons)
    connection.close()
    return counts


def test_the_window_keeps_what_langchain_keeps(start_pillion, echo, capsys):
    routes = "\n".join(
        f'  - {{name: at-most-{window}, path: /{window}, upstream: "{echo}", preset: openai,'
        f" window: {{max_messages: {window}}}}}"
        for window in WINDOWS
    )
    pillion = start_pillion(f"version: 1\nlisten: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nroutes:\n{routes}\n")

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        shares = [range(n, HISTORIES, CONNECTIONS) for n in range(CONNECTIONS)]
        counts = sum(threads.map(lambda seeds: compare(pillion.data, seeds), shares), Counter())

    with capsys.disabled():
        print(f"\nof {HISTORIES} histories LangChain and Pillion agree about {counts['agree']}"
              f" ({counts['agree, trimmed']} trimmed); they differ, as they are meant to, about")
        for reason, meaning in REASONS.items():
            print(f"  {counts[reason]:5} {meaning}")
    assert set(counts) == {"agree", "agree, trimmed", *REASONS}
    assert counts["agree"] >= 10_000
    assert counts["agree, trimmed"] >= 5_000
