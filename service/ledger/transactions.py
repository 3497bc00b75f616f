"""Short transactions, the clock and the few statements that SQLite and PostgreSQL say differently."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine, Executable, Table


class Ledger:
    """One database with a clock. The parts of the ledger derive from it."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self.engine = engine
        self.clock = clock
        # SQLite must still be told to wait for its other writers, which it does where a transaction begins.
        plain = engine.dialect.name == "sqlite"
        self._alone = engine if plain else engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def writing_once(self) -> Iterator[Connection]:
        """For one statement that writes, the first one: it is a transaction by itself.

        PostgreSQL is spared the two turns that begin and end one. What is read behind it, it has committed.
        """
        with self._alone.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it is kept, or nothing."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view that waits for no writer."""
        with self.engine.connect() as plain:
            connection = plain.execution_options(reading=True)
            with connection.begin():
                yield connection


def insert_missing(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Insert the row unless its primary key is there; tell whether it was inserted."""
    return bool(connection.execute(_insert_missing(connection.dialect.name, table), row).rowcount)


def insert_all_missing(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose primary key is not there yet, in one round trip."""
    if rows:
        connection.execute(_insert_missing(connection.dialect.name, table), rows)


def put(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert the row, or replace the one with its primary key."""
    connection.execute(_put(connection.dialect.name, table), row)


@cache
def _insert_missing(dialect: str, table: Table) -> Executable:
    """Build the statement once: it takes longer than running it."""
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _put(dialect: str, table: Table) -> Executable:
    keys = [column.name for column in table.primary_key.columns]
    statement = _insert(dialect, table)
    others = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
