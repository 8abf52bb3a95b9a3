"""What people say of entries later: labels, verdicts, and whether an import can be trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .._errors import CorpusError, DataError, one_line
from ._entry import Entry, known, now
from ._shard import damaged

REMARKS = "remarks.jsonl"
Verdict = Literal["attack", "benign"]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """One remark, on the entries of one content or on what one exchange brought.

    entry: `content_digest` of the input; label: the true class of a flagged one as a plain value,
    None where nothing is said of it; verdict: whether it was an attack. imported: digest of the
    exchange; trusted: whether its entries may be used; about: what the exchange says of itself.
    by: who says so.
    """

    by: str
    entry: str = ""
    label: Any = None
    verdict: Verdict | Literal[""] = ""
    imported: str = ""
    trusted: bool | None = None
    about: dict[str, Any] = field(default_factory=dict)
    time: str = field(default_factory=now)

    def line(self) -> str:
        """What is written of it; raises DataError for what is no plain value."""
        try:
            return json.dumps(asdict(self), allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a remark by {self.by} cannot be kept ({one_line(error)}); give plain values"
            ) from None


class View:
    """Entries in the light of remarks, of which the later ones count."""

    def __init__(self, remarks: Iterable[Remark]) -> None:
        self.imports: dict[str, Remark] = {}
        self._said: dict[str, Remark] = {}
        for one in remarks:
            if one.imported:
                before = self.imports.get(one.imported)
                about = one.about or (before.about if before else {})
                self.imports[one.imported] = replace(one, about=about)
            else:
                before = self._said.get(one.entry, one)
                label = before.label if one.label is None else one.label
                verdict = one.verdict or before.verdict
                self._said[one.entry] = replace(one, label=label, verdict=verdict)

    def trusts(self, entry: Entry) -> bool:
        """Whether an entry is our own, or of an import that somebody trusts.

        What a client has sent and somebody calls benign is no adversarial example.
        """
        said = self._said.get(entry.digest)
        if entry.kind == "adversarial" and entry.lineage and said and said.verdict == "benign":
            return False
        imported = entry.origin.imported
        return not imported or (imported in self.imports and self.imports[imported].trusted is True)

    def of(self, entry: Entry) -> Entry:
        """An entry with what was said of it; the label of an adversarial one is its original's."""
        said = self._said.get(entry.digest) if entry.kind == "flagged" else None
        if said is None:
            return entry
        label = entry.label if said.label is None else said.label
        return replace(entry, label=label, verdict=said.verdict)


def read_remarks(folder: Path, count: int) -> list[Remark]:
    """The remarks of a version in its folder; raises CorpusError where there are others."""
    path = folder / REMARKS
    if not count:
        return []
    try:
        with path.open(encoding="utf-8") as lines:
            found = [known(Remark, json.loads(line)) for line in lines]
        if not all(isinstance(text, str) for one in found for text in (one.entry, one.imported)):
            raise TypeError("entry or imported is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from None
    if len(found) != count:
        raise CorpusError(f"{path} has {len(found)} remarks of {count}; restore the corpus")
    return found


def remarks_fault(folder: Path, sha256: str) -> str:
    """What is wrong with a version's remarks, or nothing; sha256: empty where there are none."""
    path = folder / REMARKS
    if not sha256 and not path.exists():
        return ""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return str(damaged(path, error))
    same = found == sha256
    return "" if same else f"{path} was changed after it was written; restore it from a backup"
