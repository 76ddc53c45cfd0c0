"""From the files that a recipe names to samples: checked by hash, repeated and shuffled by seed, cut into segments."""

import hashlib
import json
import math
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

from galerne.kernel.errors import BadRequest, Conflict, NotFound
from galerne.training.dialogue import Segment, dialogue_segments
from galerne.training.recipe import Corpus, Dialogues, Measured, Recipe
from galerne.training.scenes import tool_dialogues
from galerne.training.tokens import BOS, EOS, SPECIAL_TOKENS

__all__ = ["Sample", "check_files", "locate", "middle_filling", "mix", "read_records", "vary"]

Record = dict[str, Any]
Sample = list[Segment]
"""One text or dialogue, as stretches of text that are learnt or only read."""

_PACKAGED = "galerne:"
_FIM_PIECE_CHARACTERS = 1_200


def locate(root: Path, path: str) -> Path:
    """Where a recipe's file lies: below the corpora folder, or in this package for `galerne:NAME`."""
    if path.startswith(_PACKAGED):
        return Path(str(files("galerne.training") / "data" / path.removeprefix(_PACKAGED)))
    return root / path


def check_files(root: Path, wanted: tuple[Corpus | Measured, ...]) -> None:
    """Raise `NotFound` for a file that is not there, `Conflict` for one whose sha256 is not the recipe's."""
    for entry in wanted:
        file = locate(root, entry.path)
        if not file.is_file():
            raise NotFound(f"{entry.path} is not in {root}; unpack the corpora there, or drop it from the recipe.")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != entry.sha256:
            raise Conflict(
                f"{entry.path} is not the file that the recipe means: its sha256 is {found}, the recipe says "
                f"{entry.sha256}. Fetch the right file, or write the new hash into the recipe.",
                param="corpora",
            )


def read_records(root: Path, entry: Corpus | Measured) -> list[Record]:
    """The records of a JSON-lines file, in its order. Raises `BadRequest` naming the first line that is not JSON."""
    with locate(root, entry.path).open(encoding="utf-8") as lines:
        records = [_parsed(line, number, entry.path) for number, line in enumerate(lines, start=1)]
    return records[: entry.limit] if isinstance(entry, Measured) and entry.limit else records


def mix(root: Path, recipe: Recipe) -> list[Sample]:
    """Every sample of the recipe, as often as it asks, in an order that depends on the seed alone."""
    drawn: list[tuple[Corpus, Record]] = []
    for corpus in recipe.corpora:
        chance = random.Random(f"{recipe.seed}:{corpus.path}")  # noqa: S311 - it must be reproducible
        drawn.extend((corpus, record) for record in _drawn(root, corpus, chance))
    chance = random.Random(recipe.seed)  # noqa: S311 - as above
    chance.shuffle(drawn)
    texts = [
        sample for corpus, record in drawn if corpus.kind == "text" for sample in _texts(record, corpus.fim, chance)
    ]
    talks = vary([record for corpus, record in drawn if corpus.kind != "text"], recipe.dialogues, chance)
    samples = texts + [dialogue_segments(talk["messages"], talk.get("tools")) for talk in talks]
    chance.shuffle(samples)
    return samples


def vary(dialogues: list[Record], plan: Dialogues, chance: random.Random) -> list[Record]:
    """Chain single questions to longer conversations and put system prompts before some, as the plan says."""
    varied: list[Record] = []
    unfinished: Record | None = None
    for dialogue in dialogues:
        if not _is_plain(dialogue):
            varied.append(_with_system(dialogue, plan, chance))
            continue
        if unfinished is None:
            unfinished = _with_system(dialogue, plan, chance)
        else:
            unfinished = {**unfinished, "messages": unfinished["messages"] + dialogue["messages"]}
        if len(dialogue["messages"]) > 2 or chance.random() >= plan.chain:
            varied.append(unfinished)
            unfinished = None
    return varied + ([unfinished] if unfinished else [])


def _is_plain(dialogue: Record) -> bool:
    return not dialogue.get("tools") and all(
        message["role"] in ("user", "assistant") for message in dialogue["messages"]
    )


def _with_system(dialogue: Record, plan: Dialogues, chance: random.Random) -> Record:
    messages = dialogue["messages"]
    if chance.random() >= plan.system or messages[0]["role"] == "system":
        return dialogue
    return {**dialogue, "messages": [{"role": "system", "content": chance.choice(plan.system_prompts)}, *messages]}


def middle_filling(text: str, chance: random.Random) -> Sample:
    """A text with its middle asked for: suffix and prefix are read, the middle is learnt (Bavarian et al., 2022)."""
    first, second = sorted(chance.randint(0, len(text)) for _ in range(2))
    prompt = f"{BOS}[SUFFIX]{text[second:]}[PREFIX]{text[:first]}"
    return [(prompt, False), (text[first:second] + EOS, True)]


def _drawn(root: Path, corpus: Corpus, chance: random.Random) -> list[Record]:
    if corpus.kind == "scenes":
        table = json.loads(locate(root, corpus.path).read_text(encoding="utf-8"))
        return tool_dialogues(table, round(corpus.repeat), chance)
    records = read_records(root, corpus)
    for number, record in enumerate(records, start=1):
        _check_record(record, number, corpus)
    return _repeated(records, corpus.repeat, chance)


def _repeated(records: list[Record], times: float, chance: random.Random) -> list[Record]:
    whole = math.floor(times)
    rest = chance.sample(records, round((times - whole) * len(records)))
    return records * whole + rest


def _texts(record: Record, fim: float, chance: random.Random) -> list[Sample]:
    text: str = record["text"]
    if chance.random() >= fim:
        return [[(BOS + text + EOS, True)]]
    return [middle_filling(piece, chance) for piece in _pieces(text)]


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for paragraph in text.split("\n\n"):
        if pieces and len(pieces[-1]) + len(paragraph) < _FIM_PIECE_CHARACTERS:
            pieces[-1] += "\n\n" + paragraph
        else:
            pieces.append(paragraph)
    return pieces


def _parsed(line: str, number: int, path: str) -> Record:
    try:
        return json.loads(line)
    except json.JSONDecodeError as wrong:
        raise BadRequest(f"{path}, line {number} is not JSON: {wrong}. Each line must be one JSON object.") from wrong


def _check_record(record: Record, number: int, corpus: Corpus) -> None:
    try:
        text = record["text"] if corpus.kind == "text" else "".join(m["content"] or "" for m in record["messages"])
    except (KeyError, TypeError) as wrong:
        wanted = "a text" if corpus.kind == "text" else "messages with role and content"
        raise BadRequest(
            f"{corpus.path}, line {number} has no {wanted}; mend the file or the recipe's kind."
        ) from wrong
    for special in SPECIAL_TOKENS:
        if special in text:
            raise BadRequest(f"{corpus.path}, line {number} contains the special token {special}; remove that record.")
