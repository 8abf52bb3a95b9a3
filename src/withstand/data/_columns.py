"""The columns of a table, one at a time, so that a million rows take little memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import DataError, one_line
from ._prepare import existing, need
from ._table import import_extra

Array = NDArray[Any]


class Columns(Mapping[str, Array]):
    """The columns (N,) of a .parquet or .csv file by name, each made when it is asked for.

    Texts are objects, dates datetime64, and missing numbers NaN. texts, numbers: columns of a csv
    file that are to be read as such; the others are what they look like. Raises DataError for a
    file that cannot be read or has no rows, and where a column's name is there twice.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        texts: Iterable[str] = (),
        numbers: Iterable[str] = (),
        limit: int | None = None,
    ) -> None:
        self.path, self._limit = existing(path), limit
        import_extra("pyarrow")
        parquet = self.path.suffix.lower() == ".parquet"
        self._source = _Parquet(self.path) if parquet else _Csv(self.path, texts, numbers)
        names = self._source.names
        for place, name in enumerate(names):
            if name in names[:place]:
                raise DataError(
                    f"{self.path.name} has the column {name!r} twice; give one another name"
                )
        if not self._source.rows:
            raise DataError(f"{self.path.name} has no rows; give at least one below the header")

    def head(self, limit: int | None) -> Columns:
        """The first rows only, or all of them."""
        found = copy(self)
        found._limit = limit
        return found

    @property
    def rows(self) -> int:
        """How many rows there are, N."""
        return self._source.rows if self._limit is None else min(self._limit, self._source.rows)

    def __getitem__(self, name: str) -> Array:
        need(name, self._source.names, what="column", where=self.path)
        with _readable(self.path):
            return _numpy(self._source.column(name, self._limit), name)[: self._limit]

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.names)

    def __len__(self) -> int:
        return len(self._source.names)

    def __contains__(self, name: object) -> bool:
        return name in self._source.names


class _Parquet:
    def __init__(self, path: Path) -> None:
        parquet = import_extra("pyarrow.parquet")
        with _readable(path):
            schema = parquet.read_schema(path)
            stored = (schema.pandas_metadata or {}).get("index_columns", [])
            index = {name for name in stored if isinstance(name, str)}
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
    def __init__(self, path: Path, texts: Iterable[str], numbers: Iterable[str]) -> None:
        arrow = import_extra("pyarrow")
        coded = arrow.dictionary(arrow.int32(), arrow.string())
        types = dict.fromkeys(texts, coded)
        try:
            wanted = dict.fromkeys(numbers, arrow.float64())
            self._table = _read(path, {**wanted, **types})
        except arrow.ArrowInvalid:
            # A text among numbers: who wants numbers can then say in which row it is.
            with _readable(path):
                self._table = _read(path, {**dict.fromkeys(numbers, coded), **types})
        except (OSError, ValueError):
            with _readable(path):
                raise
        self.names = [str(name) for name in self._table.column_names]
        self.rows: int = self._table.num_rows

    def column(self, name: str, limit: int | None) -> Any:
        return self._table.column(name)


def _read(path: Path, types: Mapping[str, Any]) -> Any:
    csv = import_extra("pyarrow.csv")
    return csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        # A text is what it is: Namibia's NA is no missing value.
        convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


def text_columns(path: Path) -> dict[str, str]:
    """What each column of a csv file holds: number, date or text, by all its values.

    Numbers with leading zeros, such as 007, are texts.
    """
    csv = import_extra("pyarrow.csv")
    compute = import_extra("pyarrow.compute")
    forms = {
        "number": r"^\s*-?(0|[1-9]\d*|0?\.\d+|(0|[1-9]\d*)\.\d*)([eE][+-]?\d+)?\s*$"
        r"|^-?(inf|infinity|nan)$|^$",
        "date": r"^\d{4}-\d\d-\d\d([T ]00:00(:00)?)?$|^$",
    }
    left: dict[str, list[str]] = {}
    with _readable(path):
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
                        if compute.all(
                            compute.match_substring_regex(seen, forms[kind], ignore_case=True)
                        ).as_py()
                    ]
    return {name: (kinds or ["text"])[0] for name, kinds in left.items()}


def _read_header(path: Path) -> list[str]:
    csv = import_extra("pyarrow.csv")
    parse = csv.ParseOptions(newlines_in_values=True)
    return [str(name) for name in csv.open_csv(path, parse_options=parse).schema.names]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What pyarrow says of a file becomes a DataError of one line."""
    parquet = path.suffix.lower() == ".parquet"
    kind = "parquet" if parquet else "csv"
    fix = "write it again" if parquet else "write it in UTF-8 with a header line and commas"
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
        said = re.sub(r"Row #(\d+): ", lambda found: f"line {found[1]}: ", one_line(error, 200))
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
