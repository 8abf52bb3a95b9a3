"""Recorded inputs of an incident, shown once more to the models of today."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import ConfigError, OperationError, WithstandError
from ..config import load_config
from ..stats import Interval, clopper_pearson
from ._attribution import Attribution, attribute
from ._desk import Desk
from ._files import put
from ._incidents import Incident
from ._recorded import Array, Found, Parity, Recorded, recorded
from ._trail import trail

JSON, MARKDOWN = "replay.json", "replay.md"
_ROWS = 50
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One recorded input, what it was answered then, and what it is answered now.

    seq, row: of its record; key: the client. recorded: the class of then; now: the class that each
    model gives it. to_first: the distances (linf, l2) to the client's first recorded input.
    nearest: those to the nearest labelled sample; label, original and distance: the class of that
    sample, its digest and how far it is in the threat's norm, where that is within the threat's
    region and no sample of another class is. proven: whether the class of then is another, None
    where nobody can say. wrong: the models that get it wrong now, for the same reason.
    """

    seq: int
    row: int
    wall: float
    key: str
    fingerprint: str
    sensors: tuple[str, ...]
    recorded: int | None
    now: dict[str, int]
    changed: bool | None
    to_first: tuple[float, float] | None
    nearest: tuple[float, float] | None
    label: int | None
    original: str | None
    distance: float | None
    proven: bool | None
    wrong: tuple[str, ...]
    parity: Parity


@dataclass(frozen=True, kw_only=True)
class Replay:
    """All recorded inputs of an incident, and why others are missing.

    reference: what tells the true classes, or why there is nothing. attribution: how the attack
    works, by its sequence of inputs.
    """

    incident: int
    models: tuple[str, ...]
    reference: str
    inputs: tuple[Shown, ...]
    missing: dict[str, int]
    attribution: Attribution

    @property
    def fooled(self) -> Interval | None:
        """The share of inputs that the model got wrong, of those that can be judged."""
        judged = [one.proven for one in self.inputs if one.proven is not None]
        return clopper_pearson(sum(judged), len(judged)) if judged else None

    def fooled_now(self, model: str) -> Interval | None:
        """The same for a model of today."""
        judged = [one for one in self.inputs if one.label is not None]
        wrong = sum(model in one.wrong for one in judged)
        return clopper_pearson(wrong, len(judged)) if judged else None

    def to_json(self) -> str:
        """All of it."""
        told = asdict(self) | {
            "fooled": _plain(self.fooled),
            "fooled_now": {name: _plain(self.fooled_now(name)) for name in self.models},
        }
        return json.dumps(told, indent=2) + "\n"

    def to_markdown(self) -> str:
        """A table of the inputs, those that were proven wrong first."""
        models = "".join(f" {_cell(name)} |" for name in self.models)
        lines = [
            f"# Replay of incident {self.incident}",
            "",
            f"- inputs shown: {len(self.inputs)}; {_missing(self.missing)}",
            f"- true classes: {_cell(self.reference)}",
            f"- fooled then: {told_share(self.fooled)}",
            *(f"- fooled now, {_cell(name)}: {told_share(self.fooled_now(name))}"
              for name in self.models),
            f"- kind of attack: {self.attribution}",
            "",
            f"| record | sensors | then |{models} changed | to the first (linf, l2) | to the "
            "nearest sample (linf, l2) | its class | proven wrong | parity |",
            "|---" * (9 + len(self.models)) + "|",
        ]  # fmt: skip
        order = sorted(self.inputs, key=lambda one: (one.proven is not True, one.seq, one.row))
        for one in order[:_ROWS]:
            now = "".join(f" {one.now.get(name, '-')} |" for name in self.models)
            lines.append(
                f"| {one.seq}.{one.row} | {_cell(', '.join(one.sensors)) or '-'} | "
                f"{_told(one.recorded)} |{now} {_told(one.changed)} | {_pair(one.to_first)} | "
                f"{_pair(one.nearest)} | {_told(one.label)} | {_told(one.proven)} | {one.parity} |"
            )
        if len(order) > _ROWS:
            lines += ["", f"{len(order) - _ROWS} more are in {JSON}."]
        return "\n".join(lines) + "\n"


def replay(desk: Desk, identity: int) -> Replay:
    """Show an incident's recorded inputs to the configured models, and write the result down.

    Loads the models of `respond.replay.models`, so that it takes what they take. Writes replay.json
    and replay.md to the incident's folder. Raises OperationError where there is nothing to replay.
    """
    incident = desk.incidents.get(identity)
    found = inputs_of(desk, incident)
    if not found.inputs:
        raise OperationError(
            f"incident {identity} has no recorded inputs ({_missing(found.missing)}); let "
            "guard.evidence.inputs be flagged or all"
        )
    x = np.stack([one.values for one in found.inputs]) if _alike(found.inputs) else None
    if x is None:
        raise OperationError(
            f"the inputs of incident {identity} differ in shape; give respond.replay.shape"
        )
    answers = {name: label(x) for name, label in _models(desk).items()}
    near, reference = _nearest(desk, x)
    first: dict[str, Array] = {}
    shown = []
    for number, one in enumerate(found.inputs):
        key = str(one.record.content.get("key", ""))
        now = {name: int(labels[number]) for name, labels in answers.items()}
        start = first.setdefault(key, one.values)
        beside = None if near is None else near[number]
        within = beside is not None and beside.within
        truth = beside.label if beside is not None and within else None
        shown.append(
            Shown(
                seq=one.record.seq,
                row=one.row,
                wall=one.record.wall,
                key=key,
                fingerprint=one.fingerprint,
                sensors=one.sensors,
                recorded=one.answer,
                now=now,
                changed=None if one.answer is None or not now
                else any(label != one.answer for label in now.values()),
                to_first=None if one.values is start else _distances(one.values - start),
                nearest=None if beside is None else (beside.linf, beside.l2),
                label=truth,
                original=beside.digest if beside is not None and within else None,
                distance=beside.distance if beside is not None and within else None,
                proven=None if truth is None or one.answer is None else one.answer != truth,
                wrong=tuple(name for name, label in now.items() if truth not in (None, label)),
                parity=one.parity,
            )
        )  # fmt: skip
    result = Replay(
        incident=identity,
        models=tuple(answers),
        reference=reference,
        inputs=tuple(shown),
        missing=found.missing,
        attribution=attribute(found.inputs),
    )
    folder = desk.folder(identity)
    put(folder / MARKDOWN, result.to_markdown())
    put(folder / JSON, result.to_json())
    return result


