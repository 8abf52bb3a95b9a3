"""Adversarial examples as pictures or as tables of what changed most."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._report import Report

Array = NDArray[Any]
_SHOWN = 12
_FEATURES = 6
# Pictures are shown small; pixels beyond this would only make the page heavy.
_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class Example:
    """One fooled sample: pictures as data URIs, or the features that changed most."""

    index: int
    label: str
    clean: str
    answer: str
    attack: str
    distance: str
    pictures: tuple[tuple[str, str], ...] = ()
    changes: tuple[tuple[str, str, str], ...] = ()


def examples(report: Report) -> list[Example]:
    """Fooled samples spread over the classes, the smallest change of each first."""
    samples = report.samples
    fooled = [i for i, status in enumerate(samples.status) if status == "fooled"]
    fooled.sort(key=lambda i: float(samples.distance[i]))
    by_class: dict[str, list[int]] = {}
    for i in fooled:
        by_class.setdefault(str(samples.label[i]), []).append(i)
    rounds = [[group[k] for group in by_class.values() if k < len(group)] for k in range(_SHOWN)]
    chosen = [i for turn in rounds for i in turn][:_SHOWN]
    return [_example(report, i) for i in chosen]


def _example(report: Report, i: int) -> Example:
    samples, x, x_adv = report.samples, report.x[i], report.x_adv[i]
    return Example(
        index=i,
        label=answer(report, samples.label[i]),
        clean=answer(report, samples.clean_answer[i]),
        answer=answer(report, samples.adversarial_answer[i]),
        attack=samples.attack[i],
        distance=f"{float(samples.distance[i]):.4g}",
        pictures=_pictures(report, x, x_adv),
        changes=_changes(report, x.ravel(), x_adv.ravel()),
    )


def _pictures(report: Report, x: Array, x_adv: Array) -> tuple[tuple[str, str], ...]:
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        return ()
    low, high = report.domain
    gap = x_adv.astype(np.float64) - x
    widest = float(np.abs(gap).max()) or 1.0
    return (
        ("original", _png((x - low) / (high - low))),
        ("adversarial", _png((x_adv - low) / (high - low))),
        (f"{_factor(0.5 * (high - low) / widest)}x change", _png(0.5 + 0.5 * gap / widest)),
    )


def _factor(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _changes(report: Report, before: Array, after: Array) -> tuple[tuple[str, str, str], ...]:
    names = report.feature_names
    moved = np.argsort(-np.abs(after - before), kind="stable")[:_FEATURES]
    return tuple(
        (names[j] if names else f"feature {j}", f"{before[j]:.4g}", f"{after[j]:.4g}")
        for j in moved
        if before[j] != after[j]
    )


def answer(report: Report, value: Any) -> str:
    """A label or an answer in words."""
    if np.ndim(value):
        return ", ".join(str(int(v)) for v in np.flatnonzero(value)) or "none"
    if report.class_names is not None and float(value).is_integer():
        index = int(value)
        if 0 <= index < len(report.class_names):
            return report.class_names[index]
    return f"{float(value):.6g}"


def _png(picture: Array) -> str:
    levels = np.clip(np.round(255 * picture), 0, 255).astype(np.uint8)
    image = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, 2))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
