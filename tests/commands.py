"""The command line in this process, for what needs no process of its own."""

from __future__ import annotations

import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from withstand.cli import main


def ran(*words: str, folder: Path) -> CompletedProcess[str]:
    """The command line in a folder; its exit code and what it said."""
    out, error = (TextIOWrapper(BytesIO(), "utf-8") for _ in range(2))
    code = 0
    with chdir(folder), redirect_stdout(out), redirect_stderr(error):
        try:
            with patch.object(sys, "argv", ["withstand", *words]):
                main()
        except SystemExit as end:
            code = int(end.code or 0)
    texts = []
    for stream in (out, error):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return CompletedProcess(list(words), code, *texts)
