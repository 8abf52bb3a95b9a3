"""A report's files: each is either whole or not there."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import OutputError
from ._html import page
from ._pictures import answer
from ._report import Report
from .business import sheet


def check_writable(folder: str | Path) -> Path:
    """Try to write to a folder, or to where it would be made, before hours of work.

    Nothing is left there. Raises OutputError.
    """
    folder = there = Path(folder)
    try:
        while not there.exists():
            there = there.parent
        probe = there / f".withstand-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"output {folder} cannot be written: {error.strerror}; give another folder"
        ) from None
    return folder


def save(report: Report, folder: str | Path) -> list[Path]:
    """Write report.json, report.html and adversarial.npz; raises OutputError.

    adversarial.npz holds x, x_adv, y and fooled for the samples in the data's order, and domain. Of
    a table, adversarial.csv holds the fooled rows as its file has them.
    """
    folder = check_writable(folder)
    arrays = io.BytesIO()
    fooled = np.asarray([status == "fooled" for status in report.samples.status])
    np.savez_compressed(
        arrays,
        x=report.x,
        x_adv=report.x_adv,
        y=report.samples.label,
        fooled=fooled,
        domain=np.asarray(report.domain),
    )
    # All is made before the first is written: an error here leaves what was there as it was.
    contents = {
        "report.json": report.to_json().encode(),
        "report.html": page({"": report}).encode(),
        "adversarial.npz": arrays.getvalue(),
    }
    if report.table is not None and report.business is not None:
        contents["adversarial.csv"] = _sheet(report).encode("utf-8", "surrogatepass")
    return [write(folder / name, content) for name, content in contents.items()]


def _sheet(report: Report) -> str:
    assert report.table is not None
    assert report.business is not None
    rows, samples = report.business.rows, report.samples
    told: dict[str, list[Any]] = {"row": rows.row.tolist(), "changed": rows.changed.tolist()}
    told |= {
        name: [round(float(value), 6) for value in getattr(rows, name)]
        for name in ("cost", "stake_before", "stake_after")
        if getattr(rows, name) is not None
    }
    answers = {
        "label": samples.label,
        "answer_before": samples.clean_answer,
        "answer_after": samples.adversarial_answer,
    }
    for name, values in answers.items():
        told[name] = [answer(report, value) for value in values[rows.row]]
    return sheet(told, report.table.decode(report.x_adv[rows.row]))


def write(path: Path, content: bytes) -> Path:
    """Write a file under another name first, so that it is never half there, folders included."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}; free space there or give another folder"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()
    return path
