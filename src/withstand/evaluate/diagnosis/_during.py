"""During the attacks: did they do their work?"""

from __future__ import annotations

from statistics import mean

from ._check import Case, Check

_NO_ATTACKS = ("RandomNoise", "Replay")


def _unfinished(case: Case) -> float:
    cut = case.found.unfinished & case.correct & ~case.fooled
    return int(cut.sum()) / case.right


def _unattacked(case: Case) -> float | None:
    if not len(case.survivors):
        return None
    return float(all(stage.name in _NO_ATTACKS for stage in case.stages))


def _unconverged(case: Case) -> float | None:
    if case.trace is None or not case.trace.paths:
        return None
    return mean(path.unconverged for path in case.trace.paths)


def _inside(case: Case) -> float | None:
    if case.trace is None or not case.trace.paths:
        return None
    return mean(path.inside for path in case.trace.paths)


def _unsteady(case: Case) -> float | None:
    if case.trace is None or not case.trace.paths:
        return None
    return mean(path.steadiness < 0.05 for path in case.trace.paths)


def _doubled(case: Case) -> float | None:
    return None if case.doubled is None else case.doubled / case.right


def _again(case: Case) -> float | None:
    return None if case.again is None else case.again / case.right


CHECKS = (
    Check(
        name="unfinished samples",
        when="during",
        measure=_unfinished,
        amber=0,
        red=0.05,
        meaning="share of right answers whose attack the evaluation's own budget ended, or found "
        "no point to begin at; they count as robust",
        fix="give more seconds or a larger budget; from labels towards a class, give scores",
        source="Carlini et al. 2019",
    ),
    Check(
        name="noise alone",
        when="during",
        measure=_unattacked,
        amber=0,
        red=0.5,
        meaning="1 where nothing searched for examples, since there is no attack here for this "
        "norm and access",
        fix="evaluate in another norm, with more access, or with surrogates",
        source="Carlini et al. 2019",
    ),
    Check(
        name="unconverged",
        when="during",
        measure=_unconverged,
        amber=0.25,
        meaning="share of traced attacks whose loss was still rising at the end",
        fix="evaluate with preset thorough",
        source="Pintor et al. 2022",
    ),
    Check(
        name="steps too short",
        when="during",
        measure=_inside,
        amber=0.5,
        meaning="share of traced attacks that never reached the edge of the region",
        fix="look at the gradients' size and at the domain; evaluate with preset thorough",
        source="Carlini et al. 2019",
    ),
    Check(
        name="unsteady gradients",
        when="during",
        measure=_unsteady,
        amber=0.5,
        meaning="share of traced attacks whose gradients point elsewhere at every step",
        fix="average the gradient over noise or draws (Randomized)",
        source="Athalye et al. 2018",
    ),
    Check(
        name="more steps help",
        when="during",
        measure=_doubled,
        amber=0.01,
        red=0.05,
        meaning="share of right answers that fell to twice the steps, tried on the nearest few",
        fix="evaluate with preset thorough",
        source="Carlini et al. 2019",
    ),
    Check(
        name="more restarts help",
        when="during",
        measure=_again,
        amber=0.01,
        red=0.05,
        meaning="share of right answers that fell to fresh starts, tried on the nearest few",
        fix="evaluate with preset thorough",
        source="Carlini et al. 2019",
    ),
)
