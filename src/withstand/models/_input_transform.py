"""A change of the input as a defence, which tells how it is attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError, did_you_mean, listed
from ..threat import L2, Box, Linf, Threat
from ._bit_depth import BitDepth
from ._defence import Adaptive, Defence
from ._jpeg import Jpeg
from ._median import Median
from ._physical import Noise, Transform
from ._resize_and_pad import ResizeAndPad
from ._total_variation import TotalVariation

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "bit_depth": BitDepth,
    "jpeg": Jpeg,
    "median": Median,
    "noise": Noise,
    "resize_and_pad": ResizeAndPad,
    "total_variation": TotalVariation,
}
"""What can stand under `defences:` in withstand.yaml, by name."""

# All of them were published against attackers who do not know of them, and give no radius.
_UNAWARE = (
    Threat(region=Linf(np.inf), access="none"),
    Threat(region=L2(np.inf), access="none"),
)


@dataclass(frozen=True, kw_only=True)
class InputTransform:
    """A change of pictures, signals or features as a step in front of a model.

    change: what is done to inputs (B, ...) in 0 to 1, as in `Physical`. As it is served, a change
    that runs outside torch gives no gradient; `through` is the same change with one. domain: the
    bounds of the step's input. threats: what it was made for. draws: over how many draws an attack
    averages, where the change is random. Raises ModelError for a domain without bounds.
    """

    change: Transform
    domain: Sequence[float] | Box = (0.0, 1.0)
    threats: tuple[Threat, ...] = _UNAWARE
    draws: int = 20
    name: str = ""
    _span: tuple[Any, Any] = field(init=False, repr=False, compare=False, default=(0.0, 1.0))

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ModelError(f"draws is {self.draws}; give at least 1")
        box = self.domain if isinstance(self.domain, Box) else Box(*self.domain)
        lower, upper = np.asarray(box.lower), np.asarray(box.upper)
        if not np.isfinite(upper - lower).all() or (upper < lower).any():
            raise ModelError(
                f"{self._name} needs a domain with bounds, the lower below the upper one; give "
                "model.domain numbers"
            )
        object.__setattr__(self, "_span", (lower, np.where(upper > lower, upper - lower, 1.0)))

    @property
    def random(self) -> bool:
        """Whether the same input may come out differently."""
        return bool(getattr(self.change, "random", True))

    @property
    def defence(self) -> Defence:
        """The declaration; its cost is left to be measured."""
        masks = bool(getattr(self.change, "masks", False))
        told = "gradients straight through what it rounds or solves (BPDA)" if masks else ""
        if self.random:
            eot = f"answers and gradients averaged over {self.draws} draws (EOT)"
            told = f"{told}; {eot}" if told else eot
        return Defence(
            name=self._name,
            threats=self.threats,
            masks=masks,
            adaptive=Adaptive(
                told=told or "by its own gradient", draws=self.draws if self.random else None
            ),
        )

    @property
    def _name(self) -> str:
        return self.name or repr(self.change)

    def __call__(self, x: Tensor) -> Tensor:
        """Inputs x (B, ...) as they are served; a draw is alike for all rows."""
        if getattr(self.change, "masks", False):
            with torch.no_grad():
                return self.through(x)
        return self.through(x)

    def through(self, x: Tensor) -> Tensor:
        """The same values, with a gradient."""
        lower, span = (torch.as_tensor(part, dtype=x.dtype, device=x.device) for part in self._span)
        seed = int(torch.randint(2**62, ())) if self.random else 0
        return self.change((x - lower) / span, np.random.default_rng(seed)) * span + lower


def input_transform(
    name: str,
    settings: Mapping[str, Any],
    *,
    domain: Sequence[float] | Box = (0.0, 1.0),
) -> InputTransform:
    """The named defence of `TRANSFORMS` with its settings; raises ModelError for what it is not.

    `draws` may be among the settings, as of InputTransform.
    """
    if name not in TRANSFORMS:
        raise ModelError(
            f"there is no defence {name!r}{did_you_mean(name, TRANSFORMS)}; it is one of "
            f"{', '.join(TRANSFORMS)}"
        )
    kind: Any = TRANSFORMS[name]
    keys = [*(f.name for f in fields(kind)), "draws"]
    for key, value in settings.items():
        if key not in keys:
            raise ModelError(
                f"{name} has no setting {key!r}{did_you_mean(key, keys)}; it has {listed(keys)}"
            )
        if isinstance(value, bool) != (key == "subsample"):
            raise ModelError(f"{name}'s {key} is {value!r}; give a number, or true or false")
    told: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()
    }
    # The changes themselves draw from a range by default, as a camera's settings do.
    if name == "jpeg":
        told.setdefault("quality", 75)
    if name == "noise":
        sigma = told.get("sigma", 0.1)
        told["sigma"] = (sigma, sigma) if isinstance(sigma, int | float) else sigma
    draws = int(told.pop("draws", 20))
    try:
        change = kind(**told)
    except TypeError as error:
        raise ModelError(f"{name} has settings of the wrong kind ({error}); give numbers") from None
    shown = ", ".join(f"{key} {value}" for key, value in settings.items())
    title = f"{name} ({shown})" if shown else name
    return InputTransform(change=change, domain=domain, name=title, draws=draws)
