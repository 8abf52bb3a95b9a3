"""The gate's files, and the summary of a job."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from .._errors import OutputError
from .._whole import together
from ..evaluate import check_writable, write
from ._baseline import Array
from ._judge import Gate
from ._junit import junit
from ._live import Live
from ._sarif import sarif
from ._show import markdown

_VERDICT = ("gate.json", "gate.md", "junit.xml", "gate.sarif")


def forget(folder: str | Path) -> None:
    """Remove an earlier gate's verdict, which must not be taken for that of one that fails."""
    for name in _VERDICT:
        try:
            (Path(folder) / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{Path(folder) / name} cannot be replaced: {error.strerror}; give another folder"
            ) from None


def save(gate: Gate, folder: str | Path, *, config: str | Path = "withstand.yaml") -> list[Path]:
    """Write gate.json, gate.md, junit.xml and gate.sarif, all or none; raises OutputError.

    config: the file that the SARIF results point into. Where GitHub asks for a summary of the job,
    with GITHUB_STEP_SUMMARY, the Markdown is added to that too.
    """
    folder = check_writable(folder)
    story = markdown(gate)
    made = (gate.to_json().encode(), story.encode(), junit(gate), sarif(gate, config).encode())
    contents = {folder / name: content for name, content in zip(_VERDICT, made, strict=True)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        together(contents)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}; free space there or give another folder"
        ) from None
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(story)
        except OSError as error:
            raise OutputError(
                f"GITHUB_STEP_SUMMARY {summary} cannot be written: {error.strerror}; unset it"
            ) from None
    return list(contents)


def save_examples(live: Live, x: Array, y: Array, folder: str | Path) -> Path:
    """Write adversarial.npz, as a report does, for the next release to start from."""
    arrays = io.BytesIO()
    np.savez_compressed(arrays, x=x, x_adv=live.x_adv, y=y, fooled=live.fooled)
    return write(check_writable(folder) / "adversarial.npz", arrays.getvalue())
