"""After the attacks: did the right ones succeed?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...attacks import APGD, CGBA, RayS, run
from ...stats import mcnemar, wilson
from .._memory import eight_bit
from ._check import Case, Check

_NEVER = float("inf")
_THROUGH = "attack through the defence (Differentiable, Randomized) or without it"


def _outside(case: Case) -> float | None:
    """Share of the examples outside the region, compared in float64 with no tolerance."""
    places = case.fooled.nonzero()[:, 0].cpu().numpy()
    if not len(places):
        return None
    x, found = case.x[places].cpu().numpy(), case.found.x_adv[places].cpu().numpy()
    return float((~case.threat.take(places).region.contains(x, found)).mean())


def _stored(case: Case) -> float | None:
    """Share of the examples that fool no longer when they are asked again, as they are stored."""
    places = case.fooled.nonzero()[:, 0][: case.purse.rows(64, 1)]
    if not len(places) or not case.gradients or case.restless:
        return None
    answer = case.threat.goal.decide(case.scores(case.found.x_adv[places]))
    return float((~case.threat.goal.hit(answer, case.y[places])).float().mean())


def _rounded(case: Case) -> float | None:
    """Share of the examples that fool no longer after rounding to 256 levels of the domain."""
    places = case.fooled.nonzero()[:, 0][: case.purse.rows(64, 1)]
    if not len(places) or not case.gradients or case.restless or case.x.ndim != 4:
        return None
    stored = eight_bit(case.found.x_adv[places], case.model.domain)
    answer = case.threat.goal.decide(case.scores(stored))
    return float((~case.threat.goal.hit(answer, case.y[places])).float().mean())


def _noise(case: Case) -> float | None:
    fooled = case.fooled_in("RandomNoise")
    return None if fooled is None else fooled / case.right


def _noise_only(case: Case) -> float | None:
    """Share of those that noise fools and a short gradient attack does not."""
    stages = [i for i, stage in enumerate(case.stages) if stage.name == "RandomNoise"]
    if not stages or not case.gradients or case.threat.norm not in APGD.norms:
        return None
    places = (case.found.by == stages[0]).nonzero()[:, 0][: case.purse.rows(16, 40)]
    if len(places) < 2:
        return None
    result = run(
        APGD(steps=20, loss="margin"),
        case.model,
        case.x[places],
        case.y[places],
        case.threat.take(places.cpu().numpy()),
        seed=case.seed,
        batch_size=case.batch,
    )
    spent = result.ledger
    case.purse.spend(int(spent.forwards.sum()), int(spent.backwards.sum()))
    # One may be chance: a point that noise found can be hard to climb to.
    return max(int((~result.success).sum()) - 1, 0) / len(places)


def _black_box(case: Case) -> float | None:
    """Share that queries alone fooled, if they found more than fresh gradient starts did.

    Paired on the nearest survivors: those which only the queries fooled against those which the
    fresh starts did. These were not queried any more, so that the test errs towards no alarm.
    """
    if case.probe is None:
        return None
    return _surplus(case, case.fooled_in("Square"))


def _transferred(case: Case) -> float | None:
    """The same of the examples that were made on surrogates."""
    if case.probe is None or not case.surrogates:
        return None
    return _surplus(case, sum(stage.fooled for stage in case.stages if stage.source))


def _surplus(case: Case, only: int | None) -> float | None:
    """Their share where they are two or more and no chance, else 0."""
    if only is None:
        return None
    return only / case.right if only >= 2 and mcnemar(only, case.again or 0) < 0.05 else 0.0


def _inverted(case: Case) -> float | None:
    """Share of samples for which labels alone find a smaller change than the gradient sweep."""
    attack = {"linf": RayS(queries=150), "l2": CGBA(queries=150)}.get(case.threat.norm)
    places = case.sample(16, 150)
    known = torch.isfinite(case.found.distance[places.cpu()]) if len(places) else None
    if attack is None or not case.swept or known is None or case.restless:
        return None
    places = places[known.to(places.device)]
    if len(places) < 4:
        return None
    result = run(
        attack,
        case.model,
        case.x[places],
        case.y[places],
        case.threat.take(places.cpu().numpy()).unbounded(),
        seed=case.seed,
        batch_size=case.batch,
    )
    case.purse.spend(int(result.ledger.forwards.sum()))
    nearer = result.distance.cpu() < 0.99 * case.found.distance[places.cpu()]
    return float(nearer.float().mean())


def _single_step(case: Case) -> float | None:
    fooled = case.fooled_in("FGSM")
    return None if fooled is None else fooled / case.right


def _cut_short(case: Case) -> Tensor:
    """Whose smallest change was not looked for to the end: time or queries were over (N,)."""
    ended = case.found.unfinished.cpu()
    if case.threat.queries is None:
        return ended
    # A step may ask for more than is left.
    return ended | (case.found.forwards.cpu() > 0.9 * case.threat.queries)


def _never(case: Case) -> float | None:
    """Share of the right that no change at all was found to fool, beyond what chance explains."""
    if not case.swept or case.restless:
        return None
    never = torch.isinf(case.found.distance) & case.correct.cpu() & ~_cut_short(case)
    share = int(never.sum()) / case.right
    chance = 1 / max(case.classes, 2)
    return share if share > chance + 3 * (chance * (1 - chance) / case.n) ** 0.5 else 0.0


def _losses(case: Case) -> float | None:
    """Share that other losses fooled after cross-entropy had failed."""
    later = [
        stage.fooled
        for stage in case.stages
        if stage.name in ("APGD", "APGDT") and stage.settings.get("loss") not in ("ce", "tempered")
    ]
    first = case.fooled_in("APGD", loss="ce") is not None
    return sum(later) / case.right if first and later else None


def _targets(case: Case) -> float | None:
    fooled = case.fooled_in("APGDT")
    return None if fooled is None else fooled / case.right


def _plateau(case: Case) -> float | None:
    """1 where the curve falls up to the radius, and no further up to its double."""
    if not case.swept or not bool(torch.isfinite(case.eps).all()):
        return None
    distance, eps = case.found.distance, case.eps.cpu()
    if bool((_cut_short(case) & torch.isinf(distance)).any()):
        return None
    here = float((distance > eps).float().mean())
    twice = float((distance > 2 * eps).float().mean())
    clean = float(case.correct.float().mean())
    bitten = clean - here > 0.02 and here > 1 / max(case.classes, 2) + 0.1
    return float(bitten and here - twice < 0.005)


def _too_good(case: Case) -> float | None:
    """1 where next to nobody is fooled, even at four times the radius."""
    if case.access != "gradients" or not bool(torch.isfinite(case.eps).all()) or case.capability:
        return None
    near = (case.found.distance <= 4 * case.eps.cpu()) & case.correct.cpu()
    return float(int(near.sum()) < 0.01 * case.right)


def _missed(case: Case) -> float | None:
    return None if case.restless else case.missed


def _width(case: Case) -> float:
    interval = wilson(len(case.survivors), case.n)
    return (interval.high - interval.low) / 2


def _lag(case: Case) -> float | None:
    if case.access != "none" or not case.surrogates:
        return None
    best = max(surrogate.accuracy.value for surrogate in case.surrogates)
    return max(float(np.mean(case.correct.cpu().numpy())) - best, 0.0)


def _surrogates(case: Case) -> float | None:
    return float(len(case.surrogates)) if case.access == "none" else None


CHECKS = (
    Check(
        name="outside the region",
        when="after",
        measure=_outside,
        amber=0,
        red=0,
        meaning="share of the examples that the threat does not allow",
        fix="report it: the engine keeps to the region, so this is an error of withstand",
        source="Carlini et al. 2019",
    ),
    Check(
        name="stored examples fail",
        when="after",
        measure=_stored,
        amber=0,
        red=0.05,
        meaning="share of the stored examples that do not fool when they are asked again",
        fix="find what makes the model answer otherwise: randomness, other rows, precision",
        source="Carlini et al. 2019",
    ),
    Check(
        name="lost in 8 bit",
        when="after",
        measure=_rounded,
        amber=_NEVER,
        meaning="share of the examples that do not survive rounding to 8 bit, as in a picture "
        "file; they fool an attacked tensor, not an attacked file",
        fix="none needed for the number; to attack files, add an 8-bit step to the model",
        source="Carlini et al. 2019",
    ),
    Check(
        name="random noise fools",
        when="after",
        measure=_noise,
        amber=0.5,
        meaning="share of right answers that fall to noise without any search",
        fix="check preprocessing and the radius; an attacker needs no skill here",
        source="Carlini et al. 2019",
    ),
    Check(
        name="noise beats gradients",
        when="after",
        measure=_noise_only,
        amber=0,
        red=0.2,
        meaning="share of those that noise fools (all but one) where gradients find nothing",
        fix=_THROUGH,
        source="Carlini et al. 2019",
    ),
    Check(
        name="black box beats gradients",
        when="after",
        measure=_black_box,
        amber=0,
        red=0.01,
        meaning="share that only a query attack fooled, where it found more than fresh gradient "
        "attacks on the same samples (McNemar, p < 0.05): the gradients mislead, and a better "
        "gradient attack may fool still more",
        fix=_THROUGH,
        source="Carlini et al. 2019; McNemar 1947",
    ),
    Check(
        name="transfer beats gradients",
        when="after",
        measure=_transferred,
        amber=0,
        red=0.01,
        meaning="share that only examples made on surrogates fooled, where they found more than "
        "fresh gradient attacks did (McNemar, p < 0.05): the model's own gradients mislead",
        fix=_THROUGH,
        source="Carlini et al. 2019; McNemar 1947",
    ),
    Check(
        name="distance inversion",
        when="after",
        measure=_inverted,
        amber=0.1,
        meaning="share of inputs for which labels alone found a smaller change than gradients did",
        fix=_THROUGH,
        source="Brendel et al. 2018",
    ),
    Check(
        name="single step beats iterations",
        when="after",
        measure=_single_step,
        amber=0.002,
        red=0.01,
        meaning="share that one step fooled after iterated attacks had failed",
        fix=_THROUGH,
        source="Athalye et al. 2018",
    ),
    Check(
        name="never fooled",
        when="after",
        measure=_never,
        amber=0,
        red=0,
        meaning="share of right answers that no change of any size fooled, where chance alone "
        "would: an unbounded attack must always succeed",
        fix=_THROUGH,
        source="Carlini et al. 2019",
    ),
    Check(
        name="loss dependence",
        when="after",
        measure=_losses,
        amber=0.05,
        meaning="share that other losses fooled after cross-entropy had failed",
        fix="none needed here; tools with one loss overestimate this model",
        source="Pintor et al. 2022",
    ),
    Check(
        name="targets help",
        when="after",
        measure=_targets,
        amber=0.03,
        meaning="share that fell only to attacks towards one class after the other",
        fix="evaluate with preset thorough, which goes to more classes",
        source="Croce and Hein 2020",
    ),
    Check(
        name="curve plateau",
        when="after",
        measure=_plateau,
        amber=0,
        meaning="1 where robust accuracy falls up to the radius and no further up to its double",
        fix=_THROUGH,
        source="Carlini et al. 2019",
    ),
    Check(
        name="implausible robustness",
        when="after",
        measure=_too_good,
        amber=0,
        meaning="1 where next to nobody is fooled even at four times the radius",
        fix="look at some inputs by hand; raise the radius until the attack bites",
        source="Carlini et al. 2019",
    ),
    Check(
        name="sweep misses",
        when="after",
        measure=_missed,
        amber=0.1,
        red=0.5,
        meaning="share of the fooled for which the minimum-norm sweep found only larger changes: "
        "the loss is rugged, and the curve is too high away from the radius",
        fix="evaluate with preset thorough",
        source="Cina et al. 2025",
    ),
    Check(
        name="wide interval",
        when="after",
        measure=_width,
        amber=0.05,
        meaning="half the width of the robust accuracy's 95 % interval",
        fix="evaluate more samples",
        source="Carlini et al. 2019",
    ),
    Check(
        name="surrogates",
        when="after",
        measure=_surrogates,
        amber=0,
        meaning="examples come from these surrogates only: the number says nothing of an attacker "
        "with a better surrogate",
        fix="add surrogates of the model's own kind and of others, or evaluate with access labels "
        "or scores",
        source="Demontis et al. 2019",
    ),
    Check(
        name="surrogates' lag",
        when="after",
        measure=_lag,
        amber=0.1,
        red=0.3,
        meaning="by how much the best surrogate is right less often than the model: examples made "
        "on a poor copy seldom carry over",
        fix="train a surrogate on more data, or on the model's answers (train_surrogate)",
        source="Demontis et al. 2019",
    ),
)
