"""The columns of a table, one at a time, so that a million rows take little memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ._prepare import existing, import_extra, need

Array = NDArray[Any]
# What is written for a missing number, beside what pyarrow takes for one.
_MISSING = ("None", "<NA>")
Kind = Literal["csv", "parquet"]


class Columns(Mapping[str, Array]):
    """The columns (N,) of a parquet or csv file by name, each made when it is asked for.

    Texts are objects, dates datetime64, and missing numbers NaN. texts, numbers, integers: columns
    of a csv file that are to be read as such; the others are what they look like. kind: by the
    file's ending if not given. A stored index is no column, but can be asked for. Raises DataError
    for a file that cannot be read or has no rows, and where a column's name is there twice.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        texts: Iterable[str] = (),
        numbers: Iterable[str] = (),
        integers: Iterable[str] = (),
        limit: int | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.path, self._limit = existing(path), limit
        self._kind = kind or kind_of(self.path)
        arrow = import_extra("pyarrow")
        if self._kind == "parquet":
            self._source: _Parquet | _Csv = _Parquet(self.path)
        else:
            types = dict.fromkeys(numbers, arrow.float64()) | dict.fromkeys(integers, arrow.int64())
            self._source = _Csv(self.path, texts, types)
        names = self._source.names
        for place, name in enumerate(names):
            if name in names[:place]:
                raise DataError(
                    f"{self.path.name} has the column {name!r} twice; give one another name"
                )
        if not self._source.rows:
            raise DataError(f"{self.path.name} has no rows; give at least one below the header")

    @classmethod
    def typed(
        cls, path: str | Path, *, texts: Iterable[str] = (), kind: Kind | None = None
    ) -> Columns:
        """Of a csv file, each column as all of its values are: with one 007 all are texts."""
        path = existing(path)
        if (kind or kind_of(path)) == "parquet":
            return cls(path, kind=kind)
        kinds = kinds_of(path) | dict.fromkeys(texts, "text")
        return cls(
            path,
            texts=[name for name, one in kinds.items() if one in ("text", "date")],
            numbers=[name for name, one in kinds.items() if one == "number"],
            integers=[name for name, one in kinds.items() if one == "integer"],
            kind=kind,
        )

    def head(self, limit: int | None) -> Columns:
        """The first rows only, or all of them."""
        found = copy(self)
        found._limit = limit
        return found

    def need(self, *names: str) -> None:
        """Raise DataError for a column that is not there."""
        for name in names:
            need(name, self._source.known, what="column", where=self.path)

    @property
    def rows(self) -> int:
        """How many rows there are, N."""
        return self._source.rows if self._limit is None else min(self._limit, self._source.rows)

    def __getitem__(self, name: str) -> Array:
        self.need(name)
        with _readable(self.path, self._kind):
            return _numpy(self._source.column(name, self._limit), name)[: self._limit]

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.names)

    def __len__(self) -> int:
        return len(self._source.names)

    def __contains__(self, name: object) -> bool:
        return name in self._source.names


def kind_of(path: Path) -> Kind:
    """What a file holds by its ending."""
    return "parquet" if path.suffix.lower() == ".parquet" else "csv"


class _Parquet:
    def __init__(self, path: Path) -> None:
        parquet = import_extra("pyarrow.parquet")
        with _readable(path, "parquet"):
            schema = parquet.read_schema(path)
            stored = (schema.pandas_metadata or {}).get("index_columns", [])
            index = {name for name in stored if isinstance(name, str)}
            self.known: list[str] = list(schema.names)
            self.names = [name for name in schema.names if name not in index]
            texts = [one.name for one in schema if str(one.type) in ("string", "large_string")]
            self._file = parquet.ParquetFile(path, read_dictionary=texts)
            self.rows: int = self._file.metadata.num_rows

    def column(self, name: str, limit: int | None) -> Any:
        groups, seen = [], 0
        for group in range(self._file.metadata.num_row_groups):
            if limit is None or seen < limit:
                groups.append(group)
                seen += self._file.metadata.row_group(group).num_rows
        return self._file.read_row_groups(groups, columns=[name], use_threads=False).column(name)


class _Csv:
    def __init__(self, path: Path, texts: Iterable[str], numbers: Mapping[str, Any]) -> None:
        arrow = import_extra("pyarrow")
        coded = arrow.dictionary(arrow.int32(), arrow.string())
        types = dict.fromkeys(texts, coded)
        try:
            self._table = _read(path, {**numbers, **types})
        except arrow.ArrowInvalid:
            # A text among numbers: who wants numbers can then say in which row it is.
            with _readable(path, "csv"):
                self._table = _read(path, {**dict.fromkeys(numbers, coded), **types})
        except (OSError, ValueError):
            with _readable(path, "csv"):
                raise
        self.names = self.known = [str(name) for name in self._table.column_names]
        self.rows: int = self._table.num_rows

    def column(self, name: str, limit: int | None) -> Any:
        return self._table.column(name)


