"""What is asked of whoever writes a log at present: to erase inputs, or to keep to a retention."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..._errors import EvidenceError, WithstandError, one_line
from .._shard import sync_folder, write_file
from ._log import BusyError, Log
from ._retention import Retention, erase, retain
from ._vault import Vault

_FOLDER = "orders"
_ABANDONED = 3600.0


def order(
    folder: Path, vault: Path | None, asked: dict[str, Any], *, patience: float = 10.0
) -> dict[str, Any] | None:
    """Have something done: here where nobody writes the log, or else by whoever does.

    asked: `{"do": "erase", "inputs": [...], "why": ...}` or `{"do": "retain", "inputs": seconds,
    "records": seconds}`. Returns what was done, or None where the writer has not come to it within
    `patience` seconds: it will. Raises EvidenceError where it could not be done.
    """
    path = _leave(folder, asked)
    answer, until = path.with_suffix(".answer"), time.monotonic() + patience
    while not answer.exists():
        try:
            with Log(folder) as log:
                _carry_out_here(log, vault)
        except BusyError:
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
        except (EvidenceError, OSError) as error:
            path.unlink(missing_ok=True)
            raise EvidenceError(one_line(error, 400)) from None
    told: dict[str, Any] = json.loads(answer.read_bytes())
    answer.unlink(missing_ok=True)
    if "failed" in told:
        raise EvidenceError(str(told["failed"]))
    done: dict[str, Any] = told["done"]
    return done


def carry_out(log: Log, vault: Vault | None) -> int:
    """Do what was asked of the writer of this log, and tell how many orders that were."""
    done = 0
    for path in sorted((log.folder / _FOLDER).glob("*.json")):
        told: dict[str, Any]
        try:
            told = {"done": _carried_out(log, vault, json.loads(path.read_bytes()))}
        except (WithstandError, OSError, ValueError, KeyError, TypeError) as error:
            told = {"failed": one_line(error)}
        _replace(path.with_suffix(".answer"), told)
        path.unlink(missing_ok=True)
        done += 1
    for answer in (log.folder / _FOLDER).glob("*.answer"):
        with suppress(FileNotFoundError):
            # Nobody has waited for it.
            if time.time() - answer.stat().st_mtime > _ABANDONED:
                answer.unlink()
    return done


def _carry_out_here(log: Log, vault: Path | None) -> None:
    inputs = None if vault is None else Vault(vault)
    try:
        carry_out(log, inputs)
    finally:
        if inputs is not None:
            inputs.close()


def _carried_out(log: Log, vault: Vault | None, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["do"] == "retain":
        kept = Retention(inputs=asked.get("inputs"), records=asked.get("records"))
        return vars(retain(log, vault, kept))
    if vault is None:
        raise EvidenceError(f"{log.folder} has no vault; give the folder of its inputs")
    return {"inputs": erase(log, vault, asked["inputs"], asked["why"])}


def _leave(folder: Path, asked: dict[str, Any]) -> Path:
    path = folder / _FOLDER / f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _replace(path, asked)
    except OSError as error:
        raise EvidenceError(
            f"{path.parent} cannot be written: {error.strerror}; nothing is done"
        ) from None
    return path


def _replace(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    write_file(part, json.dumps(content).encode())
    part.replace(path)
    sync_folder(path.parent)
