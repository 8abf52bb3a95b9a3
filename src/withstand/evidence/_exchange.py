"""A corpus for other teams: arrays and records in open formats, under a signed manifest."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import CorpusError
from .._version import __version__
from ..threat import ACCESS
from ._corpus import Corpus
from ._entry import RECORDED, Array, Entry, Kind, Origin, content_digest, known, now
from ._packed import Form, read_packed, write_packed
from ._remark import Remark
from ._shard import write_file
from .log._crypto import is_signed, private_key, public_hex

_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_FORMAT = 1
_MOST = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What an exchange says of itself, and the public key (hex) that signed it.

    digest: sha256 of its manifest, by which it is known wherever it was imported.
    """

    digest: str
    key: str
    entries: int
    form: Form
    licence: str
    sender: str
    time: str
    files: dict[str, str]


def write_exchange(
    corpus: Corpus,
    folder: str | Path,
    key: str | Path,
    *,
    form: Form = "safetensors",
    kind: Kind | None = None,
    version: int | None = None,
    licence: str = "",
    sender: str = "",
    card: str = "",
) -> Exchange:
    """Write our own entries to a new folder, signed with the Ed25519 key in a file.

    The key is made where there is none. What was imported is not passed on: it is not ours to give.
    card: Markdown that is written beside. Raises CorpusError.
    """
    folder, signing = Path(folder), private_key(Path(key))
    entries = (entry for entry in corpus.entries(version, kind=kind) if not entry.origin.imported)
    try:
        folder.mkdir(parents=True)
        count = 0
        groups = groupby(entries, lambda entry: (entry.version, entry.shard))
        with write_packed(folder, form) as put:
            for _, among in groups:
                some = list(among)
                put(np.stack(corpus.read(some)), [_told(entry) for entry in some])
                count += len(some)
        if card:
            write_file(folder / "card.md", card.encode())
        content = {
            "format": _FORMAT, "withstand": __version__, "time": now(), "entries": count,
            "form": form, "licence": licence, "sender": sender,
            "corpus": corpus.head.digest if corpus.head else "",
            "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
        }  # fmt: skip
        raw = (json.dumps(content, indent=1) + "\n").encode()
        write_file(folder / _MANIFEST, raw)
        write_file(folder / _SIGNATURE, signing.sign(raw).hex().encode())
    except OSError as error:
        raise CorpusError(
            f"{folder} cannot be written: {error.strerror}; give a folder that is not there yet"
        ) from None
    return _exchange(raw, public_hex(signing))


def read_exchange(folder: str | Path, public: str) -> Exchange:
    """What is in a folder, checked against its signature by a key that was told otherwise.

    Every byte of its files is checked too; raises CorpusError that names what was changed.
    """
    folder = Path(folder)
    try:
        with (folder / _MANIFEST).open("rb") as file:
            raw = file.read(_MOST)
        signature = (folder / _SIGNATURE).read_text("ascii", "replace").strip()
    except OSError as error:
        raise CorpusError(f"{folder}: {error.strerror}; give the folder of an exchange") from None
    if not is_signed(raw, signature, public):
        raise CorpusError(
            f"{folder / _MANIFEST} is not signed with the key {public[:16]}…; ask its sender for "
            "the key, and by another way than the files came"
        )
    told = _exchange(raw, public)
    for name, digest in told.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise CorpusError(f"{folder} has no file {name!r}; ask its sender for all of it")
        if _sha256(path) != digest:
            raise CorpusError(f"{path} was changed after it was signed; ask its sender for it")
    return told