def _read(path: Path, types: Mapping[str, Any]) -> Any:
    csv = import_extra("pyarrow.csv")
    # A text is what it is: Namibia's NA is no missing value.
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    convert.null_values = [*convert.null_values, *_MISSING]
    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=convert,
    )


def kinds_of(path: Path) -> dict[str, str]:
    """What each column of a csv file holds, by all its values.

    integer, number, boolean, date or text. Numbers with leading zeros, such as 007, are texts.
    """
    csv = import_extra("pyarrow.csv")
    compute = import_extra("pyarrow.compute")
    none = "|".join(map(re.escape, (*csv.ConvertOptions().null_values, *_MISSING)))
    forms = {
        "integer": rf"^([ \t]*-?(0|[1-9]\d{{0,17}}|[1-8]\d{{18}})[ \t]*|{none})$",
        "number": r"^([ \t]*-?(0|[1-9]\d*|0?\.\d+|(0|[1-9]\d*)\.\d*)([eE][+-]?\d+)?[ \t]*"
        rf"|-?(?i:inf|infinity|nan)|{none})$",
        "boolean": r"^(true|True|TRUE|false|False|FALSE|)$",
        "date": r"^(\d{4}-\d\d-\d\d([T ]00:00(:00)?)?|)$",
    }
    left: dict[str, list[str]] = {}
    with _readable(path, "csv"):
        names = _read_header(path)
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, import_extra("pyarrow").string()),
                strings_can_be_null=False,
            ),
        )
        left = {name: list(forms) for name in names}
        for batch in reader:
            for name, kinds in left.items():
                if kinds:
                    seen = batch.column(names.index(name)).unique()
                    left[name] = [
                        kind
                        for kind in kinds
                        if compute.all(compute.match_substring_regex(seen, forms[kind])).as_py()
                    ]
    return {name: (kinds or ["text"])[0] for name, kinds in left.items()}


def _read_header(path: Path) -> list[str]:
    csv = import_extra("pyarrow.csv")
    parse = csv.ParseOptions(newlines_in_values=True)
    return [str(name) for name in csv.open_csv(path, parse_options=parse).schema.names]


@contextmanager
def _readable(path: Path, kind: Kind) -> Iterator[None]:
    """What pyarrow says of a file becomes a DataError of one line."""
    fix = "write it in UTF-8 with a header line and commas" if kind == "csv" else "write it again"
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
        said = re.sub(r"Row #(\d+): ", lambda found: f"line {found[1]}: ", one_line(error, 200))
        counts = re.search(r"Expected (\d+) columns, got (\d+)", said)
        if counts and int(counts[1]) < int(counts[2]):
            fix = "it has rows with more values than its header line: write it again"
        elif counts:
            fix = "fill rows up that have fewer values than its header line, and write it in UTF-8"
        raise DataError(f"{path} cannot be read as {kind} ({one_line(said, 100)}); {fix}") from None


def _numpy(column: Any, name: str) -> Array:
    arrow = import_extra("pyarrow")
    kind, is_a = column.type, arrow.types
    if is_a.is_string(kind) or is_a.is_large_string(kind):
        column = column.dictionary_encode()
    if is_a.is_dictionary(column.type):
        return _coded(column)
    if is_a.is_boolean(kind):
        return np.array(column.to_pylist(), object if column.null_count else bool)
    if is_a.is_integer(kind) or is_a.is_floating(kind):
        return np.asarray(column.to_numpy())
    if is_a.is_decimal(kind):
        return np.asarray(column.cast(arrow.float64()).to_numpy())
    if is_a.is_null(kind):
        return np.full(len(column), np.nan)
    if is_a.is_date(kind):
        return np.asarray(column.cast(arrow.date32()).to_numpy(), "datetime64[D]")
    if is_a.is_timestamp(kind):
        return np.asarray(column.cast(arrow.timestamp("us"), safe=False).to_numpy())
    raise DataError(
        f"column {name!r} holds {one_line(kind, 40)}, which is no number, text or date; take it out"
    )


def _coded(column: Any) -> Array:
    """Texts (N,), each of them in memory once."""
    column = column.unify_dictionaries().combine_chunks()
    chunks = getattr(column, "chunks", [column])
    found = []
    for chunk in chunks:
        names = np.array([*chunk.dictionary.to_pylist(), None], object)
        codes = chunk.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
        found.append(names[codes])
    return np.concatenate(found) if found else np.empty(0, object)
