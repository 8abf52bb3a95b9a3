"""One input: what it is, what it is like, and what was seen in it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import WithstandError
from ...evidence.log import Tensor
from ...respond import Incident
from .._charts import scores
from .._past import Near, nearest
from .._picture import difference, looks_like_picture, magnified, picture
from .._site import Site
from .._web import Ask, Content, MissingError, Page, Route, at
from ._rows import Row, attempt, decisions

_RECORDS, _EARLIER, _BENIGN, _COLUMNS, _TEXTS, _LETTERS = 200, 100, 400, 64, 32, 2000


def sample(site: Site, ask: Ask) -> Page:
    """An input beside what it is nearest to, with scores, signals and its way to the model."""
    rows = _records(site, ask)
    chosen = _chosen(rows, ask)
    place = _place(ask)
    tensors, why = _kept(site, rows, chosen)
    shown = _shown(site, chosen, tensors, place)
    benign, _ = attempt(lambda: decisions(site, _BENIGN, decision="pass"), [])
    told = chosen.record.content
    values = {
        "here": "clients",
        "row": chosen,
        "rows": rows[:20],
        "asked": len(rows),
        "capped": len(rows) == _RECORDS,
        "why": why,
        "review": site.reviews.of(chosen.fingerprint),
        "incidents": _incidents(site, chosen),
        "tensors": [(one.name, one.datatype, list(one.values.shape)) for one in tensors],
        "signals": [
            (one, _distribution(benign, chosen.model, one.sensor, one.threshold, one.score))
            for one in chosen.signals
        ],
        "scores": _scores(told.get("answered")),
        "trace": _trace(rows, chosen),
        "ms": told.get("ms") or [],
        "facts": {name: told.get(name) for name in ("mode", "policy", "version", "weights", "id")},
        "hash": chosen.record.hash,
        **shown,
    }
    return Page("sample.html.j2", f"Input {chosen.fingerprint[:10]}", values)


def image(site: Site, ask: Ask) -> Content:
    """An input, what it is compared with, or the difference between, as PNG."""
    rows = _records(site, ask)
    chosen, place = _chosen(rows, ask), _place(ask)
    tensors, why = _kept(site, rows, chosen)
    values = one_of(tensors, place)
    if values is None or not looks_like_picture(values):
        raise MissingError(why or "this input is no picture")
    which = ask.query.get("which", "input")
    if which == "input":
        return Content("image/png", picture(values))
    found = _against(site, chosen, values, place)
    number = place["n"]
    if number >= len(found):
        raise MissingError("there is nothing to compare this input with")
    other = found[number].values
    body = picture(other) if which == "other" else difference(values, other)[0]
    return Content("image/png", body)


def _incidents(site: Site, chosen: Row) -> list[Incident]:
    """Those that it is a part of, whose replay shows it to the models again."""
    campaigns = {one.id for one in site.alerts.campaigns() if chosen.key in one.keys}
    return [one for one in site.incidents.all() if one.campaign in campaigns]


def _records(site: Site, ask: Ask) -> list[Row]:
    fingerprint = ask.path["fingerprint"]
    rows = decisions(site, _RECORDS, fingerprint=fingerprint)
    if not rows:
        raise MissingError(f"no record tells of an input {fingerprint[:64]!r}")
    return rows


def _chosen(rows: list[Row], ask: Ask) -> Row:
    wanted = ask.query.get("seq", "")
    return next((one for one in rows if str(one.seq) == wanted), rows[0])


def _place(ask: Ask) -> dict[str, int]:
    """Which tensor and row of it, and which of those that it is compared with."""
    found = {}
    for name in ("tensor", "row", "n"):
        given = ask.query.get(name, "0")
        found[name] = int(given) if given.isascii() and given.isdecimal() and len(given) < 7 else 0
    return found


def _kept(site: Site, rows: list[Row], chosen: Row) -> tuple[tuple[Tensor, ...], str]:
    """The input of a record, or of another one with the same fingerprint."""
    if site.inputs is None:
        return (), "there is no evidence"
    first = ""
    for one in sorted(rows, key=lambda row: row is not chosen):
        kept = site.inputs.of(one.record)
        if kept.tensors:
            return kept.tensors, ""
        first = first or kept.why
    return (), first


def one_of(tensors: tuple[Tensor, ...], place: dict[str, int]) -> NDArray[Any] | None:
    """The values of one row."""
    if place["tensor"] >= len(tensors):
        return None
    values = tensors[place["tensor"]].values
    if values.ndim == 0 or place["row"] >= len(values):
        return None
    return np.asarray(values[place["row"]])


def _shown(
    site: Site, chosen: Row, tensors: tuple[Tensor, ...], place: dict[str, int]
) -> dict[str, Any]:
    """How an input is shown: as pictures, as a table or as text."""
    values = one_of(tensors, place)
    told: dict[str, Any] = {"kind": "none", "place": place, "count": 0, "near": [], "compared": ""}
    if values is None:
        return told
    tensor = tensors[place["tensor"]]
    told["count"] = len(tensor.values)
    if tensor.datatype == "BYTES":
        return {**told, "kind": "text", "texts": list(_texts(values))}
    found, compared = attempt(lambda: _against(site, chosen, values, place), [])
    told |= {"near": [(one, magnified(values, one.linf)) for one in found], "compared": compared}
    if looks_like_picture(values):
        address = at("samples", chosen.fingerprint, "picture.png")
        where = f"{address}?seq={chosen.seq}&tensor={place['tensor']}&row={place['row']}"
        return {**told, "kind": "picture", "source": where}
    flat = values.reshape(-1)
    names = tensor.columns if len(tensor.columns) == len(flat) else ()
    other = found[place["n"]].values.reshape(-1) if place["n"] < len(found) else None
    return {**told, "kind": "table", "cells": _cells(flat, other, names), "columns": len(flat)}


def _against(site: Site, chosen: Row, x: NDArray[Any], place: dict[str, int]) -> list[Near]:
    """What an input is compared with: the client's nearest earlier query, then the corpus."""
    if x.dtype.kind not in "biuf":
        return []
    earlier = nearest(x, _earlier(site, chosen, place), 1)
    try:
        known = site.corpora.nearest(x)
    except WithstandError:
        known = []
    return earlier + known


