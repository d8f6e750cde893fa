"""Reads pairs of a request and what was forwarded in its place, each behind its length in four bytes. Prints how many
there were, or what is wrong with the first that differs by more than messages in front."""

import json
import sys

HISTORY = sys.argv[1]


def parse(body):
    # An object is the list of its members, so that none is lost, and differs from an array; numbers stay as spelled.
    return json.loads(
        body.decode("utf-8"),
        object_pairs_hook=lambda members: ("object", members),
        parse_int=lambda digits: ("number", digits),
        parse_float=lambda digits: ("number", digits),
    )


def split(request):
    kind, members = request
    assert kind == "object"
    histories = [value for name, value in members if name == HISTORY]
    assert len(histories) == 1
    return histories[0], [(name, None if name == HISTORY else value) for name, value in members]


def member(element, name):
    values = [value for known, value in element[1] if known == name]
    assert len(values) <= 1
    return values[0] if values else None


def differ(whole, sent):
    before, beside_before = split(parse(whole))
    after, beside_after = split(parse(sent))
    assert beside_before == beside_after, "what is beside the history"
    head = next((n for n, element in enumerate(before) if member(element, "role") not in ("system", "developer")), len(before))
    assert after[:head] == before[:head], "the head"
    kept = after[head:]
    assert 0 < len(kept) < len(before) - head, "some go, some stay"
    assert kept == before[len(before) - len(kept):], "what is kept is the end of what there was"
    assert member(kept[0], "role") == "user", "a user begins it"


def read(length):
    data = sys.stdin.buffer.read(length)
    return data if len(data) == length else None


count = 0
while (size := read(4)) is not None:
    whole = read(int.from_bytes(size, "big"))
    sent = read(int.from_bytes(read(4), "big"))
    try:
        differ(whole, sent)
    except Exception as error:
        print(f"pair {count}: {error!r}\n{whole}\n{sent}")
        sys.exit(1)
    count += 1
print(count)
