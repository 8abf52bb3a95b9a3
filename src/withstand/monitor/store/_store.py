"""What operations know, in one file that several processes share."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..._errors import OperationError

NAME = "operations.sqlite"
_FORMAT = 1
_PATIENCE = 10.0
_FIXES = {
    "FULL": "; free space on its disk, nothing that was kept is lost",
    "NOTADB": "; move it away to begin a new one, or put its copy back",
    "CORRUPT": "; move it away to begin a new one, or put its copy back",
    "BUSY": f" for {_PATIENCE:g} s; end whoever holds it",
    "READONLY": "; give its owner the right to write it",
    "CANTOPEN": "; give its owner the right to open it",
    "IOERR": "; check its disk",
}


class Store:
    """An SQLite file in a folder that only its owner can read; made if it is not there.

    Monitor, responder, campaigns and pages read and write it beside each other; what `writing`
    holds is on the disk when it ends, or nothing of it is. Connections are one for each thread.
    Raises OperationError where the file cannot be used, or was written by a newer version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self._mine = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._made: set[str] = set()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperationError(
                f"{self.folder} cannot be made ({error.strerror}); give another monitor.folder"
            ) from None
        with self.writing() as file:
            found = file.execute("PRAGMA user_version").fetchone()[0]
            if found > _FORMAT:
                raise OperationError(
                    f"{self.path} has format {found}, and this withstand knows {_FORMAT}; "
                    "upgrade withstand"
                )
            file.execute(f"PRAGMA user_version = {_FORMAT}")

    def make(self, statements: str) -> None:
        """Make tables that are not there yet: CREATE ... IF NOT EXISTS, with semicolons between."""
        if statements in self._made:
            return
        with self.writing() as file:
            for statement in statements.split(";"):
                if statement.strip():
                    file.execute(statement)
        self._made.add(statements)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody writes beside; taken back where the block raises."""
        with self._mended():
            file = self._connection()
            file.execute("BEGIN IMMEDIATE")
        try:
            with self._mended():
                yield file
                file.execute("COMMIT")
        except BaseException:
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise

    def rows(self, asked: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """What a SELECT finds."""
        with self._mended():
            return self._connection().execute(asked, values).fetchall()

    def close(self) -> None:
        """Let go of the connections of all threads."""
        while self._all:
            self._all.pop().close()
        self._mine = threading.local()

    def release(self) -> None:
        """Let go of this thread's connection, for threads that come and go."""
        found: sqlite3.Connection | None = getattr(self._mine, "file", None)
        if found is not None:
            del self._mine.file
            self._all.remove(found)
            found.close()

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._mine, "file", None)
        if found is None:
            new = not self.path.exists()
            # Closed by whichever thread closes the store.
            found = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            if new:
                self.path.chmod(0o600)
            found.row_factory = sqlite3.Row
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = FULL")
            self._mine.file = found
            self._all.append(found)
        return found

    @contextmanager
    def _mended(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Only what SQLite itself reports has a name.
            name = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").partition("_")[0]
            fix = _FIXES.get(name, "")
            raise OperationError(f"{self.path} cannot be used: {error}{fix}") from error
