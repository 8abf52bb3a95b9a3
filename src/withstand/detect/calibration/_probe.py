"""Whether a detector can work on this model at all, found out before anybody relies on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..._errors import DataError
from ...attacks import PGD, TransferPGD, craft, run
from ...data import Dataset
from ...evaluate import Finding
from ...models import Model
from ...stats import Interval, clopper_pearson, lower_bound
from ...threat import Threat, Untargeted
from .._contract import Observation
from .._detector import Detector, inputs_of
from ..methods._answers import two
from ..methods._fused import Fused
from ._power import Power

Verdict = Literal["green", "amber", "red"]

_MOST = 200
_FEWEST = 30
_NEAR = 0.99
_SURE = 0.95
_CLEAR = 0.5

_JUST = "examples just past the boundary"
_FAR = "examples far past the boundary"
_RANDOM = "random inputs"


def power(
    detector: Detector, benign: Dataset | Tensor, threat: Threat | None = None, *, seed: int = 0
) -> Power:
    """What stands against a calibrated detector on this model, from at most 200 benign inputs.

    The end of the score's range, benign answers that the method's own copies of an input change,
    and its flags among PGD examples just and far past the boundary (within the threat, where there
    are gradients) and among random inputs. Red where it cannot work, amber where it is weak.
    """
    if detector.threshold is None:
        raise DataError("the detector has no threshold yet; calibrate it before its power is asked")
    x = inputs_of(benign)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:_MOST]
    x = x[chosen]
    probes = {name: _flagged(detector, made) for name, made in _probes(detector, x, threat, seed)}
    rates = {name: rate for name, rate in probes.items() if rate.n >= _FEWEST}
    findings = [*_range(detector), *_flips(detector, x, rates), *_rates(detector, probes)]
    return Power(findings=tuple(findings))


def powered(
    detector: Detector,
    benign: Dataset | Tensor,
    threat: Threat | None = None,
    *,
    force: bool = False,
    seed: int = 0,
) -> Detector:
    """The detector with its `power`; raises DetectorError where it cannot work, unless forced."""
    return replace(detector, power=power(detector, benign, threat, seed=seed).demand(force))


def _range(detector: Detector) -> Iterator[Finding]:
    highest, kept = detector.method.highest, detector.threshold
    if highest is None or kept is None:
        return
    value = max(kept.value, *(own.value for own in kept.classes.values()), -torch.inf)
    gone = value >= _NEAR * highest
    name = type(detector.method).__name__
    yield Finding(
        check="end of the range",
        value=value,
        threshold=_NEAR * highest,
        verdict="red" if gone else "green",
        meaning=f"the threshold is {value:.4g} and no score of {name} exceeds {highest:g}"
        if gone
        else f"scores of {name} reach up to {highest:g}, the threshold leaves room for them",
        fix="choose settings that move fewer benign inputs, or another method" if gone else "",
    )


def _flips(detector: Detector, x: Tensor, rates: Mapping[str, Interval]) -> Iterator[Finding]:
    kept = detector.threshold
    changed = _changed(detector, x)
    if kept is None or not changed:
        return
    most = max(changed)
    value, limit = most / len(x), kept.fpr
    # What it flags says more than why it should not.
    clear = any(rate.low > _CLEAR for rate in rates.values())
    sure = float(lower_bound(most, len(x), 1 - _SURE)) > limit
    # Other parts of a fused score may work where this one cannot.
    fused = isinstance(detector.method, Fused)
    verdict: Verdict = "red" if sure and not clear and not fused else "amber"
    verdict = "green" if value <= limit else verdict
    told = f"its own copies change {100 * value:.2g} % of benign answers"
    yield Finding(
        check="benign answers that change",
        value=value,
        threshold=limit,
        verdict=verdict,
        meaning=told
        if verdict == "green"
        else f"{told}, and {100 * limit:g} % of false alarms leave no room for that",
        fix=""
        if verdict == "green"
        else "train the model on such copies, weaken the transform, or choose another method",
    )


def _changed(detector: Detector, x: Tensor) -> list[int]:
    """How many answers each of the method's own questions changes; empty if it asks none."""
    answers: list[Tensor] = []

    def heard(scores: Tensor) -> Tensor:
        answers.append(two(scores.detach()).argmax(1))
        return scores

    with detector.model.held(), torch.no_grad():
        seen = detector.observer(x)
        if not seen.scores.shape[1]:
            return []
        ask, look = seen.ask, seen.look
        seen = replace(seen, ask=lambda other: heard(ask(other)))
        if look is not None:
            seen = replace(seen, look=_listening(look, heard))
        detector.score_seen(seen)
        clean = two(seen.scores).argmax(1)
    # A question about other rows than these cannot be laid beside the answers to them.
    return [int((labels != clean).sum()) for labels in answers if len(labels) == len(x)]


