"""An SQLite database that several processes may share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy

from grokwatch.integrations._optuna_base import RDBStorage


def sqlite_storage(path: str | Path, *, timeout: float = 120.0, **options: Any) -> Any:
    """Optuna's storage in an SQLite file, safe for several processes on one machine.

    To take up a waiting trial Optuna looks whether it waits, and then says that it runs. Other
    databases lock the row in between; SQLite cannot, so that now and then two processes take up
    one trial. Here each transaction has the file to itself from its beginning
    (``BEGIN IMMEDIATE``, see "Serializable isolation" in SQLAlchemy's manual on SQLite).

    Args:
        path: the file; made if missing, its folder is not.
        timeout: seconds to wait for the other processes' transactions.
        **options: of ``optuna.storages.RDBStorage``, such as ``heartbeat_interval``.

    Returns:
        An ``optuna.storages.RDBStorage``.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> storage = sqlite_storage(Path(folder.name) / "sweep.db")
    >>> type(storage).__name__, storage.get_all_studies()
    ('RDBStorage', [])
    >>> storage.engine.dispose()
    >>> folder.cleanup()
    """
    storage = RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": timeout}}, **options
    )
    sqlalchemy.event.listen(storage.engine, "connect", _leave_transactions_alone)
    sqlalchemy.event.listen(storage.engine, "begin", _begin)
    storage.engine.dispose()  # connections made before this
    return storage


def _leave_transactions_alone(connection: Any, record: Any) -> None:
    # Python's sqlite3 would begin one itself, and only at the first change.
    connection.isolation_level = None


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
