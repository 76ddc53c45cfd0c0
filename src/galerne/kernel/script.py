"""Database work as a script: a generator that yields statements and gets their rows from whoever holds a connection.

A script knows neither driver nor event loop, so that the same lines run in a request's session and, many of them in one
transaction, in the writer that settles requests (`kernel.writer`).
"""

import json
import re
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel.clock import utc_text
from galerne.kernel.database import UtcTime
from galerne.kernel.errors import invariant

T = TypeVar("T")
Rows = list[Any]
DialectName = Literal["sqlite", "postgresql"]

_LARGEST_INSERT = 32  # SQLite keeps each statement prepared, 5 kB a row with its last values: 0.25 MB a table, not 2.4
_MANY = 256  # rows from which on putting them together costs more than the statements that it saves
_MOST_PARAMETERS = 32_000  # SQLite takes 32,766 in one statement
_PARAMETER = re.compile(r"(?<!:):([a-z_][a-z_0-9]*)")
_LIST = re.compile(r"\bIN :([a-z_][a-z_0-9]*)")
_PG = PGDialect()


@dataclass(frozen=True, slots=True)
class Query:
    """SQL of ours with `:named` values; a list among them is asked for with `IN :name`.

    `FOR UPDATE` is left out on SQLite, where a transaction is the only writer from its first statement on. A time that
    is read is text there (`utc_time`), and what is stored as JSON is text for some drivers (`json_list`).
    """

    sql: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows for `table`, each a tuple in the order of `columns`; few calls of the driver however many rows there are.

    With `once_by`, a column that is unique, rows whose value there exists are left out, and the values of those that
    were written come back. With `adding` instead, a row whose primary key exists adds its integers in these columns to
    what stands there; then each key may be among `rows` once.
    """

    table: SqlTable
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    once_by: str | None = None
    adding: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Increase:
    """Adds integers to `columns` of those rows of `table` whose `key` column is a key of `amounts`."""

    table: SqlTable
    key: str
    columns: tuple[str, ...]
    amounts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Lock:
    """Rows that are to change for nobody else until the transaction ends, found by a `query` whose answer nobody needs.

    SQLite is not even asked: there a transaction is the only writer from its first statement on.
    """

    query: Query


Statement = Query | Insert | Increase | Lock
Script = Generator[Statement, Rows, T]
Call = tuple[str, Any]
"""SQL as the driver takes it, and its parameters: a mapping or a tuple on SQLite, a tuple on PostgreSQL.

A list of tuples, on SQLite only, is for `executemany`: the statement once with each, and no rows come back.
"""


async def run_in_session(session: AsyncSession, script: Script[T]) -> T:
    """What `script` returns, run in the session's transaction, after what the session has not written yet."""
    await session.flush()
    connection = await session.connection()
    dialect = cast(DialectName, connection.dialect.name)
    rows: Rows | None = None
    try:
        while True:
            statement = script.send(cast(Rows, rows))  # the first one is None, which starts a generator
            rows = []
            for sql, parameters in calls(statement, dialect):
                result = await connection.exec_driver_sql(sql, parameters)
                if result.returns_rows:
                    rows += cast(list[Any], result.fetchall())
    except StopIteration as end:
        return cast(T, end.value)


def run_on_sqlite(connection: sqlite3.Connection, script: Script[T]) -> T:
    """What `script` returns, run in the transaction that is open on `connection`."""
    rows: Rows | None = None
    try:
        while True:
            statement = script.send(cast(Rows, rows))  # the first one is None, which starts a generator
            rows = []
            for sql, parameters in calls(statement, "sqlite"):
                if type(parameters) is list:
                    connection.executemany(sql, cast(list[Any], parameters))
                else:
                    rows += connection.execute(sql, parameters).fetchall()
    except StopIteration as end:
        return cast(T, end.value)


def json_list(read: str | list[Any]) -> list[Any]:
    """A list that is stored as JSON, as a script reads it: some drivers decode it, others give its text."""
    return cast(list[Any], json.loads(read)) if isinstance(read, str) else read


def calls(statement: Statement, dialect: DialectName) -> Iterable[Call]:
    """What the driver is to execute for `statement`, in this order; the rows of all of it are the statement's."""
    if isinstance(statement, Query):
        return (_sqlite_query(statement) if dialect == "sqlite" else _postgresql_query(statement),)
    if isinstance(statement, Insert):
        return _sqlite_inserts(statement) if dialect == "sqlite" else _postgresql_inserts(statement)
    if isinstance(statement, Lock):
        return () if dialect == "sqlite" else (_postgresql_query(statement.query),)
    return _increases(statement, dialect)


def _sqlite_query(query: Query) -> Call:
    values = {name: _plain(value) for name, value in query.values.items()}
    return _sqlite_sql(query.sql), values


@lru_cache(1000)
def _sqlite_sql(sql: str) -> str:
    return _LIST.sub(r"IN (SELECT value FROM json_each(:\1))", sql.replace(" FOR UPDATE", ""))


def _postgresql_query(query: Query) -> Call:
    sql, names = _postgresql_sql(query.sql)
    return sql, tuple(query.values[name] for name in names)


