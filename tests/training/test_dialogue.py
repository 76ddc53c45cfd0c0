"""What the model reads: the template, the stretches that are learnt, the samples of a mix."""

import json
import random
from pathlib import Path

import pytest

from galerne.kernel import BadRequest, Conflict, NotFound
from galerne.training import render
from galerne.training.corpora import check_files, locate, middle_filling, mix, read_records, vary
from galerne.training.dialogue import dialogue_segments
from galerne.training.recipe import Corpus, Dialogues
from galerne.training.scenes import tool_dialogues
from tests.training.small import small_recipe, write_corpora

TOOL = {"type": "function", "function": {"name": "f", "description": "é <b>", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":  1}'}}


def test_a_conversation_with_tools_reads_as_the_layout_says() -> None:
    text = render(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
            {"role": "tool", "content": "[1]"},
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "More"},
        ],
        [TOOL, TOOL],
    )
    tool = '{"name": "f", "description": "é <b>", "parameters": {"type": "object"}}'
    call = '{"name": "f", "arguments": {"a":  1}}'
    assert text == (
        f"<s>[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][AVAILABLE_TOOLS][{tool}, {tool}][/AVAILABLE_TOOLS][INST]Hi[/INST]"
        f"[TOOL_CALLS][{call}, {call}]</s>[TOOL_RESULTS][1][/TOOL_RESULTS]Done.</s>[INST]More[/INST]"
    )


def test_an_answer_that_is_to_be_continued_is_left_open() -> None:
    start = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel", "prefix": True}]
    assert render(start) == "<s>[INST]Hi[/INST]Hel"
    assert render([*start, {"role": "user", "content": "?"}]).startswith("<s>[INST]Hi[/INST]Hel</s>")


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(BadRequest, match="narrator"):
        render([{"role": "narrator", "content": "Once"}])


def test_only_what_the_assistant_says_is_learnt_and_nothing_is_lost() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "[1]"},
        {"role": "assistant", "content": "Done."},
    ]
    segments = dialogue_segments(messages, [TOOL])
    assert [text for text, learnt in segments if learnt] == [
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]</s>',
        "Done.</s>",
    ]
    assert segments[0][0].startswith("<s>[AVAILABLE_TOOLS]")
    assert segments[2] == ("[TOOL_RESULTS][1][/TOOL_RESULTS]", False)


def test_the_middle_of_a_text_is_learnt_and_the_rest_read() -> None:
    for seed in range(20):
        (prompt, read), (middle, learnt) = middle_filling("The boat left the harbour.", random.Random(seed))
        suffix, prefix = prompt.removeprefix("<s>[SUFFIX]").split("[PREFIX]")
        assert (read, learnt) == (False, True)
        assert prefix + middle.removesuffix("</s>") + suffix == "The boat left the harbour."


def test_a_file_that_is_missing_or_not_the_one_meant_is_refused(tmp_path: Path) -> None:
    hashes = write_corpora(tmp_path)
    good = Corpus(path="lm/text.jsonl", sha256=hashes["lm/text.jsonl"], licence="CC0", origin="made up")
    check_files(tmp_path, (good,))
    with pytest.raises(NotFound, match=r"lm/none\.jsonl"):
        check_files(tmp_path, (Corpus(path="lm/none.jsonl", sha256="0" * 64, licence="CC0", origin="made up"),))
    (tmp_path / "lm/text.jsonl").write_text("{}\n")
    with pytest.raises(Conflict, match="sha256"):
        check_files(tmp_path, (good,))


def test_the_mix_depends_on_the_seed_alone(tmp_path: Path) -> None:
    recipe = small_recipe(write_corpora(tmp_path))
    assert mix(tmp_path, recipe) == mix(tmp_path, recipe)
    assert len(mix(tmp_path, recipe)) >= 60 + 64


def test_text_with_a_special_token_is_refused(tmp_path: Path) -> None:
    hashes = write_corpora(tmp_path)
    (tmp_path / "lm/text.jsonl").write_text(json.dumps({"text": "Say [INST] twice."}) + "\n")
    with pytest.raises(BadRequest, match="INST"):
        mix(tmp_path, small_recipe(hashes))


@pytest.mark.parametrize("line", ["{", '{"title": "no text"}', "[1]"])
def test_a_record_that_is_not_one_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    hashes = write_corpora(tmp_path)
    (tmp_path / "lm/text.jsonl").write_text(f'{{"text": "Good."}}\n{line}\n')
    with pytest.raises(BadRequest, match=r"lm/text\.jsonl, line 2"):
        mix(tmp_path, small_recipe(hashes))


def test_single_questions_are_chained_and_some_get_a_system_prompt() -> None:
    plan = Dialogues(chain=0.5, system=0.5, system_prompts=("Be brief.",))
    one = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    with_tool = {"messages": list(one["messages"]), "tools": [TOOL]}
    varied = vary([one, with_tool] * 100, plan, random.Random(1))
    assert sum(m["role"] == "user" for talk in varied for m in talk["messages"]) == 200
    assert sum("tools" in talk for talk in varied) == 100
    assert all(talk["messages"][-2:] == one["messages"] for talk in varied if "tools" in talk)
    assert max(len(talk["messages"]) for talk in varied if "tools" in talk) == 3
    assert any(len(talk["messages"]) > 3 for talk in varied)
    assert any(talk["messages"][0] == {"role": "system", "content": "Be brief."} for talk in varied)


def test_every_call_of_a_scene_names_an_offered_tool_and_its_parameters() -> None:
    table = json.loads(locate(Path(), "galerne:tool_scenes.json").read_text())
    dialogues = tool_dialogues(table, 5, random.Random(2))
    assert len(dialogues) == 5 * len(table["tools"])
    for dialogue in dialogues:
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in dialogue["tools"]}
        for message in dialogue["messages"]:
            for call in message.get("tool_calls", ()):
                parameters = offered[call["function"]["name"]]
                assert set(json.loads(call["function"]["arguments"])) == set(parameters["properties"])
        assert dialogue["messages"][-1]["role"] == "assistant"


def test_the_dialogues_of_this_project_alternate_and_end_with_an_answer() -> None:
    path = Corpus(path="galerne:identity.jsonl", sha256="0" * 64, licence="Apache-2.0", origin="ours", kind="dialogues")
    records = read_records(Path(), path)
    assert len(records) > 150
    for record in records:
        roles = [message["role"] for message in record["messages"] if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() for message in record["messages"])
