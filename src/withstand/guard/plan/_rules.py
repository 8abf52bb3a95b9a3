"""The rules of a model's line, from its declared inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ...config import LineConfig, TensorConfig
from ...data import load_table
from .._lines import Rule
from ..rules import Images, Input, Range, Rows, Schema, Text
from ..upstream import Declared


def rules_of(line: LineConfig, declared: tuple[Declared, ...], folder: Path) -> Iterator[Rule]:
    """What a request must be: as the file says, else as the server declared, else anything.

    folder: where relative paths of tables count from.
    """
    known = line.inputs
    if known is None:
        known = [
            TensorConfig.model_construct(
                name=one.name, datatype=one.datatype, shape=list(one.shape)
            )
            for one in declared
        ]
    if not known:
        return
    inputs = tuple(
        Input(
            name=one.name, datatype=one.datatype, shape=tuple(one.shape), parameters=one.parameters
        )
        for one in known
    )
    # The only input of numbers may come as rows, which have no name that is the model's.
    rows = len(known) == 1 and known[0].datatype != "BYTES"
    schema = Schema(inputs=inputs, batch=line.batch, rows=rows, parameters=line.parameters)
    yield Rule(name="schema", apply=schema)
    for one in known:
        if one.holds == "image":
            images = Images(
                name=one.name,
                formats=tuple(one.formats),
                pixels=one.pixels,
                encoded=one.base64,
            )
            yield Rule(name=f"image {one.name}", apply=images, beside=True)
        elif one.holds == "text":
            text = Text(name=one.name, characters=one.characters)
            yield Rule(name=f"text {one.name}", apply=text)
    ways: tuple[Literal["refuse", "clip"], ...] = ("refuse", "clip")
    for outside in ways:
        limits = {
            "" if rows else one.name: (one.range[0], one.range[1])
            for one in known
            if one.range is not None and one.outside == outside
        }
        if limits:
            yield Rule(name="range", apply=Range(limits=limits, outside=outside))
    tables = {
        "" if rows else one.name: load_table(folder / one.table).capability
        for one in known
        if one.table is not None
    }
    if tables:
        yield Rule(name="table", apply=Rows(capabilities=tables))
