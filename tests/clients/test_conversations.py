"""Bots hold long conversations with the official SDKs, through Pillion, before an upstream that refuses what the
vendors refuse. Like real ones they keep all of their history, add what the SDK returned, and send all each time."""

from dataclasses import dataclass

import anthropic
import openai
import pytest

TURNS = 200
LONG = 150  # the turn that alone is longer than the window
AUTHOR = "Be brief."
TOOL = {"name": "look_up", "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
CONFIG = """\
version: 1
listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
defaults: {{window: {window}}}
routes:
  - {{name: openai, path: /openai, upstream: "{upstream}", preset: openai}}
  - {{name: anthropic, path: /anthropic, upstream: "{upstream}", preset: anthropic}}
"""


def calls_of(turn):
    """How many tools are called at once in a turn."""
    return 30 if turn == LONG else (0, 1, 3, 0, 0)[turn % 5]


@dataclass
class Asked:
    """One request: where turns begin in the history behind its head, how long it is, and what Pillion left out."""

    turns: list
    length: int
    trimmed: int = 0

    @property
    def forwarded(self):
        return self.length - self.trimmed


class Bot:
    """What the bots have in common. `history` is what they send; `head` of it leads and is always kept."""

    head = 0

    def __init__(self, sdk, url):
        self.history = []
        self.turns = []
        self.asked = []
        http = sdk.DefaultHttpxClient(event_hooks={"response": [self._answered]}, trust_env=False)
        client = sdk.OpenAI if sdk is openai else sdk.Anthropic
        self.client = client(base_url=url, api_key="sk-test", max_retries=0, timeout=30, http_client=http)

    def _answered(self, response):
        self.asked[-1].trimmed = int(response.headers.get("pillion-trimmed", 0))

    def whole(self, member):
        """The history as arguments of the SDK. OpenAI's tries each item as each of dozens of types, half a second for a
        long history; `extra_body` is written as it is."""
        if len(self.history) <= 60:
            return {member: self.history}
        return {member: [], "extra_body": {member: self.history}}

    def turn(self, text, streamed=False):
        """The user says something; answers what the bot says in the end."""
        self.turns.append(len(self.history) - self.head)
        self.history.append({"role": "user", "content": text})
        while True:
            self.asked.append(Asked([*self.turns], len(self.history) - self.head))
            said, calls = self.ask(streamed)
            if not calls:
                return said
            self.give(calls)


class ChatBot(Bot):
    head = 2

    def __init__(self, url):
        super().__init__(openai, f"{url}/openai/v1")
        self.history += [{"role": "developer", "content": AUTHOR}, {"role": "system", "content": "You are a bot."}]

    def ask(self, streamed):
        # Now and then it has functions, as they were before tools: one call at a time, without a name.
        old = len(self.turns) % 10 == 8
        tools = {"functions": [TOOL]} if old else {"tools": [{"type": "function", "function": TOOL}]}
        request = {"model": "gpt-4o", **self.whole("messages"), **tools}
        if streamed:
            with self.client.chat.completions.stream(**request) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = self.client.chat.completions.create(**request).choices[0].message
        self.history.append(message)
        return message.content, message.tool_calls or message.function_call

    def give(self, calls):
        if isinstance(calls, list):
            self.history += [{"role": "tool", "tool_call_id": call.id, "content": "found"} for call in calls]
        else:
            self.history.append({"role": "function", "name": calls.name, "content": "found"})


class ResponsesBot(Bot):
    head = 1

    def __init__(self, url):
        super().__init__(openai, f"{url}/openai/v1")
        self.history += [{"role": "developer", "content": AUTHOR}]

    def ask(self, streamed):
        request = {"model": "gpt-4o", "instructions": "You are a bot.", **self.whole("input"), "store": False,
                   "include": ["reasoning.encrypted_content"], "tools": [{"type": "function", "strict": False, **TOOL}]}
        if streamed:
            events = list(self.client.responses.create(**request, stream=True))
            [response] = [event.response for event in events if event.type == "response.completed"]
        else:
            response = self.client.responses.create(**request)
        self.history += response.output
        return response.output_text, [item for item in response.output if item.type == "function_call"]

    def give(self, calls):
        self.history += [
            {"type": "function_call_output", "call_id": call.call_id, "output": "found"} for call in calls
        ]


class MessagesBot(Bot):
    def __init__(self, url):
        super().__init__(anthropic, f"{url}/anthropic")

    def ask(self, streamed):
        tool = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}
        request = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "system": AUTHOR, "messages": self.history,
                   "tools": [tool]}
        if streamed:
            with self.client.messages.stream(**request) as stream:
                message = stream.get_final_message()
        else:
            message = self.client.messages.create(**request)
        self.history.append({"role": "assistant", "content": message.content})
        said = "".join(block.text for block in message.content if block.type == "text")
        return said, [block for block in message.content if block.type == "tool_use"]

    def give(self, calls):
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "found"} for call in calls]
        self.history.append({"role": "user", "content": results})


