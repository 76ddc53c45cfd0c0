"""Tool-calling dialogues made from a table of scenes: tools offered, a question, the call, its result, the answer.

A small model learns calls from many short and regular examples; the service dialogues of the corpora are neither.
"""

import json
import random
from typing import Any

__all__ = ["tool_dialogues"]

_MOST_TOOLS = 4
_PLAIN_SHARE = 0.15
_SECOND_QUESTION_SHARE = 0.25

Scene = dict[str, Any]
Message = dict[str, Any]


def tool_dialogues(table: dict[str, Any], each: int, chance: random.Random) -> list[dict[str, Any]]:
    """`each` dialogues for every tool of the table, and besides some in which no tool is called for.

    The table has `pools` (lists of values by name), `plain` (questions and answers that need no tool) and `tools`:
    name, description, parameters, `required`, `asks` and `answers` with `{placeholders}`, `values` (a pool's name or a
    list for each placeholder; each `#` in a value becomes a digit, so that it has to be read, not known), `rows`
    (values that belong together) and `result` (which of them the tool returns).
    """
    return [_dialogue(table, scene, chance) for scene in table["tools"] for _ in range(each)]


def _dialogue(table: dict[str, Any], scene: Scene, chance: random.Random) -> dict[str, Any]:
    others = [other for other in table["tools"] if other is not scene]
    offered = [scene, *chance.sample(others, chance.randint(0, _MOST_TOOLS - 1))]
    chance.shuffle(offered)
    messages: list[Message] = []
    if chance.random() < _PLAIN_SHARE:
        question, answer = chance.choice(table["plain"])
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if not messages or chance.random() < 0.5:
        messages += _turn(table, scene, chance)
    if chance.random() < _SECOND_QUESTION_SHARE:
        messages += _turn(table, chance.choice(offered), chance)
    return {"messages": messages, "tools": [_schema(tool) for tool in offered]}


def _turn(table: dict[str, Any], scene: Scene, chance: random.Random) -> list[Message]:
    values: dict[str, Any] = {}
    for name, pool in scene["values"].items():
        values[name] = _filled(chance.choice(table["pools"][pool] if isinstance(pool, str) else pool), chance)
    values |= chance.choice(scene.get("rows", [{}]))
    arguments = {name: values[name] for name in scene["parameters"]}
    result = {name: values[name] for name in scene["result"]}
    call = {
        "id": "call00000",
        "type": "function",
        "function": {"name": scene["name"], "arguments": json.dumps(arguments)},
    }
    return [
        {"role": "user", "content": chance.choice(scene["asks"]).format(**values)},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00000", "name": scene["name"], "content": json.dumps(result)},
        {"role": "assistant", "content": chance.choice(scene["answers"]).format(**values)},
    ]


def _filled(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, str):
        return value
    return "".join(str(chance.randrange(10)) if letter == "#" else letter for letter in value)


def _schema(scene: Scene) -> dict[str, Any]:
    parameters = {"type": "object", "properties": scene["parameters"], "required": scene["required"]}
    function = {"name": scene["name"], "description": scene["description"], "parameters": parameters}
    return {"type": "function", "function": function}
