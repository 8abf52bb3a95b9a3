"""A model with its defences, to be taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeGuard, TypeVar

from torch import Tensor

from .._errors import ModelError, did_you_mean, listed
from ..threat import Box
from ._detecting import Detecting
from ._ensemble import Ensemble
from ._input_transform import InputTransform
from ._pipeline import Pipeline
from ._protocol import Model
from ._randomized import Randomized

Kind = Literal["transform", "member", "hardening", "detector"]
Step = Callable[[Tensor], Tensor]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Defended:
    """Transforms, then one model or several that answer together, and a detector beside them all.

    members: a model, or several by name, combined as in `Ensemble`. transforms: functions of raw
    input (B, ...) by name, in the order of their use. detector, threshold: as in `Detecting`.
    plain: the model that would be there without hardening. draws: how many draws the answer is a
    mean of, where a transform is random (`Randomized`); an `InputTransform` brings its own.
    domain: the bounds of raw input, those of the first member if not given. Raises ModelError for
    parts that do not belong together.
    """

    members: Model | Mapping[str, Model]
    transforms: Mapping[str, Step] = field(default_factory=dict)
    detector: Step | None = None
    threshold: float | None = None
    combine: Literal["probabilities", "logits", "vote"] = "probabilities"
    plain: Model | None = None
    draws: int | None = None
    domain: Sequence[float] | Box | None = None

    def __post_init__(self) -> None:
        if not self._members:
            raise ModelError("a system of 0 members; give a model, or several by name")
        if (self.detector is None) != (self.threshold is None):
            given, missing = ("detector", "threshold")[:: -1 if self.detector is None else 1]
            raise ModelError(f"the system has a {given} and no {missing}; give both or neither")
        names = [name for name, _ in self._layers]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ModelError(
                f"two layers are named {listed(twice)}; name each transform and member by its own, "
                "and none detector or hardening"
            )

    @property
    def model(self) -> Model:
        """The whole as one model; its last score is the detector's silence, if there is one."""
        members = list(self._members.values())
        model = members[0] if len(members) == 1 else Ensemble(members, combine=self.combine)
        if self.transforms or self.domain is not None:
            domain = members[0].domain if self.domain is None else self.domain
            model = Pipeline(tuple(self.transforms.values()), model, domain=domain)
        wanted = (step.draws for step in self.transforms.values() if _random(step))
        draws = max(wanted, default=None) if self.draws is None else self.draws
        if draws is not None:
            mean: Literal["probabilities", "logits"] = (
                "logits" if self.combine == "logits" else "probabilities"
            )
            model = Randomized(model, draws=draws, combine=mean)
        if self.detector is not None and self.threshold is not None:
            model = Detecting(model, self.detector, threshold=self.threshold)
        return model

    @property
    def layers(self) -> dict[str, Kind]:
        """What can be removed, by name: transforms, members if there are several, and the rest."""
        return dict(self._layers)

    @property
    def bare(self) -> Defended:
        """The members alone, without transforms and detector."""
        return replace(self, transforms={}, detector=None, threshold=None)

    def without(self, name: str) -> Defended:
        """The system without one of its layers; raises ModelError for a name that is none."""
        kind = self._kind(name)
        if kind == "transform":
            return replace(self, transforms=_less(self.transforms, name))
        if kind == "member":
            return replace(self, members=_less(self._members, name))
        if kind == "detector":
            return replace(self, detector=None, threshold=None)
        assert self.plain is not None
        return replace(self, members=self.plain, plain=None)

    def only(self, name: str) -> Defended:
        """The members with this layer alone; raises ModelError for a name that is none."""
        kind = self._kind(name)
        if kind == "transform":
            return replace(self.bare, transforms={name: self.transforms[name]})
        if kind == "detector":
            return replace(self.bare, detector=self.detector, threshold=self.threshold)
        return self.bare

    @property
    def _members(self) -> Mapping[str, Model]:
        return self.members if isinstance(self.members, Mapping) else {"model": self.members}

    @property
    def _layers(self) -> list[tuple[str, Kind]]:
        found: list[tuple[str, Kind]] = [(name, "transform") for name in self.transforms]
        if len(self._members) > 1:
            found += [(name, "member") for name in self._members]
        if self.plain is not None:
            found.append(("hardening", "hardening"))
        if self.detector is not None:
            found.append(("detector", "detector"))
        return found

    def _kind(self, name: str) -> Kind:
        kinds = self.layers
        if name not in kinds:
            raise ModelError(
                f"the system has no layer {name!r}{did_you_mean(name, kinds)}; it has "
                f"{listed(kinds)}"
            )
        return kinds[name]


def _random(step: Step) -> TypeGuard[InputTransform]:
    return isinstance(step, InputTransform) and step.random


def _less(parts: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: part for key, part in parts.items() if key != name}
