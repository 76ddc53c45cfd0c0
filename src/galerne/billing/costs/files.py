"""Costs as files: CSV and NDJSON for anything that reads text, Parquet for tables. Streamed, and exact.

A cost is a decimal with nine digits after the point wherever it is written: a float would be another number.
"""

import csv
import json
from collections.abc import AsyncIterable
from contextlib import closing
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal

from galerne.billing.costs.query import Cost, CostQuery
from galerne.billing.costs.schemas import cost_fields
from galerne.kernel import Unprocessable

CostFormat = Literal["csv", "ndjson", "parquet"]

_ROWS_AT_ONCE = 5000
_DIGITS, _PLACES = 38, 9


async def write_costs(rows: AsyncIterable[Cost], query: CostQuery, to: IO[bytes] | Path, form: CostFormat) -> int:
    """Write the rows, and say how many they were; memory holds a few thousand of them, however many come.

    A file appears once it is whole. Parquet needs a path, and raises `Unprocessable` without the extra `export`.
    """
    if isinstance(to, Path):
        part = to.with_name(f"{to.name}.part")
        try:
            if form == "parquet":
                count = await _write_parquet(rows, query, part)
            else:
                with part.open("wb") as file:
                    count = await _write_text(rows, query, file, form)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return count
    if form == "parquet":
        raise Unprocessable("Parquet is written to a file: name one with --output.", code="export_needs_a_file")
    return await _write_text(rows, query, to, form)


async def _write_text(rows: AsyncIterable[Cost], query: CostQuery, file: IO[bytes], form: CostFormat) -> int:
    columns, count = _file_columns(query), 0
    lines = _Lines(file)
    write = csv.writer(lines, lineterminator="\r\n")  # RFC 4180
    if form == "csv":
        write.writerow(columns)
    async for row in rows:
        fields = cost_fields(query, row)
        if form == "csv":
            write.writerow([_cell(fields[name]) for name in columns])
        else:
            file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


async def _write_parquet(rows: AsyncIterable[Cost], query: CostQuery, path: Path) -> int:
    arrow, parquet = _arrow()
    money = arrow.decimal128(_DIGITS, _PLACES)
    types = {name: arrow.string() for name in query.columns} | {"cost": money}
    schema = arrow.schema([(name, types.get(name, arrow.int64())) for name in _file_columns(query)])
    count, part = 0, list[dict[str, Any]]()
    with closing(parquet.ParquetWriter(path, schema)) as writer:
        async for row in rows:
            part.append(cost_fields(query, row) | {"cost": Decimal(row.nano).scaleb(-_PLACES)})
            count += 1
            if len(part) == _ROWS_AT_ONCE:
                writer.write_table(arrow.Table.from_pylist(part, schema))
                part.clear()
        writer.write_table(arrow.Table.from_pylist(part, schema))
    return count


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise Unprocessable(
            "Parquet needs pyarrow: install the extra with `pip install 'galerne[export]'`, or write csv or ndjson.",
            code="extra_missing",
        ) from None


def _file_columns(query: CostQuery) -> tuple[str, ...]:
    by_class = ("quantity", "requests") if "token_class" in query.columns else ()
    return (*query.columns, "cost", "input_tokens", "cached_tokens", "output_tokens", *by_class)


def _cell(value: object) -> str:
    """A cell; one that a spreadsheet would run as a formula begins with an apostrophe (OWASP, CSV injection)."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdecimal()


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.encode())
