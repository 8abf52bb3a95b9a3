"""The files of an exchange: safetensors with JSON lines, or one table in Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._errors import CorpusError
from ._entry import Array
from ._shard import write_file

Form = Literal["safetensors", "parquet"]
Put = Callable[[Array, list[dict[str, Any]]], None]
_RECORDS, _TABLE = "entries.jsonl", "entries.parquet"


@contextmanager
def write_packed(folder: Path, form: Form) -> Iterator[Put]:
    """Takes inputs of one type and shape (M, ...) with their records, as often as is wanted."""
    with (_tensors if form == "safetensors" else _table)(folder) as put:
        yield put


def read_packed(
    folder: Path, form: Form, files: dict[str, str]
) -> Iterator[tuple[Array, dict[str, Any]]]:
    """Inputs with their records, from no other files than those; raises CorpusError."""
    try:
        yield from (_from_tensors if form == "safetensors" else _from_table)(folder, files)
    except CorpusError:
        raise
    except Exception as error:
        # Whoever signed it may still have made it badly, and readers raise what they like.
        raise CorpusError(
            f"{folder} cannot be read ({type(error).__name__}); ask its sender for it"
        ) from None


@contextmanager
def _tensors(folder: Path) -> Iterator[Put]:
    from safetensors.numpy import save

    number = 0
    with (folder / _RECORDS).open("w") as records:

        def put(x: Array, told: list[dict[str, Any]]) -> None:
            nonlocal number
            name = f"{number:05d}.safetensors"
            write_file(folder / name, save({"x": np.ascontiguousarray(x)}))
            for row, one in enumerate(told):
                records.write(json.dumps({**one, "file": name, "row": row}) + "\n")
            number += 1

        yield put


def _from_tensors(folder: Path, files: dict[str, str]) -> Iterator[tuple[Array, dict[str, Any]]]:
    from safetensors.numpy import load_file

    name, x = "", np.empty(0)
    with _named(folder, _RECORDS, files).open() as lines:
        for line in lines:
            told = json.loads(line)
            if told["file"] != name:
                name = told["file"]
                x = load_file(_named(folder, name, files))["x"]
            yield x[told["row"]], told


@contextmanager
def _table(folder: Path) -> Iterator[Put]:
    arrow, parquet = _arrow()
    fields = [("values", arrow.binary()), ("dtype", arrow.string())]
    fields += [("shape", arrow.list_(arrow.int64())), ("entry", arrow.string())]
    schema = arrow.schema(fields)
    with parquet.ParquetWriter(folder / _TABLE, schema) as writer:

        def put(x: Array, told: list[dict[str, Any]]) -> None:
            rows = {
                "values": [one.tobytes() for one in x],
                "dtype": [x.dtype.str] * len(x),
                "shape": [list(x.shape[1:])] * len(x),
                "entry": [json.dumps(one) for one in told],
            }
            writer.write_table(arrow.table(rows, schema))

        yield put


def _from_table(folder: Path, files: dict[str, str]) -> Iterator[tuple[Array, dict[str, Any]]]:
    _, parquet = _arrow()
    with parquet.ParquetFile(_named(folder, _TABLE, files)) as table:
        for batch in table.iter_batches(1024):
            for row in batch.to_pylist():
                dtype = np.dtype(row["dtype"])
                if dtype.kind not in "biuf":
                    raise ValueError(row["dtype"])
                x = np.frombuffer(row["values"], dtype).reshape(row["shape"])
                yield x, json.loads(row["entry"])


def _named(folder: Path, name: str, files: dict[str, str]) -> Path:
    if name not in files:
        raise CorpusError(f"{folder} has no signed file {name[:80]!r}; ask its sender for it")
    return folder / name


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise CorpusError("Parquet needs pyarrow; pip install 'withstand[tabular]'") from None
