"""The model card: written from the run's own records, so that no figure in it is typed by hand. Pure."""

from collections.abc import Iterator

from galerne.training.recipe import Corpus, Release
from galerne.training.record import Record

__all__ = ["attribution", "corpora_of", "model_card"]

_FRONT = """\
---
language: en
license: {licence}
library_name: transformers
pipeline_tag: text-generation
---"""

_MEASURES = """
Held-out losses are on whole books and articles that are not in the training text. BLiMP is the share of minimal pairs
whose grammatical sentence is the likelier one (chance is 0.5; Warstadt et al., 2020). Last word is the share
of passages whose last word is exactly the greedy continuation."""

_LIMITS = """\
- **It is very small.** It greets, says what it is, writes short English that is mostly grammatical, and follows some
  formats that it was trained on: calls of simple tools, JSON, filling in a middle; not always. Of a conversation it
  takes in little. It does not reason, loses the thread within a sentence or two, and gets even small sums wrong.
- **Its facts are unreliable.** It makes up names, dates and places with the same ease as it repeats true ones. Nothing
  that it says should be relied on, least of all in medical, legal, financial or safety matters.
- **English only.** Other languages come out as nonsense.
- **Dated.** Its encyclopaedic text is from about 2015, its fiction mostly from before 1930, with the views of then.
- **Holes.** A blunt word filter removed every paragraph of the training text with certain words; with the abuse went
  neutral text about Jewish people, Roma, Nazism, suicide, genocide, terrorism and rape. It knows next to nothing
  about these.
- **No safety training beyond a few hand-written refusals.** Whoever puts it before the public has to add a guard.

It is there so that a fresh installation answers at once, without a network and without a GPU, and so that tests and
demonstrations run against a real model. For work, register a larger one."""


def corpora_of(record: Record) -> Iterator[tuple[str, Corpus]]:
    """Each file that the model was trained on, with the name of the run that used it, first run first."""
    if record.start is not None:
        yield from corpora_of(record.start)
    for corpus in record.recipe.corpora:
        yield record.recipe.name, corpus


def model_card(record: Record, release: Release, *, weights: int, vocabulary: int) -> str:
    """The card as Markdown with the front matter of Hugging Face."""
    sets = (f"| {run} | {c.path} | {c.repeat:g} | {c.licence} | `{c.sha256[:16]}…` |" for run, c in corpora_of(record))
    return "\n".join(
        (
            _FRONT.format(licence=release.licence.lower()),
            f"# {release.name} {release.version}\n",
            "A small open language model, trained from scratch by the Galerne project:",
            f"Mistral architecture, {weights:,} weights, vocabulary {vocabulary:,},",
            f"context {_context(record):,} tokens, English.",
            "\n## Figures\n",
            *_figures(record),
            "\n## Runs\n",
            "| recipe | tokens read | steps | training time |",
            "| --- | ---: | ---: | ---: |",
            *(_run_row(run) for run in _runs(record)),
            "\n## Limits\n",
            _LIMITS,
            "\n## Training data\n",
            "| run | file | share or repeats | licence | sha256 |",
            "| --- | --- | ---: | --- | --- |",
            *sets,
            "\nFull hashes are in `manifest.json`, sources in `ATTRIBUTION.md`.",
            "\n## Licence\n",
            f"The weights are under {release.licence}, because part of the training text is share-alike;",
            "the code that made them is under Apache-2.0. The training text is not part of this folder.\n",
        )
    )


def attribution(record: Record) -> str:
    """Whom the training text is owed to, by licence, as Markdown."""
    sets = {corpus.path: corpus for _, corpus in corpora_of(record)}
    lines = [
        "# Attribution\n",
        "The weights were computed from these texts, which were cleaned, cut and mixed before.\n",
    ]
    for licence in sorted({corpus.licence for corpus in sets.values()}):
        lines.append(f"## {licence}\n")
        lines.extend(f"- `{path}`: {c.origin}" for path, c in sorted(sets.items()) if c.licence == licence)
        lines.append("")
    return "\n".join(lines)


def _runs(record: Record) -> Iterator[Record]:
    if record.start is not None:
        yield from _runs(record.start)
    yield record


def _context(record: Record) -> int:
    shape = next(run.recipe.model for run in _runs(record) if run.recipe.model is not None)
    return shape.context


def _figures(record: Record) -> list[str]:
    runs = [run for run in _runs(record) if run.scores]
    if not runs:
        return ["Nothing was measured on this checkpoint."]
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    return [
        "| measure | " + " | ".join(f"after {run.recipe.name}" for run in runs) + " |",
        "| --- |" + " ---: |" * len(runs),
        *(f"| {name} | " + " | ".join(_number(run.scores.get(name)) for run in runs) + " |" for name in names),
        _MEASURES,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _run_row(run: Record) -> str:
    return f"| {run.recipe.name} | {run.tokens:,} | {run.steps:,} | {run.training_s / 60:.0f} min |"
