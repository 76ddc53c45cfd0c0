"""Knows how long a regular expression becomes when its counted repetitions are written out."""

import re

_COUNT = re.compile(r"\{(\d+)(,(\d*))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]?", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:[pPxu]\{[^}]*\}?|.|$)", re.DOTALL)
_ATOM = re.compile(r"[^\\\[(){]+")
_MANY_DIGITS = 9


def unrolled(pattern: str) -> int:
    """How many characters, classes and escapes `pattern` is made of once every `{n,m}` is written out m times.

    `*`, `+` and `?` cost nothing, for they are loops. Takes time linear in the length of `pattern`, valid or not.
    """
    groups, place = [_Group()], 0
    while place < len(pattern):
        group = groups[-1]
        if pattern[place] == "(":
            groups.append(_Group())
        elif pattern[place] == ")":
            inner = groups.pop().total
            groups = groups or [_Group()]
            groups[-1].add(inner)
        elif counted := _COUNT.match(pattern, place):
            group.repeat(_most(counted))
            place = counted.end()
            continue
        elif found := _ATOM.match(pattern, place):
            group.add(found.end() - place - 1)
            group.add(1)
            place = found.end()
            continue
        else:
            found = _CLASS.match(pattern, place) or _ESCAPE.match(pattern, place)
            group.add(1)
            place = found.end() if found else place + 1
            continue
        place += 1
    return sum(group.total for group in groups)


class _Group:
    def __init__(self) -> None:
        self.total = 0
        self._last = 0

    def add(self, size: int) -> None:
        self.total += size
        self._last = size

    def repeat(self, times: int) -> None:
        self.total += self._last * (times - 1)
        self._last *= times


def _most(counted: re.Match[str]) -> int:
    digits = [text.lstrip("0")[:_MANY_DIGITS] for text in (counted[1], counted[3] or "")]
    return max(1, *(int(text or 0) for text in digits))