def hold(bot, strict, thinks=lambda turn: False):
    """The whole conversation. Every turn is answered, and nothing that arrives is refused, were it to be sent again."""
    for turn in range(TURNS):
        text = f"Question {turn}."
        if calls := calls_of(turn):
            text += f" tools:{calls}"
        if thinks(turn):
            text += " think"
        assert bot.turn(text, streamed=turn % 4 == 1), f"turn {turn}"
    counts = strict.counts()
    assert counts["rejected"] == 0, counts["rejections"]
    assert counts["requests"] == len(bot.asked)
    assert counts["sizes"] == [bot.head + asked.forwarded for asked in bot.asked]
    return bot.asked


def rises(asked):
    trimmed = [one.trimmed for one in asked]
    assert trimmed == sorted(trimmed)
    assert trimmed[0] == 0
    return trimmed


BOTS = pytest.mark.parametrize("kind", [ChatBot, ResponsesBot, MessagesBot])


@BOTS
def test_a_long_conversation_is_whole_turns_to_the_upstream(start_pillion, strict, kind):
    bot = kind(start_pillion(CONFIG.format(upstream=strict.url, window="{}")).data)

    asked = hold(bot, strict)

    assert len(set(rises(asked))) > TURNS / 2
    for one in asked:
        cut = one.turns.index(one.trimmed)  # a turn begins there
        if one.forwarded > 20:
            assert cut == len(one.turns) - 1, "only the last turn may be longer"
        if cut > 0:
            assert one.length - one.turns[cut - 1] > 20, "one turn more would have fitted"
    assert any(one.forwarded > 20 for one in asked) == (kind is not MessagesBot)


@BOTS
def test_a_window_that_moves_in_steps_keeps_its_beginning(start_pillion, strict, kind):
    bot = kind(start_pillion(CONFIG.format(upstream=strict.url, window="{step: 10}")).data)

    asked = hold(bot, strict)

    assert len(set(rises(asked))) <= asked[-1].length / 10
    assert all(one.trimmed in one.turns for one in asked)
    assert all(one.forwarded <= max(20, one.length - one.turns[-1]) for one in asked)


@pytest.mark.parametrize("window", ["{}", "{step: 10}"])
def test_thinking_stays_behind_what_it_was_thought_about(start_pillion, strict, window):
    bot = MessagesBot(start_pillion(CONFIG.format(upstream=strict.url, window=window)).data)

    asked = hold(bot, strict, thinks=lambda turn: turn % 40 < 3)  # by then what was thought long ago may go

    assert rises(asked)[-1] > 0
    thoughts = [block for message in bot.history for block in message["content"]
                if getattr(block, "type", None) == "thinking"]
    assert len(thoughts) >= TURNS * 3 / 40


def test_thinking_in_every_turn(start_pillion, strict):
    bot = MessagesBot(start_pillion(CONFIG.format(upstream=strict.url, window="{}")).data)

    hold(bot, strict, thinks=lambda turn: True)


def test_reasoning_stays_with_what_it_led_to(start_pillion, strict):
    bot = ResponsesBot(start_pillion(CONFIG.format(upstream=strict.url, window="{}")).data)

    asked = hold(bot, strict, thinks=lambda turn: True)

    assert rises(asked)[-1] > 0
    assert sum(getattr(item, "type", None) == "reasoning" for item in bot.history) >= TURNS
