"""Suspects of any pipeline: scaling, number type, class order, and the reference's own steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..._errors import listed
from ...models import TorchModel
from ._compare import Comparison, asked
from ._route import Route, Step, Transformer, name_of
from ._suspect import Suspect, before, missing_or_twice

# The likeliest first: where answers saturate, several factors explain a difference equally well.
_FACTORS = (255.0, 256.0, 2.0, 10.0, 16.0, 100.0, 127.5, 128.0, 1000.0, 32768.0, 65535.0)
_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def scaling() -> list[Suspect]:
    """Raw values multiplied or divided by a common factor."""
    found = []
    for factor in _FACTORS:
        found += missing_or_twice(
            "scaling",
            f"the division by {factor:g}",
            f"divide by {factor:g} exactly once where the model is served",
            forward=lambda x, factor=factor: x / factor,  # type: ignore[misc]
            backward=lambda x, factor=factor: x * factor,  # type: ignore[misc]
        )
    for wrong, right in ((256.0, 255.0), (255.0, 256.0)):
        ratio = right / wrong
        found.append(
            Suspect(
                step="scaling",
                change=f"values are divided by {wrong:g} instead of {right:g}",
                fix=f"divide by {right:g} where the model is served",
                alter=before(lambda x, ratio=ratio: x * ratio),  # type: ignore[misc]
            )
        )
    return found


def types(steps: Sequence[Step]) -> list[Suspect]:
    """Input or the whole model in a shorter floating-point type."""
    found = []
    for name, kind in _TYPES.items():
        fix = f"serve in float32, or evaluate the model in {name}"

        def cast(x: Tensor, kind: torch.dtype = kind) -> Tensor:
            return x.to(kind).to(x.dtype)

        def entering(route: Route, cast: Step = cast) -> Route:
            return route.inserted(len(route.steps), cast)

        def inside(route: Route, kind: torch.dtype = kind) -> Route:
            if not isinstance(route.model, TorchModel):
                raise TypeError
            return replace(route, model=TorchModel(_Cast(route.model.net, kind)))

        def mixed(route: Route, kind: torch.dtype = kind) -> Route:
            if not isinstance(route.model, TorchModel):
                raise TypeError
            return replace(route, model=TorchModel(_Mixed(route.model.net, kind)))

        changes: list[tuple[str, Callable[[Route], Route]]] = [
            (f"the network computes in {name}", inside),
            (f"the network's products are computed in {name} (autocast)", mixed),
            (f"the input is rounded to {name}", before(cast)),
        ]
        if steps:
            changes.append((f"the preprocessed input is rounded to {name}", entering))
        found += [Suspect(step="dtype", change=c, fix=fix, alter=alter) for c, alter in changes]
    return found


class _Cast(nn.Module):
    """A copy of a net in another type, between float32 input and output."""

    def __init__(self, net: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.net, self.kind = deepcopy(net).to(kind), kind

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.to(self.kind))
        return out.float()


class _Mixed(nn.Module):
    """A net in mixed precision."""

    def __init__(self, net: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.net, self.kind = net, kind

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self.kind):
            out: Tensor = self.net(x)
        return out.float()


def own_steps(steps: Sequence[Step]) -> list[Suspect]:
    """The reference's own steps left out, done twice, or done in another order."""
    found = []
    for place, step in enumerate(steps):
        name = name_of(step) or f"number {place + 1}"
        fix = f"run the step {name} once, in the evaluated order, where the model is served"

        def without(route: Route, step: Step = step) -> Route:
            at = _place(route, step)
            return replace(route, steps=route.steps[:at] + route.steps[at + 1 :])

        def twice(route: Route, step: Step = step) -> Route:
            return route.inserted(_place(route, step), step)

        def later(route: Route, step: Step = step) -> Route:
            at = _place(route, step)
            rest = (route.steps[at + 1], step, *route.steps[at + 2 :])
            return replace(route, steps=(*route.steps[:at], *rest))

        changes = [
            (f"the step {name} is left out", without),
            (f"the step {name} is done twice", twice),
        ]
        if place + 1 < len(steps):
            changes.append((f"the step {name} comes after the next one", later))
        found += [
            Suspect(step=f"step {name}", change=change, fix=fix, alter=alter)
            for change, alter in changes
        ]
        if isinstance(step, Transformer) and hasattr(step.fitted, "transformers_"):
            found += _column_steps(step)
    return found


def _place(route: Route, step: Step) -> int:
    """Where a step is; steps are told apart by identity, since one may be there twice."""
    return next(place for place, other in enumerate(route.steps) if other is step)


def _column_steps(step: Transformer) -> list[Suspect]:
    """The parts of a fitted ColumnTransformer that keep their columns."""
    found = []
    for name, part, columns in step.fitted.transformers_:
        for verb, method in (("left out", "inverse_transform"), ("done twice", "transform")):
            run = getattr(part, method, None)
            if run is None:
                continue

            def alter(route: Route, run: Any = run, columns: Any = columns) -> Route:
                return route.inserted(_place(route, step), partial(_at, run=run, columns=columns))

            found.append(
                Suspect(
                    step=f"step {name}",
                    change=f"the step {name} of the columns is {verb}",
                    fix=f"run the fitted step {name} exactly once where the model is served",
                    alter=alter,
                )
            )
    return found


def _at(x: Tensor, run: Any, columns: Any) -> Tensor:
    """Some columns of rows x (B, d) changed by a function of numpy arrays."""
    rows = x.flatten(1).numpy().copy()
    rows[:, columns] = run(rows[:, columns])
    return torch.from_numpy(rows)


def class_order(seen: Comparison, route: Route) -> list[Suspect]:
    """Classes in the order, found by assignment, in which the answers agree best."""
    raw = asked(route, seen.x)
    mine, served = seen.to_unit(raw), seen.served
    if served.ndim == 1:
        classes = int(torch.stack((mine, served)).max()) + 1
        classes = max(classes, raw.shape[1]) if raw.ndim == 2 else classes
        mine, served = one_hot(mine, classes).double(), one_hot(served, classes).double()
    classes = mine.shape[1]
    if classes == 1 or (raw.ndim == 2 and raw.shape[1] != classes):
        return []
    # The order that is already there wins every tie.
    cost = torch.cdist(mine.T, served.T) - 1e-9 * torch.eye(classes, dtype=torch.double)
    goes = torch.as_tensor(linear_sum_assignment(cost.numpy())[1])
    moved = (goes != torch.arange(classes)).nonzero().flatten().tolist()
    if not moved:
        return []

    def reorder(answers: Tensor) -> Tensor:
        return goes[answers] if answers.ndim == 1 else answers[:, goes.argsort()]

    def alter(route: Route) -> Route:
        earlier = route.after
        return replace(
            route, after=reorder if earlier is None else lambda out: reorder(earlier(out))
        )

    where = listed([f"{c} answers as {goes[c]}" for c in moved], 6)
    return [
        Suspect(
            step="class order",
            change=f"classes come in another order: {where}",
            fix="list the classes in the model's order where its answers are read",
            alter=alter,
        )
    ]
