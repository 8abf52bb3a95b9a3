"""The corpus: inputs that fooled a model or looked suspicious, kept for tests and retraining.

A folder with one numbered folder for each version. A version is written under another name, with
all its bytes on the disk, and then renamed to its number: the rename fails where another writer
was first, so that nothing is half there and nothing is lost, without any lock.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from .._errors import CorpusError, DataError
from ._entry import Array, Entry, Kind, canonical, content_digest
from ._remark import REMARKS, Remark, View, read_remarks, remarks_fault
from ._shard import damaged, fault, grouped, sync_folder, write_file, write_shard
from ._version import MANIFEST, Version, manifest, parse

_ABANDONED = 24 * 3600.0


class Corpus:
    """A corpus in a folder, which need not be there before the first entry is added."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._known: set[bytes] = set()
        self._known_to: Version | None = None

    def versions(self) -> tuple[Version, ...]:
        """All versions, the oldest first; raises CorpusError where one is missing or changed."""
        try:
            names = [p.name for p in self.path.iterdir() if p.name.isdecimal()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise CorpusError(
                f"corpus {self.path}: {error.strerror}; give the folder of a corpus, or a new one"
            ) from None
        found: list[Version] = []
        for number in range(1, 1 + max((int(name) for name in names if len(name) > 5), default=0)):
            found.append(parse(self._folder(number) / MANIFEST, found[-1] if found else None))
        return tuple(found)

    @property
    def head(self) -> Version | None:
        """The newest version; None before the first."""
        versions = self.versions()
        return versions[-1] if versions else None

    def entries(
        self,
        version: int | None = None,
        *,
        originals: Collection[str] | None = None,
        kind: Kind | None = None,
        distrusted: bool = False,
    ) -> Iterator[Entry]:
        """All entries up to a version, or those of some originals or of one kind, oldest first.

        They come with the remarks up to that version, and without those of imports that nobody
        trusts and clients' inputs called benign, unless `distrusted` asks for these. They are read
        one by one; raises CorpusError for a version that is not there.
        """
        versions = self.versions()
        if version is not None and not 0 <= version <= len(versions):
            raise CorpusError(
                f"corpus {self.path} has no version {version}; its newest is {len(versions)}"
            )
        view = self.view(version)
        for one in versions[:version]:
            for entry in one.records(self._folder(one.number)):
                wanted = kind in (None, entry.kind) and (distrusted or view.trusts(entry))
                if wanted and (originals is None or entry.original in originals):
                    yield view.of(entry)

    def view(self, version: int | None = None) -> View:
        """What was said of entries and imports up to a version."""
        return View(
            remark
            for one in self.versions()[:version]
            for remark in read_remarks(self._folder(one.number), one.remarks)
        )

    def read(self, entries: Sequence[Entry]) -> list[Array]:
        """The values of some entries, bit for bit; raises CorpusError where they were changed."""
        found: list[Array | None] = [None] * len(entries)
        places: dict[Path, list[int]] = {}
        for place, entry in enumerate(entries):
            path = self._folder(entry.version) / f"{entry.shard}.npy"
            places.setdefault(path, []).append(place)
        for path, among in places.items():
            try:
                stored = np.load(path, mmap_mode="r")
                for place in among:
                    # A copy, since the mapping ends with this shard.
                    found[place] = np.array(stored[entries[place].row])
            except (OSError, ValueError, IndexError) as error:
                raise damaged(path, error) from None
        for entry, x in zip(entries, found, strict=True):
            if x is None or content_digest(x) != entry.digest:
                raise CorpusError(
                    f"entry {entry.row} of {self._folder(entry.version) / entry.shard}.npy is "
                    "damaged; restore the corpus from a backup"
                )
        return [x for x in found if x is not None]

    def add(
        self, x: Sequence[Array], entries: Sequence[Entry], remarks: Sequence[Remark] = ()
    ) -> Version | None:
        """Add inputs x, one for each entry, and remarks as a new version; return the newest one.

        What is there already is not added again, and where nothing is new there is no new version.
        Raises DataError, and CorpusError where it cannot be written.
        """
        if len(x) != len(entries):
            raise DataError(
                f"{len(x)} inputs come with {len(entries)} entries; give one entry for each"
            )
        given: dict[bytes, tuple[Array, Entry]] = {}
        for values, entry in zip(x, entries, strict=True):
            stored = canonical(values)
            entry = replace(entry, digest=content_digest(stored))
            entry.line()
            given.setdefault(entry.identity, (stored, entry))
        while True:
            head = self._learn()
            given = {name: one for name, one in given.items() if name not in self._known}
            if not given and not remarks:
                return head
            if self._write(head, list(given.values()), remarks):
                return self.head

    def verify(self) -> tuple[str, ...]:
        """What is wrong with it, a line for each fault; every byte is read."""
        try:
            versions = self.versions()
        except CorpusError as error:
            return (str(error),)
        faults: list[str] = []
        seen: set[bytes] = set()
        total = 0
        for version in versions:
            folder = self._folder(version.number)
            total += sum(shard.entries for shard in version.shards)
            if version.total != total:
                faults.append(f"{folder / MANIFEST} counts {version.total} entries of {total}")
            broken = [told for shard in version.shards if (told := fault(folder, shard))]
            broken += [told] if (told := remarks_fault(folder, version.remarks_sha256)) else []
            faults += broken
            if broken:
                continue
            try:
                read_remarks(folder, version.remarks)
                for shard, among in groupby(version.records(folder), lambda entry: entry.shard):
                    entries = list(among)
                    twice = [entry.row for entry in entries if entry.identity in seen]
                    faults += [f"entry {row} of {folder / shard} is there twice" for row in twice]
                    seen |= {entry.identity for entry in entries}
                    self.read(entries)
            except CorpusError as error:
                faults.append(str(error))
        return tuple(faults)

    def _learn(self) -> Version | None:
        """Read what the newest versions hold, since an earlier one never changes."""
        versions, to = self.versions(), self._known_to
        if to is not None and to not in versions:
            self._known, to = set(), None
        for version in versions[to.number if to else 0 :]:
            self._known |= {
                entry.identity for entry in version.records(self._folder(version.number))
            }
            self._known_to = version
        return versions[-1] if versions else None

    def _folder(self, number: int) -> Path:
        return self.path / f"{number:06d}"

    def _write(
        self,
        parent: Version | None,
        given: list[tuple[Array, Entry]],
        remarks: Sequence[Remark],
    ) -> bool:
        """Write the version behind `parent`; False where another writer was first."""
        target = self._folder(1 + (parent.number if parent else 0))
        part = self.path / f".new-{uuid.uuid4().hex}"
        try:
            part.mkdir(parents=True)
            shards = tuple(write_shard(part, group) for group in grouped(given))
            lines = "".join(remark.line() for remark in remarks).encode()
            if lines:
                write_file(part / REMARKS, lines)
            write_file(part / MANIFEST, manifest(parent, shards, lines))
            sync_folder(part)
            try:
                part.rename(target)
            except OSError:
                if target.exists():
                    return False
                raise
            sync_folder(self.path)
        except OSError as error:
            raise CorpusError(
                f"corpus {self.path} cannot be written: {error.strerror}; free space there or give "
                "another folder"
            ) from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Remove what writers that were killed have left behind."""
        for part in self.path.glob(".new-*"):
            try:
                if time.time() - part.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(part, ignore_errors=True)
            except OSError:
                continue
