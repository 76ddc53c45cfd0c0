import json
import re

from hypothesis import given
from hypothesis import strategies as st

from galerne.engines.llamacpp.tool_calls import CallReader, new_call_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), JSON, max_size=3)
CALLS = st.lists(st.tuples(st.from_regex(r"[a-zA-Z0-9_.-]{1,12}", fullmatch=True), ARGUMENTS), min_size=1, max_size=3)


@given(CALLS, st.data())
def test_calls_are_read_alike_however_the_text_is_cut(
    calls: list[tuple[str, dict[str, object]]], data: st.DataObject
) -> None:
    text = json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    reader, names, written = CallReader(), list[str](), list[str]()
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        for part in reader.read(text[begin:end]):
            if part.name is not None:
                names.append(part.name)
                written.append("")
            assert part.index == len(names) - 1
            written[-1] += part.arguments
    assert names == [name for name, _ in calls]
    assert [json.loads(arguments) for arguments in written] == [arguments for _, arguments in calls]


def test_arguments_come_while_the_call_is_still_being_written() -> None:
    reader = CallReader()
    parts = reader.read('[{"name": "f", "arguments": {"a": "x')
    assert [(part.name, part.arguments) for part in parts] == [("f", ""), (None, '{"a": "x')]


def test_call_ids_are_nine_letters_and_digits() -> None:
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", new_call_id()) for _ in range(50))