def _listening(
    look: Callable[[Tensor], Observation], heard: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Observation]:
    def told(other: Tensor) -> Observation:
        seen = look(other)
        heard(seen.scores)
        return seen

    return told


def _probes(
    detector: Detector, x: Tensor, threat: Threat | None, seed: int
) -> Iterator[tuple[str, Tensor]]:
    model = detector.model
    known = threat is not None and threat.bounded and threat.norm in PGD.norms
    if threat is not None and known and model.access == "gradients":
        yield from _attacked(model, x, replace(threat, goal=Untargeted(), queries=None), seed)
    low, high = x.amin(0), x.amax(0)
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1))
    made = low + (high - low) * drawn.to(x)
    # Counts and characters stay whole.
    yield _RANDOM, made.round() if bool((x == x.round()).all()) else made


def _attacked(model: Model, x: Tensor, threat: Threat, seed: int) -> Iterator[tuple[str, Tensor]]:
    with model.held():
        y = model.labels(x)
        threat = replace(threat, access="gradients")
        near = run(PGD(steps=20), model, x, y, threat, seed=seed)
        far = craft(TransferPGD(steps=20), model, x, y, threat, seed=seed)
        yield _JUST, near.x_adv[near.success]
        yield _FAR, far[model.labels(far) != y]


def _flagged(detector: Detector, x: Tensor) -> Interval:
    return clopper_pearson(int(detector.flags(x).sum()) if len(x) else 0, len(x), _SURE)


def _rates(detector: Detector, probes: Mapping[str, Interval]) -> Iterator[Finding]:
    limit = 0.0 if detector.threshold is None else detector.threshold.fpr
    attacked = [rate for name, rate in probes.items() if name != _RANDOM]
    known = any(rate.n >= _FEWEST for rate in attacked)
    blind = known and not any(rate.low > limit for rate in probes.values() if rate.n)
    if not attacked:
        yield Finding(
            check="flags examples",
            value=None,
            threshold=limit,
            verdict="amber",
            meaning="what it flags of attacks is not known: PGD needs a threat in linf or l2 and a "
            "model with gradients",
            fix="evaluate it under the threat that you expect",
        )
    for name, rate in probes.items():
        verdict: Verdict
        fix = ""
        if rate.n < _FEWEST:
            meaning = f"only {rate.n} {name} could be made, so what it flags of them is not known"
            verdict, fix = "amber", "evaluate it under a threat that the model does not withstand"
        elif rate.low > limit:
            meaning, verdict = f"it flags {rate} of {rate.n} {name}", "green"
        else:
            meaning = f"it flags {rate} of {rate.n} {name}: not surely more than of benign inputs"
            verdict = "red" if blind else "amber"
            fix = "choose another method, or fuse it with one that sees them"
        yield Finding(
            check=f"flags {name}",
            value=rate.value if rate.n else None,
            threshold=limit,
            verdict=verdict,
            meaning=meaning,
            fix=fix,
        )
