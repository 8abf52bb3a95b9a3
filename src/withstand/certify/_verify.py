"""Certificates made once more, and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import ConfigError, listed
from ..data import Dataset
from ..evidence import content_digest
from ..models import Model, describe
from ..threat import Threat
from ._certificate import Certificate, Certificates
from ._certify import METHODS, Bounds, Progress, certify
from ._classifier import SmoothedClassifier
from ._rows import Rows, Trees
from ._smoothing import Smoothing

# What the attacker sees, and how often they ask, changes no proof.
_ABOUT = ("goal", "norm", "eps", "region")


def verify(
    told: Certificates,
    model: Model,
    data: Dataset,
    threat: Threat,
    *,
    sample: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Every difference between certificates and a replay on this model, data and threat.

    A line for each; none where all are sound. sample: so many of them, drawn by the seed, instead
    of all. On the machine, build and thread count that made them a replay is the same bit by bit.
    """
    base = model.model if isinstance(model, SmoothedClassifier) else model
    other = _other(told, base, data, threat)
    if other:
        return tuple(other)
    inputs = [content_digest(row) for row in data.x]
    first = {digest: i for i, digest in reversed(list(enumerate(inputs)))}
    chosen = np.arange(len(told.certificates))
    if sample is not None and sample < len(chosen):
        if sample < 1:
            raise ConfigError(f"sample is {sample}; give at least 1")
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, sample, replace=False))
    rows = np.asarray(
        [_place(i, told.certificates[i].input, inputs, first) for i in chosen.tolist()]
    )
    replayed = certify(
        base, data.take(rows), threat.take(rows), _method(told), checkpoint=checkpoint,
        progress=progress,
    )  # fmt: skip
    forest = told.engine.get("forest")
    if forest != replayed.engine.get("forest"):
        now = str(replayed.engine.get("forest"))
        return (f"another model: the certificates are of trees {str(forest)[:12]}, not {now[:12]}",)
    compare = _differences if told.method != "trees" else _contradictions
    lines = [
        line
        for i, new in zip(chosen.tolist(), replayed.certificates, strict=True)
        for line in compare(i, told.certificates[i], new)
    ]
    if told.method == "trees":
        asked = Rows(base, data.x[rows], data.y[rows], threat.take(rows))
        lines += [
            f"sample {i}: the witness does not fool the model, or cannot be made"
            for place, i in enumerate(chosen.tolist())
            if (found := told.certificates[i].witness) is not None
            and not asked.fools(place, np.array(found))
        ]
    return tuple(lines)


def _place(i: int, digest: str, inputs: Sequence[str], first: Mapping[str, int]) -> int:
    """The row of a certificate's input: its own, since equal inputs may have other labels."""
    return i if i < len(inputs) and inputs[i] == digest else first[digest]


def _other(told: Certificates, model: Model, data: Dataset, threat: Threat) -> list[str]:
    """What the certificates are about, and is not the same here."""
    lines = []
    here = _plainly(describe(model))
    if told.model != here:
        then, now = (str(m.get("digest") or m.get("kind"))[:12] for m in (told.model, here))
        lines.append(f"another model: the certificates are of {then}, this is {now}")
    known = {content_digest(row) for row in data.x}
    absent = [i for i, c in enumerate(told.certificates) if c.input not in known]
    if absent:
        lines.append(
            f"other inputs: {len(absent):,} of the {len(told.certificates):,} certified ones are "
            f"not in the data, the first is sample {absent[0]}"
        )
    now = _plainly(threat.describe())
    changed = [key for key in _ABOUT if told.threat.get(key) != now[key]]
    if changed and not absent:
        parts = (f"{key} is {told.threat.get(key)} there and {now[key]} here" for key in changed)
        lines.append(f"another threat: {listed(parts, 3)}")
    return lines


def _method(told: Certificates) -> Smoothing | Bounds | Trees:
    (kind,) = (kind for kind, name in METHODS.items() if name == told.method)
    names = {field.name for field in fields(kind)}
    if told.settings.keys() != names:
        raise ConfigError(
            f"the certificates' settings are {listed(told.settings)}; this version of withstand "
            f"knows {listed(names)}: certify again"
        )
    made: Smoothing | Bounds | Trees = kind(**told.settings)
    return made


def _differences(place: int, then: Certificate, now: Certificate) -> list[str]:
    lines = []
    for field in fields(Certificate):
        old, new = getattr(then, field.name), getattr(now, field.name)
        # Bounds are sums whose order a batch may change.
        near = field.name == "margin" and old is not None and new is not None
        if old != new and not (near and isclose(old, new, rel_tol=1e-4, abs_tol=1e-6)):
            lines.append(f"sample {place}: {field.name} is {old} in the file, {new} in the replay")
    return lines


def _contradictions(place: int, then: Certificate, now: Certificate) -> list[str]:
    """Of rows that are decided for some time: which way, and whether at all, may differ."""
    decided = "abstained" not in (then.outcome, now.outcome)
    return [
        f"sample {place}: {name} is {getattr(then, name)} in the file, {getattr(now, name)} in the "
        "replay"
        for name in ("label", "answer", *(("outcome", "radius") if decided else ()))
        if getattr(then, name) != getattr(now, name)
    ]


def _plainly(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
