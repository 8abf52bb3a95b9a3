"""What an evaluation found: figures, their cost, and enough to run it again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..stats import Interval
from ..threat.tabular import Table
from .business import Business

Array = NDArray[Any]
Verdict = Literal["green", "amber", "red"]
VERDICTS: tuple[Verdict, ...] = ("green", "amber", "red")

SCHEMA = "urn:withstand:report:1"
HIDDEN = ("x", "x_adv", "domain", "class_names", "feature_names", "table", "trust")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check of whether the robust accuracy can be believed."""

    check: str
    value: float | None
    threshold: float | None
    verdict: Verdict
    meaning: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What was spent: passes over single samples, and seconds."""

    forwards: int = 0
    backwards: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    def __sub__(self, earlier: Cost) -> Cost:
        """What was spent since."""
        return Cost(
            forwards=self.forwards - earlier.forwards,
            backwards=self.backwards - earlier.backwards,
            cpu_seconds=self.cpu_seconds - earlier.cpu_seconds,
            wall_seconds=self.wall_seconds - earlier.wall_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The worst verdict of all findings; without any it is amber, because nothing was checked.

    cost: what the checks spent by themselves, part of the evaluation's.
    """

    findings: tuple[Finding, ...] = ()
    cost: Cost = Cost()

    @property
    def verdict(self) -> Verdict:
        """green, amber or red."""
        if not self.findings:
            return "amber"
        return max((finding.verdict for finding in self.findings), key=VERDICTS.index)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack of the cascade: what it was given, what it fooled, what it cost.

    samples: correct and not yet fooled when it began; note: why it was cut short or left out;
    source: the surrogate that its examples were made on, empty where the model itself was attacked.
    """

    name: str
    settings: dict[str, Any]
    access: str
    samples: int
    fooled: int
    cost: Cost
    note: str = ""
    source: str = ""

    @property
    def title(self) -> str:
        """The name with what tells it from its neighbours."""
        told = [
            str(self.settings[key])
            for key in ("loss", "steps", "queries", "draws")
            if key in self.settings
        ]
        told += [
            f"{key} {self.settings[key]:g}"
            for key in ("diversity", "smoothing", "variance")
            if self.settings.get(key)
        ]
        if self.source and told:
            return f"{self.name.removesuffix(')')}, {', '.join(told)})"
        return f"{self.name} ({', '.join(told)})" if told else self.name


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A model of the attacker's own: how often it is right, and what making examples on it cost.

    forwards and backwards are its own passes over single samples, not the attacked model's.
    """

    name: str
    accuracy: Interval
    forwards: int
    backwards: int


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A defence that the model carries, as it declares itself.

    fits: whether this threat is among those it was made for, None where it names none. cost_factor:
    a forward pass with it over one without, None where unknown. adaptive: how it was attacked.
    """

    name: str
    made_for: tuple[str, ...]
    fits: bool | None
    cost_factor: float | None
    adaptive: str
    masks: bool


@dataclass(frozen=True, kw_only=True)
class Defences:
    """What attacks that know of the model's defences change; intervals are None where none ran.

    missing: why it was not adaptively evaluated, empty where it was. plain: the share that is right
    under a plain attack; through: under the same attack led through the defences too. more: the
    share of the right answers that a plain attack left and others fooled. masking: whether
    the plain attack says much more than the same through the defences.
    """

    carried: tuple[Carried, ...]
    missing: str = ""
    plain: Interval | None = None
    through: Interval | None = None
    more: Interval | None = None
    masking: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What hardening the model cost: times the seconds of standard training, None where no standard
    step was timed, both in seconds, and gradient passes for each sample."""

    factor: float | None
    seconds: float
    standard_seconds: float
    passes: float


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Robust accuracy (upper bound) at one radius."""

    eps: float
    robust_accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The accuracies of one class or of one group that the user named."""

    name: str
    clean_accuracy: Interval
    robust_accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far the fooled samples were changed, in one measure."""

    measure: str
    median: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class Severity:
    """The user's cost of wrong answers, per sample: without attack, under it, and the worst one."""

    clean_mean: Interval
    robust_mean: Interval
    worst: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """One entry for each sample, in the data's order; answers are class indices or outputs.

    status: fooled, withstood, already wrong or budget spent. attack: what fooled it first, or
    empty. distance: of the nearest mistake found, infinite without one.
    """

    label: Array
    clean_answer: Array
    adversarial_answer: Array
    status: tuple[str, ...]
    attack: tuple[str, ...]
    distance: Array
    forwards: Array
    backwards: Array
    first_success: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """The result of `evaluate`.

    robust_accuracy is an upper bound: a stronger attacker could lower it. certified_accuracy is a
    lower bound, None where nothing was certified. training: what hardening the model cost, None
    where that is not known. threat and provenance hold plain values. business is what the attack
    means in costs and money, None where the threat is to no table. x and x_adv (N, ...), domain,
    names and table are kept for pictures and files, and not part of the JSON.
    """

    clean_accuracy: Interval
    robust_accuracy: Interval
    fooling_rate: Interval
    trust: Trust
    attacks: tuple[Stage, ...]
    cost: Cost
    threat: dict[str, Any]
    provenance: dict[str, Any]
    samples: Samples
    x: Array
    x_adv: Array
    domain: tuple[float, float]
    certified_accuracy: Interval | None = None
    training: TrainingCost | None = None
    surrogates: tuple[Surrogate, ...] = ()
    defences: Defences | None = None
    curve: tuple[CurvePoint, ...] = ()
    median_distance: Interval | None = None
    classes: tuple[Slice, ...] = ()
    groups: tuple[Slice, ...] = ()
    perceptibility: tuple[Spread, ...] = ()
    severity: Severity | None = None
    business: Business | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    table: Table | None = None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, in the form of the published JSON schema."""
        values = {name: _plain(value) for name, value in vars(self).items() if name not in HIDDEN}
        trust = {"verdict": self.trust.verdict, **_plain(vars(self.trust))}
        return {"schema": SCHEMA, **values, "trust": trust}

    def save(self, folder: str | Path) -> list[Path]:
        """Write its files to a folder, as `withstand evaluate` does; raises OutputError."""
        from ._files import save

        return save(self, folder)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(item) for name, item in vars(value).items()}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    # Attacks of others may hold anything in their settings; the report is written all the same.
    return value if isinstance(value, str | int | float | None) else str(value)