def inputs_of(desk: Desk, incident: Incident) -> Found:
    """The recorded inputs of an incident; raises EvidenceError and OperationError."""
    from ..guard import Secrets

    records = trail(desk.evidence, desk.campaign(incident))
    guard = desk.config.guard
    assert guard is not None
    secrets = Secrets(desk.root / guard.secrets)
    known = "WITHSTAND_FINGERPRINT" in os.environ or (secrets.folder / "fingerprint").exists()
    kept = guard.evidence
    # What was taken out of inputs before they were kept was in them when the guard looked.
    whole = kept is not None and not any(one.field.startswith("inputs.") for one in kept.redact)
    secret = secrets.get("fingerprint") if known and whole else None
    with desk.vault() as vault:
        return recorded(records, vault, desk.config.respond.replay, secret)


def told_share(share: Interval | None) -> str:
    """A share with its interval and count, or that there is none."""
    return "not recorded" if share is None else f"{share} of {share.n}"


class _Beside(NamedTuple):
    linf: float
    l2: float
    label: int
    digest: str
    distance: float
    within: bool


def _models(desk: Desk) -> dict[str, Callable[[Array], NDArray[Any]]]:
    import torch

    from ..models import adapt, load_model

    def labels(spec: Any) -> Callable[[Array], NDArray[Any]]:
        model = load_model(spec, desk.root)

        def ask(x: Array) -> NDArray[Any]:
            parts = torch.split(torch.from_numpy(x), _CHUNK)
            with model.held(), torch.no_grad():
                # One number for each input is two classes, as an evaluation has them.
                told = (
                    model if model.access == "labels" else adapt(model, model.scores(parts[0]))[0]
                )
                return np.concatenate([told.labels(part).cpu().numpy() for part in parts])

        return ask

    return {name: labels(spec) for name, spec in desk.config.respond.replay.models.items()}


def _nearest(desk: Desk, x: Array) -> tuple[list[_Beside] | None, str]:
    """The nearest labelled sample of each input, and what the samples are or why there are none."""
    from ..data import load
    from ..evidence import content_digest

    try:
        config = load_config(desk.path)
        data = load(config.data, desk.root)
    except (ConfigError, WithstandError) as error:
        return None, f"none, so that nothing is proven wrong ({error})"
    if data.x.shape[1:] != x.shape[1:] or data.y.ndim != 1 or data.y.dtype.kind not in "iu":
        return None, "none, so that nothing is proven wrong (the data have another shape)"
    region = config.threat.region
    if region.norm not in ("linf", "l2") or region.eps is None:
        return None, f"none, so that nothing is proven wrong (threat.region.norm is {region.norm})"
    samples = data.x.reshape(len(data.x), -1).astype(np.float32)
    found = []
    for row in x.reshape(len(x), -1):
        gap = np.abs(samples - row)
        linf, l2 = gap.max(1), np.sqrt(np.square(gap).sum(1))
        measure = linf if region.norm == "linf" else l2
        best = int(measure.argmin())
        # Beyond rounding of float32, as servers and clients store it.
        among = data.y[measure <= region.eps * (1 + 1e-5) + 1e-6]
        # Where samples of several classes are within reach, nobody can say which was meant.
        within = bool(len(among)) and bool((among == among[0]).all())
        found.append(
            _Beside(
                float(linf[best]), float(l2[best]), int(data.y[best]),
                content_digest(data.x[best]), float(measure[best]), within,
            )
        )  # fmt: skip
    source = f"{len(samples)} labelled samples within {region.norm} {region.eps:g}"
    return found, source


def _alike(inputs: Sequence[Recorded]) -> bool:
    return len({one.values.shape for one in inputs}) == 1


def _distances(gap: Array) -> tuple[float, float]:
    return float(np.abs(gap).max(initial=0.0)), float(np.sqrt(np.square(gap).sum()))


def _plain(share: Interval | None) -> dict[str, Any] | None:
    return None if share is None else share.to_dict()


def _missing(missing: dict[str, int]) -> str:
    told = ", ".join(f"{count} {why}" for why, count in missing.items())
    return f"without an input: {told}" if told else "none is missing"


def _told(value: object) -> str:
    return {None: "-", True: "yes", False: "no"}.get(value, str(value)) if (
        value is None or isinstance(value, bool)
    ) else str(value)  # fmt: skip


def _pair(distances: tuple[float, float] | None) -> str:
    return "-" if distances is None else f"{distances[0]:.3g}, {distances[1]:.3g}"


def _cell(text: str) -> str:
    from ._markdown import escaped

    return escaped(text)
