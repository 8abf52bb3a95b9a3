"""Fresh processes without the seconds of imports: forked from one that has made them already."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_CONTEXT = multiprocessing.get_context("forkserver")
# Compilers are what optimizers import, at a second and more.
_CONTEXT.set_forkserver_preload(
    [
        "withstand.workflows",
        "withstand.harden",
        "withstand.cli",
        "withstand.guard.serve",
        "sklearn.datasets",
        "torch._dynamo",
    ]
)


def withstand(
    *words: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    meanwhile: Callable[[int], None] = lambda process: None,
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; its exit code and what it said.

    meanwhile: what is done with its id while it runs.
    """
    return _forked(_command, words, folder, environment or {}, meanwhile)


@contextmanager
def started(*words: str, folder: Path) -> Iterator[tuple[int, Callable[[], str]]]:
    """The command line in a process that goes on: its id, and what it has said on standard error.

    It is killed at the end if it has not ended by itself.
    """
    with TemporaryDirectory() as scratch:
        process = _CONTEXT.Process(target=_child, args=(_command, words, folder, {}, scratch))
        process.start()
        said = Path(scratch, "error")
        assert process.pid is not None
        try:
            yield process.pid, lambda: said.read_text() if said.exists() else ""
        finally:
            process.kill()
            process.join()


def script(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python source as a program of its own."""
    return _forked(_program, (text,), folder, {})


def _forked(
    work: Callable[..., None],
    words: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str],
    meanwhile: Callable[[int], None] = lambda process: None,
) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as scratch:
        process = _CONTEXT.Process(
            target=_child, args=(work, words, folder, dict(environment), scratch)
        )
        process.start()
        assert process.pid is not None
        try:
            meanwhile(process.pid)
            process.join()
        finally:
            process.kill()
        out, error = (Path(scratch, name).read_text() for name in ("out", "error"))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(words), process.exitcode, out, error)


def _child(
    work: Callable[..., None],
    words: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    scratch: str,
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "error")):
        os.dup2(os.open(Path(scratch, name), os.O_CREAT | os.O_WRONLY), number)
    # What `python -c` looks into first.
    sys.path.insert(0, "")
    work(*words)


def _command(*words: str) -> None:
    from withstand.cli import main

    sys.argv = ["withstand", *words]
    main()


def _program(text: str) -> None:
    with TemporaryDirectory() as place:
        # A file, since some code asks for its own source.
        path = Path(place, "block.py")
        path.write_text(text)
        runpy.run_path(str(path), run_name="__main__")
