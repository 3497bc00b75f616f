"""Opens the ledger's database: SQLite or PostgreSQL, at the newest schema."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, NoSuchModuleError

from service.errors import SettingsError
from service.files import make_directory

if TYPE_CHECKING:
    from alembic.config import Config

NEWEST = "0003"
_MIGRATION_LOCK = 7120421
_RESTED_S = 1.0
_USED_AT = "used at"
_PATIENCE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""With a server that fell silent (libpq; seconds, the second in milliseconds): a loop that waits for it looks hung, and
hung processes are restarted, which helps nobody."""


def open_database(url: str) -> Engine:
    """Connect, and bring the schema up to date; several processes may start at once.

    Raises:
        SettingsError: the URL cannot be used; the message says why.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = _open_sqlite(url, Path(parsed.database or ""))
        else:
            engine = _open_server(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        words = f"ledger.database_url cannot be used: {error}"
        raise SettingsError(f"{words}; it is written like postgresql+psycopg://user@host/pellucid") from None
    _migrate(engine)
    return engine


def _open_server(url: URL) -> Engine:
    # What the URL itself says of them holds.
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    engine = create_engine(
        url, pool_size=10, max_overflow=20, connect_args=patience if url.get_backend_name() == "postgresql" else {}
    )

    @event.listens_for(engine, "checkin")
    def _note(_connection: Any, record: Any) -> None:
        record.info[_USED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, record: Any, _proxy: Any) -> None:
        # A connection that rested may have lost its server; one that was just used is not asked each time.
        if time.monotonic() - record.info.get(_USED_AT, math.inf) > _RESTED_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error:
                raise InvalidatePoolError("the server closed the connection") from None

    return engine


def _open_sqlite(url: str, path: Path) -> Engine:
    make_directory(path.parent)
    path.touch(mode=0o600)
    engine = create_engine(url, connect_args={"timeout": 30.0, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: a write begins IMMEDIATE, below, so that two
        # processes wait for each other instead of failing half-way.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def migrate_to(engine: Engine, revision: str) -> None:
    """Bring the schema to a revision, down or up; before a version is rolled back.

    Raises:
        SettingsError: there is no such revision.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    move = command.downgrade if revision < (_version(engine) or "") else command.upgrade
    with engine.begin() as connection:
        try:
            move(_configuration(connection), revision)
        except CommandError:
            raise SettingsError(f"there is no schema {revision}; the newest is {NEWEST}") from None


def _migrate(engine: Engine) -> None:
    found = _version(engine)
    if found == NEWEST:
        return
    if found is not None and found > NEWEST:
        raise SettingsError(
            f"the ledger has schema {found}, and this version knows {NEWEST}: install the newer version again, and let "
            f"it run 'pellucid migrate --to {NEWEST}' before you go back"
        )
    if engine.dialect.name == "sqlite":
        with FileLock(f"{engine.url.database}.migration.lock"):
            _upgrade(engine)
    else:
        _upgrade(engine)


def _version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(engine: Engine) -> None:
    # Alembic is needed once per schema, so a listener does not carry it in memory.
    from alembic import command  # noqa: PLC0415

    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        command.upgrade(_configuration(connection), "head")


def _configuration(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    configuration.attributes["connection"] = connection
    return configuration
