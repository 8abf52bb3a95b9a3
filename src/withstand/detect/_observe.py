"""One forward that shows a detector all it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import ModelError, did_you_mean, listed
from ..models import Model, differentiable, members_of, network_of
from ._contract import NEEDS, Counted, Needs, Observation


@dataclass(frozen=True, kw_only=True, eq=False)
class Observer:
    """A model, and how much of it is looked at: `layers` of its network by name."""

    model: Model
    needs: Needs
    layers: tuple[str, ...] = ()

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Observation:
        """What is seen at raw input x (B, ...), with the graph if x wants one; 1 forward at most.

        The model must be held, or in the state that it is served in.
        """
        if NEEDS.index(self.needs) == 0:
            return Observation(x=x, scores=x.new_empty(len(x), 0), ask=self._ask, y=y)
        with _Recorded(self._recorded, self._convolves) as found:
            scores = self._ask(x)
        return Observation(
            x=x,
            scores=scores,
            ask=self._ask,
            activations={name: found[name] for name in self.layers},
            members=self._members,
            y=y,
            look=self,
        )

    @cached_property
    def _ask(self) -> Any:
        return differentiable(self.model)

    @cached_property
    def _recorded(self) -> tuple[tuple[str, nn.Module], ...]:
        net = network_of(self.model)
        if net is None:
            return ()
        # A network of one layer is that layer, by no name.
        return tuple((name, attrgetter(name)(net) if name else net) for name in self.layers)

    @cached_property
    def _convolves(self) -> bool:
        return _convolves(network_of(self.model))

    @cached_property
    def _members(self) -> tuple[Any, ...]:
        return tuple(differentiable(member) for member in members_of(self.model))

    def over(
        self, x: Tensor, y: Tensor | None, batch_size: int, progress: Counted | None = None
    ) -> Observation:
        """What is seen at many inputs x (N, ...), without a graph, a batch at a time."""
        with torch.no_grad():
            parts = [self(part) for part in counting(torch.split(x, batch_size), progress)]
        return Observation(
            x=x,
            scores=torch.cat([part.scores for part in parts]),
            ask=self._ask,
            activations={n: torch.cat([p.activations[n] for p in parts]) for n in self.layers},
            members=self._members,
            y=y,
            look=self,
        )


def counting(parts: Sequence[Tensor], progress: Counted | None) -> Iterator[Tensor]:
    """The parts, and word of how many of their inputs are done after each."""
    done, total = 0, sum(map(len, parts))
    for part in parts:
        yield part
        done += len(part)
        if progress is not None:
            progress(done, total)


def layer_names(model: Model, x: Tensor) -> tuple[str, ...]:
    """The layers of the model's network in the order of their outputs at x (1, ...).

    Those whose output is one tensor with a row for each input, without the last, which is the
    scores. Empty where there is no network to look into.
    """
    net = network_of(model)
    if net is None:
        return ()
    leaves = [(n, module) for n, module in net.named_modules() if not list(module.children())]
    with model.held(), torch.no_grad(), _Recorded(leaves, _convolves(net)) as found:
        model.scores(x)
    return tuple(found)[:-1]


def default_layers(model: Model, x: Tensor) -> tuple[str, ...]:
    """Three layers, the last before the scores among them and the others spread over those before.

    Outputs of non-linear modules, since these are what the next layer reads; of all modules where
    there are none. Raises ModelError where the network cannot be looked into.
    """
    names = layer_names(model, x)
    net = network_of(model)
    if net is None or not names:
        raise ModelError(
            f"a {type(model).__name__} has no layers to look into; use a method that needs scores "
            "or input only"
        )
    modules = dict(net.named_modules())
    chosen = [name for name in names if _nonlinear(modules[name])] or list(names)
    return tuple(dict.fromkeys(chosen[-1 - len(chosen) * back // 3] for back in (2, 1, 0)))


def check_layers(model: Model, x: Tensor, wanted: Sequence[str]) -> None:
    """Raise ModelError for a layer that the model's network does not have."""
    names = layer_names(model, x)
    for name in wanted:
        if name not in names:
            raise ModelError(
                f"layer {name!r} is not in the network{did_you_mean(name, names)}; it has "
                f"{listed(names)}"
            )


def _nonlinear(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation"


def _convolves(net: nn.Module | None) -> bool:
    """Whether outputs of three axes are (B, C, L), by channels, instead of tokens (B, T, D)."""
    return net is not None and any(isinstance(module, nn.Conv1d) for module in net.modules())


class _Recorded:
    """The outputs (B, F) of some layers during a forward, in the order in which they came."""

    def __init__(self, layers: Sequence[tuple[str, nn.Module]], convolves: bool) -> None:
        self.layers, self.convolves = layers, convolves
        self.found: dict[str, Tensor] = {}
        self.hooks: list[tuple[dict[int, Any], int]] = []

    def __enter__(self) -> dict[str, Tensor]:
        for name, layer in self.layers:
            hook = partial(_record, self.found, get_ident(), name, self.convolves)
            # As register_forward_hook does, whose handles single inputs would feel and whose own
            # keys are not negative.
            layer._forward_hooks[-id(hook)] = hook
            self.hooks.append((layer._forward_hooks, -id(hook)))
        return self.found

    def __exit__(self, *error: object) -> None:
        for hooks, key in self.hooks:
            del hooks[key]


def _record(
    found: dict[str, Tensor],
    thread: int,
    name: str,
    convolves: bool,
    module: nn.Module,
    given: Any,
    out: object,
) -> None:
    # The same network may be answering in another thread, which meets this hook, too.
    if get_ident() != thread:
        return
    if isinstance(out, Tensor) and (axes := out.ndim) > 1 and out.is_floating_point():
        # A layer that is used twice counts where it is used last.
        found.pop(name, None)
        if axes > 2:
            out = out.mean((1,) if axes == 3 and not convolves else tuple(range(2, axes)))
        found[name] = out