def _earlier(
    site: Site, chosen: Row, place: dict[str, int]
) -> Iterator[tuple[NDArray[Any], str, str]]:
    if site.inputs is None:
        return
    for one in decisions(site, _EARLIER, key=chosen.key, until=chosen.wall):
        if one.seq < chosen.seq and one.fingerprint != chosen.fingerprint:
            values = one_of(site.inputs.of(one.record).tensors, place)
            if values is not None and values.dtype.kind in "biuf":
                yield values, "the client's earlier query", f"record {one.seq}, answer {one.answer}"


def _cells(
    values: NDArray[Any], other: NDArray[Any] | None, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Features with their differences; those that differ most come first where there are many."""
    gap = values.astype(np.float64) - (0 if other is None else other.astype(np.float64))
    size = np.abs(gap) if other is not None else np.zeros(len(values))
    most = float(size.max(initial=0.0)) or 1.0
    order = np.argsort(-size, kind="stable")[:_COLUMNS]
    return [
        {
            "name": names[i] if names else f"feature {i}",
            "value": float(values[i]),
            "other": None if other is None else float(other[i]),
            "gap": float(gap[i]) if other is not None else 0.0,
            "share": float(size[i]) / most,
        }
        for i in (order if other is not None else range(min(len(values), _COLUMNS)))
    ]


def _texts(values: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """Pieces of text, and what in them is not plain ASCII."""
    for one in list(values.reshape(-1))[:_TEXTS]:
        text = bytes(one).decode("utf-8", "replace")
        odd = sorted({c for c in text if not c.isascii() or not c.isprintable()} - {"\n", "\t"})
        named = [f"U+{ord(c):04X} {unicodedata.name(c, 'without a name')}" for c in odd[:40]]
        yield {"text": text[:_LETTERS], "cut": len(text) > _LETTERS, "odd": named}


def _distribution(
    benign: list[Row], model: str, sensor: str, threshold: float, score: float
) -> Any:
    """The newest scores of inputs that passed, since the calibration's own are not kept."""
    known = [
        signal.score
        for one in benign
        if one.model == model
        for signal in one.signals
        if signal.sensor == sensor and not signal.failed
    ]
    return scores(known, threshold, score, sensor) if known and math.isfinite(threshold) else None


def _scores(told: Any) -> list[list[tuple[str, float]]]:
    """The highest classes of each row, with their scores."""
    found: list[list[tuple[str, float]]] = []
    for one in told if isinstance(told, list) else ():
        try:
            found.append([(str(name), float(value)) for name, value in one])
        except (TypeError, ValueError):
            continue
    return found[:8]


def _trace(rows: list[Row], chosen: Row) -> list[tuple[str, str, str]]:
    """The rules that an input went through, its digest after each, and whether it was so before."""
    mine = _steps(chosen)
    others = [_steps(one) for one in rows if one is not chosen and _steps(one)]
    found = []
    for number, (rule, digest) in enumerate(mine):
        same = [number < len(one) and one[number] == (rule, digest) for one in others]
        found.append((rule, digest, "" if not others else "same" if all(same) else "differs"))
    return found


def _steps(row: Row) -> list[tuple[str, str]]:
    told = row.record.content.get("trace")
    return [
        (str(one[0]), str(one[1]))
        for one in (told if isinstance(told, list) else ())
        if isinstance(one, list) and len(one) == 2
    ]


ROUTES = (
    Route(path="/samples/{fingerprint}", answer=sample),
    Route(path="/samples/{fingerprint}/picture.png", answer=image),
)
