"""Examples that do not stop at the boundary of the model they are made on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .._errors import DataError, ModelError, ThreatError
from ..models import Model
from ..threat import Region, Threat, check_goal
from ..threat.tabular import Capability
from ._ask import Asker
from ._ball import reach
from ._contract import Attack, allowed
from ._problem import Problem, sample_keys


def craft(
    attack: Attack,
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    seed: int = 0,
    batch_size: int = 64,
    keys: Tensor | None = None,
) -> Tensor:
    """Examples (N, ...) that one try of a gradient attack on `model` ends at, for other models.

    `run` stops at the first example that fools the model it attacks, which then lies just behind
    that model's boundary and rarely behind another's. Here every step is taken, and what counts is
    the last point in the region that fools the model, else the last one in the region: as many
    examples fool the model as `run` would find, and all lie further on. The threat's access is that
    to a victim, and not looked at. keys: as in `run`. Raises DataError, ModelError or ThreatError.
    """
    name = type(attack).__name__
    if len(x) == 0 or len(x) != len(y):
        raise DataError(f"x has {len(x)} samples and y {len(y)}; give as many labels as inputs")
    threat = replace(threat, access="gradients")
    if attack.needs != "gradients" or not allowed(attack.needs, model, threat):
        raise ModelError(
            f"{name} needs {attack.needs} and the model gives {model.access}; examples to transfer "
            "are made with gradients, of a surrogate where the model has none"
        )
    region, x = threat.within(model.domain).region, x.detach()
    lower, upper, eps, norm = reach(region, x)
    bounded = bool(eps.isfinite().all())
    if attack.minimum_norm or not bounded or type(attack).plan is not Attack.plan:
        raise ThreatError(
            f"{name} on {threat.region.describe()} makes no examples to transfer; give a finite "
            "radius and an attack that uses all of it, such as TransferPGD or PGD"
        )
    with model.held():
        if norm not in attack.norms:
            raise ThreatError(
                f"{name} knows {', '.join(attack.norms)}, the region is {region.describe()}; "
                "choose an attack for that norm"
            )
        check_goal(threat.goal, model.scores(x[:1]), y[:1])
        zero = torch.zeros(len(x), dtype=torch.long, device=x.device)
        problem = Problem(
            x=x,
            y=y,
            key=(sample_keys(x, y) if keys is None else keys).to(x.device),
            lane=zero,
            target=zero - 1,
            eps=eps,
            lower=lower,
            upper=upper,
            norm=norm,
            goal=threat.goal,
            seed=seed,
            capability=next((one for one in region if isinstance(one, Capability)), None),
        )
        asker = Asker(model, x, batch_size)
        parts = torch.split(torch.arange(len(x), device=x.device), batch_size)
        return torch.cat([_part(attack, asker, problem, region, rows) for rows in parts])


def _part(attack: Attack, asker: Asker, whole: Problem, region: Region, rows: Tensor) -> Tensor:
    problem, region = whole.take(rows), region.take(rows.cpu().numpy())
    state = attack.init(problem)
    origin, made = problem.x.cpu().numpy(), problem.x
    fooled = torch.zeros_like(problem.lane, dtype=torch.bool)
    while bool((query := attack.query(problem, state)).live.any()):
        seen = asker.answer(problem, query)
        within = region.contains(origin, query.points.cpu().numpy())
        good = query.live & torch.from_numpy(within).to(rows.device)
        hit = good & seen.hit
        made = torch.where(problem.column(hit | (good & ~fooled)), query.points, made)
        fooled = fooled | hit
        state = attack.step(problem, state, seen)
    return made
