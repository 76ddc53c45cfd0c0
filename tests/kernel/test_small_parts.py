import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from galerne.kernel import (
    Ids,
    InvariantViolated,
    Settings,
    Unavailable,
    configure_logs,
    get_logger,
    invariant,
    read_secret,
    utc_text,
)
from galerne.kernel.ids import token


def test_ids_are_unique_and_sorted_as_they_were_made(ids: Ids) -> None:
    made = [ids.new() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_are_unique_across_threads(ids: Ids) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [each for some in pool.map(lambda _: [ids.new() for _ in range(1_000)], range(8)) for each in some]
    assert len(set(made)) == 8_000


@given(st.integers(1, 64))
def test_a_token_has_the_length_asked_for_and_only_base_62(length: int) -> None:
    made = token(length)
    assert len(made) == length
    assert made.isalnum()
    assert made.isascii()


def test_an_invariant_that_does_not_hold_raises() -> None:
    invariant(True, "holds")
    with pytest.raises(InvariantViolated, match="books"):
        invariant(False, "books balance")


def test_the_database_lies_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert Settings(data=tmp_path).resolved_database_url == f"sqlite+aiosqlite:///{tmp_path}/galerne.db"
    assert Settings(database_url="postgresql+asyncpg://db/x").resolved_database_url == "postgresql+asyncpg://db/x"


def test_a_database_that_we_do_not_speak_is_refused_with_what_we_do() -> None:
    with pytest.raises(ValidationError, match="must start with"):
        Settings(database_url="mysql://x")


def test_the_administrators_key_is_not_shown_by_settings() -> None:
    assert "hush-hush" not in repr(Settings.model_validate({"admin_key": "hush-hush"}))


def test_a_secret_is_read_from_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", " from-env \n")
    (tmp_path / "key").write_text("from-file\n")
    assert read_secret("UPSTREAM_KEY", None) == "from-env"
    assert read_secret(None, str(tmp_path / "key")) == "from-file"
    assert read_secret(None, None) is None


def test_a_missing_secret_is_unavailable_and_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSTREAM_KEY", raising=False)
    with pytest.raises(Unavailable, match="UPSTREAM_KEY"):
        read_secret("UPSTREAM_KEY", None)
    with pytest.raises(Unavailable, match="nowhere"):
        read_secret(None, str(tmp_path / "nowhere"))


def test_logs_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    get_logger("test").info("served", status=200)
    logging.getLogger("library").error("trouble")
    logging.getLogger("library").info("chatter")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("served", "info"), ("trouble", "error")]
    assert lines[0]["status"] == 200


class _Interrupted(datetime):
    """A time during whose comparison another thread asks for the text of another one."""

    def __lt__(self, other: datetime) -> bool:
        utc_text(datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC))
        return super().__lt__(other)


def test_a_text_is_of_the_time_asked_for_though_another_thread_asks_meanwhile() -> None:
    at = _Interrupted(2026, 1, 1, 0, 0, 5, 250, tzinfo=UTC)
    utc_text(datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC))
    assert utc_text(at) == "2026-01-01 00:00:05.000250"


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_every_time_has_a_text_the_first_and_the_last_ones_too(year: int) -> None:
    for at in (datetime(year, 1, 1, tzinfo=UTC), datetime(year, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)):
        assert utc_text(at) == at.isoformat(" ", "microseconds")[:26]


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-1439, 1439))
def test_a_text_is_in_utc_whatever_the_zone(at: datetime, minutes: int) -> None:
    assume(2 < at.year < 9998)
    there = at.astimezone(timezone(timedelta(minutes=minutes)))
    assert utc_text(there) == there.astimezone(UTC).isoformat(" ", "microseconds")[:26]