def import_exchange(corpus: Corpus, folder: str | Path, public: str, by: str) -> Exchange:
    """Add what is in a folder to a corpus, distrusted until a remark says otherwise.

    Entries keep what is told of their origin, and name the exchange. Raises CorpusError.
    """
    folder, told = Path(folder), read_exchange(folder, public)
    if told.digest in corpus.view().imports:
        raise CorpusError(f"{folder} was imported before; see `withstand corpus card`")
    x: list[Array] = []
    entries: list[Entry] = []
    for values, record in read_packed(folder, told.form, told.files):
        entry = _entry(record, told.digest, folder)
        if content_digest(values) != entry.digest:
            raise CorpusError(f"entry {len(x) + 1} of {folder} does not have the values it names")
        x.append(values)
        entries.append(entry)
    if len(x) != told.entries:
        raise CorpusError(f"{folder} has {len(x)} entries of {told.entries}; ask for all of it")
    about = {name: getattr(told, name) for name in ("key", "licence", "sender", "time", "entries")}
    corpus.add(x, entries, [Remark(by=by, imported=told.digest, about=about)])
    return told


def trust(corpus: Corpus, prefix: str, by: str, *, trusted: bool = True) -> Remark:
    """Say that what an exchange brought may be used, or no longer; raises CorpusError.

    prefix: of its digest.
    """
    found = [name for name in corpus.view().imports if prefix and name.startswith(prefix)]
    if len(found) != 1:
        raise CorpusError(
            f"{len(found)} imports begin with {prefix!r}; see `withstand corpus card` for theirs"
        )
    remark = Remark(by=by, imported=found[0], trusted=trusted)
    corpus.add([], [], [remark])
    return remark


def _told(entry: Entry) -> dict[str, Any]:
    told = {name: getattr(entry, name) for name in RECORDED}
    # Where an input came from is known to us alone; its reference may lead to a person.
    told["lineage"] = None
    return {**told, "origin": asdict(entry.origin), "verdict": entry.verdict}


def _entry(record: dict[str, Any], imported: str, folder: Path) -> Entry:
    try:
        origin = replace(known(Origin, record["origin"]), imported=imported)
        # Nobody else can know which record of our evidence an input comes from.
        entry = known(Entry, {**record, "origin": origin, "lineage": None})
        texts = (entry.attack, entry.digest, entry.verdict, origin.model, origin.data)
        if not all(isinstance(one, str) for one in (*texts, origin.withstand, origin.time)):
            raise TypeError
        if not isinstance(entry.original, str | None) or not isinstance(origin.threat, dict):
            raise TypeError
        if not isinstance(entry.survives_8bit, bool | None) or entry.access not in ACCESS:
            raise ValueError
        if entry.distance is not None and not _is_distance(entry.distance):
            raise ValueError
        if entry.verdict not in ("", "attack", "benign"):
            raise ValueError
        if not all(_is_answer(one) for one in (entry.label, entry.answer, entry.answer_8bit)):
            raise ValueError
        datetime.fromisoformat(origin.time)
        json.dumps(origin.threat, allow_nan=False)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorpusError(
            f"{folder} has an entry that is none ({type(error).__name__}); ask its sender"
        ) from None
    if entry.kind not in ("adversarial", "flagged"):
        raise CorpusError(f"{folder} has an entry of kind {entry.kind!r}; update withstand")
    return entry


def _is_answer(value: Any) -> bool:
    """Whether it is a class or its name, an output, a list of them, or nothing."""
    if isinstance(value, list):
        return all(not isinstance(one, list) and _is_answer(one) for one in value)
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return isfinite(value)
    return value is None or isinstance(value, bool | str)


def _is_distance(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def _exchange(raw: bytes, key: str) -> Exchange:
    try:
        told = json.loads(raw)
        if told["format"] > _FORMAT:
            raise CorpusError(
                f"the exchange has format {told['format']}, withstand {__version__} reads up to "
                f"{_FORMAT}; update it"
            )
        if not isinstance(told["files"], dict):
            raise TypeError
        digest = hashlib.sha256(raw).hexdigest()
        return known(Exchange, {**told, "digest": digest, "key": key})
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"a manifest is none of an exchange ({type(error).__name__}); ask its sender"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
