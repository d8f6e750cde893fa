"""Contents of requests and answers, the same in every run."""

import json
import random
import secrets
from pathlib import Path

#: What every request carries. LiteLLM does not start without a strong one.
SECRET = "sk-" + secrets.token_hex(32)
CHAT_ANSWER = 1536
SEARCH_ANSWER = 8192
SMALL_ANSWER = 256
LARGE_ANSWER = 20 * 1024
#: Stands in a search for a number of seven digits: whoever sends it puts one there.
ANY = "#######"


def _vector(seed: int, length: int) -> list[float]:
    numbers = random.Random(seed)
    return [round(numbers.uniform(-1, 1), 7) for _ in range(length)]


def search(seed: int, length: int) -> bytes:
    """A query by vector: 256 floats are 3 KB, 1,536 are 17.6 KB."""
    body = {"vector": _vector(seed, length), "topK": 5, "includeMetadata": True, "filter": "tenant = 'bench'"}
    return json.dumps(body).encode()


def any_search(length: int) -> bytes:
    """Ten million different searches, by what stands for [`ANY`]."""
    body = {"vector": _vector(1, length), "topK": 5, "includeMetadata": True, "filter": f"id = {ANY}"}
    return json.dumps(body).encode()


PROSE = "the bot said that every answer is somewhere in an index".split()


def chat(messages: int, each: int, stream: bool = False, dense: bool = False) -> bytes:
    """A conversation of prose: a new line every sixteen words, a quotation every forty. Dense: three words of fourteen are
    a new line, a quotation or not ASCII, as in code and in most languages."""
    texts = random.Random(messages)
    words = PROSE * 58 + ["\n"] * 44 + ['"so"'] * 18
    if dense:
        words = [*PROSE, "\n", '"so"', "ünd"]

    def text(role: str) -> str:
        made = ""
        while len(made.encode()) < each - len('{"role": "", "content": ""}, ') - len(role) - 8:
            made += texts.choice(words) + " "
        return made

    turns = [{"role": "system", "content": "Be brief."}]
    turns += [{"role": role, "content": text(role)} for role in (["user", "assistant"] * messages)[: messages - 1]]
    if turns[-1]["role"] != "user":
        turns[-1]["role"] = "user"
    body = {"model": "gpt-4o", "messages": turns}
    if stream:
        body["stream"] = True
    return json.dumps(body, ensure_ascii=False).encode()


def bodies(folder: Path) -> dict[str, list[Path]]:
    """Writes every content that is sent, by name."""
    sets = {
        "chat-1k": [chat(5, 233)],
        "chat-10k": [chat(5, 2500)],
        "chat-100k": [chat(5, 25_000)],
        "chat-1000k": [chat(5, 250_000)],
        "chat-20": [chat(20, 970)],
        "chat-200k": [chat(200, 970)],
        "chat-200k-dense": [chat(200, 970, dense=True)],
        "chat-2000": [chat(2000, 970)],
        "chat-stream": [chat(5, 233, stream=True)],
        "search-any": [any_search(256)],
        "search-any-short": [any_search(16)],
        "search-any-20k": [any_search(1750)],
        "search-3k": [search(seed, 256) for seed in range(100)],
        "search-18k": [search(1000 + seed, 1536) for seed in range(100)],
    }
    written: dict[str, list[Path]] = {}
    for name, contents in sets.items():
        for number, content in enumerate(contents):
            path = folder / f"{name}-{number}.json"
            path.write_bytes(content)
            written.setdefault(name, []).append(path)
    return written


def chat_answer() -> tuple[str, str]:
    """What stands before and after the serial number, which tells two answers apart."""
    before = '{"id":"chatcmpl-'
    usage = '"usage":{"prompt_tokens":200,"completion_tokens":300,"total_tokens":500}}'
    after = '","object":"chat.completion","created":1700000000,"model":"gpt-4o","choices":[{"index":0,"message":'
    after += '{"role":"assistant","content":"%s"},"finish_reason":"stop"}],' + usage
    return before, after % ("x" * (CHAT_ANSWER - len(before) - len(after) + 2 - 32))


def small_answer() -> tuple[str, str]:
    before, after = '{"serial":"', '","result":[{"id":"0","score":0.9,"metadata":{"text":"%s"}}]}'
    return before, after % ("y" * (SMALL_ANSWER - 32 - len(before) - len(after) + 2))


def search_answer(size: int = SEARCH_ANSWER) -> tuple[str, str]:
    before = '{"serial":"'
    after = '","result":[' + ",".join('{"id":"%d","score":0.9,"metadata":{"text":"%%s"}}' % n for n in range(5)) + "]}"
    room = (size - 32 - len(before) - len(after) + 10) // 5
    after %= ("y" * room,) * 5
    return before, after + " " * (size - 32 - len(before) - len(after))