@lru_cache(1000)
def _postgresql_sql(sql: str) -> tuple[str, tuple[str, ...]]:
    names: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1], len(names) + 1)}"

    return _PARAMETER.sub(numbered, _LIST.sub(r"= ANY(:\1)", sql)), tuple(names)


def _sqlite_inserts(insert: Insert) -> Iterator[Call]:
    table, columns, rows, once_by, adding = insert.table, insert.columns, insert.rows, insert.once_by, insert.adding
    times, most = _sqlite_shape(table, columns)
    if len(rows) >= _MANY and once_by is None:  # `executemany` gives no rows back
        yield _sqlite_insert(table, columns, once_by, adding, 1), _stored(rows, times)
        return
    width, start = len(columns), 0
    while left := len(rows) - start:
        # Powers of two, so that the driver's cache of prepared statements holds every one that is ever needed.
        size = most if left >= most else 1 << (left.bit_length() - 1)
        values = list(rows[start]) if size == 1 else list(chain.from_iterable(rows[start : start + size]))
        for column in times:
            values[column::width] = map(_plain, values[column::width])
        yield _sqlite_insert(table, columns, once_by, adding, size), tuple(values)
        start += size


def _stored(rows: Sequence[tuple[Any, ...]], times: Iterable[int]) -> list[tuple[Any, ...]]:
    # Texts are times as they are stored: rating takes them from one table to another, by the million.
    times = [column for column in times if not isinstance(rows[0][column], str)]
    if not times:
        return list(rows)
    columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
    for column in times:
        columns[column] = map(_plain, columns[column])
    return list(zip(*columns, strict=True))


@lru_cache(1000)
def _sqlite_shape(table: SqlTable, columns: tuple[str, ...]) -> tuple[tuple[int, ...], int]:
    times = tuple(number for number, name in enumerate(columns) if isinstance(table.c[name].type, UtcTime))
    return times, min(_LARGEST_INSERT, 1 << ((_MOST_PARAMETERS // len(columns)).bit_length() - 1))


@lru_cache(1000)
def _sqlite_insert(
    table: SqlTable, columns: tuple[str, ...], once_by: str | None, adding: tuple[str, ...], size: int
) -> str:
    row = f"({','.join('?' * len(columns))})"
    rows, conflict = ",".join([row] * size), _conflict(table, once_by, adding)
    return f"INSERT INTO {table.name} ({','.join(columns)}) VALUES {rows}{conflict}"  # noqa: S608  # names of ours


def _conflict(table: SqlTable, once_by: str | None, adding: tuple[str, ...]) -> str:
    if once_by is not None:
        return f" ON CONFLICT ({once_by}) DO NOTHING RETURNING {once_by}"
    if not adding:
        return ""
    key = ", ".join(column.name for column in table.primary_key.columns)
    return f" ON CONFLICT ({key}) DO UPDATE SET {_sums(table, adding, 'excluded')}"


def _sums(table: SqlTable, columns: tuple[str, ...], source: str) -> str:
    return ", ".join(f"{name} = {table.name}.{name} + {source}.{name}" for name in columns)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        invariant(value.tzinfo is not None, "a time without a zone cannot be stored")
        return utc_text(value)  # as UtcTime writes it
    if isinstance(value, list):
        return json.dumps(value)
    return value


def _postgresql_inserts(insert: Insert) -> Iterator[Call]:
    if insert.rows:
        yield (
            _postgresql_insert(insert.table, insert.columns, insert.once_by, insert.adding),
            tuple(map(list, zip(*insert.rows, strict=True))),
        )


@lru_cache(1000)
def _postgresql_insert(table: SqlTable, columns: tuple[str, ...], once_by: str | None, adding: tuple[str, ...]) -> str:
    arrays = ", ".join(f"${number}::{_type(table, name)}[]" for number, name in enumerate(columns, 1))
    names, conflict = ", ".join(columns), _conflict(table, once_by, adding)
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}){conflict}"  # noqa: S608  # names of ours


def _type(table: SqlTable, column: str) -> str:
    return table.c[column].type.compile(_PG)


def _increases(increase: Increase, dialect: DialectName) -> Iterator[Call]:
    if not increase.amounts:
        return
    keys = sorted(increase.amounts)
    sql = _increase(increase.table, increase.key, increase.columns, dialect)
    if dialect == "sqlite":
        yield sql, (json.dumps([[key, *increase.amounts[key]] for key in keys]),)
    else:
        yield sql, (keys, *(list(column) for column in zip(*(increase.amounts[key] for key in keys), strict=True)))


@lru_cache(1000)
def _increase(table: SqlTable, key: str, columns: tuple[str, ...], dialect: DialectName) -> str:
    sums = _sums(table, columns, "added")
    if dialect == "sqlite":
        fields = ", ".join(
            f"json_extract(value, '$[{number}]') AS {name}" for number, name in enumerate((key, *columns))
        )
        source = f"(SELECT {fields} FROM json_each(?)) AS added"  # noqa: S608  # names of ours
    else:
        arrays = ", ".join(f"${number}::{_type(table, name)}[]" for number, name in enumerate((key, *columns), 1))
        source = f"unnest({arrays}) AS added({', '.join((key, *columns))})"
    return f"UPDATE {table.name} SET {sums} FROM {source} WHERE {table.name}.{key} = added.{key}"  # noqa: S608  # names of ours
