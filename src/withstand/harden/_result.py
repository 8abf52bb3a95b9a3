"""What a training has made, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..evaluate import check_writable, write
from ..models import Declared, Defence, TorchModel
from ..stats import Interval
from ..threat import Box
from ._cost import Cost, told


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch was trained on and came to.

    recipe, scale: that of its last step, and its share of the radius; loss, accuracy: of the points
    that were trained on; clean, robust: shares of held-out samples that are right, and that
    withstand PGD of 10 steps (an upper bound; None where there was no attacker yet), with these
    weights: the last, or their average; factor: times the seconds of standard training, from the
    first epoch on.
    """

    number: int
    recipe: str
    scale: float
    loss: float
    accuracy: float
    clean: float
    robust: float | None
    weights: str
    # A time is never the same twice.
    factor: float | None = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Overfitting to single steps: when, why, and what was done.

    epoch, back: when it was noticed and when the weights gone back to were taken, in epochs; lost:
    steps between; steps, until: of the PGD that went on instead, and the epoch it went on to.
    """

    epoch: float
    why: str
    back: float
    lost: int
    steps: int
    until: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch:.2f}: overfitting to single steps, {self.why}; back to epoch "
            f"{self.back:.2f} ({self.lost} steps lost), on with PGD-{self.steps} to epoch "
            f"{self.until:.2f}"
        )


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """A trained module with the weights that did best on what was held out.

    net: in eval mode, on raw input behind `preprocess`; epoch, weights: where its weights come
    from; clean, robust: shares of held-out samples, the latter under PGD of 10 steps, or a recipe's
    own attack, and so an upper bound, both of the best of many and so a little flattering: evaluate
    it on other data. certified: the share of them that CROWN over interval bounds proves, rounding
    taken off, and so a lower bound; of recipes that train for proofs. defences: what its recipe
    declares, such as distillation. notes: what is wrong with it, in sentences.
    """

    net: nn.Module
    domain: Box
    preprocess: Callable[[Tensor], Tensor] | None
    recipe: str
    epoch: int
    weights: str
    clean: Interval
    robust: Interval | None
    certified: Interval | None
    history: tuple[Epoch, ...]
    alarms: tuple[Alarm, ...]
    cost: Cost
    provenance: dict[str, Any]
    defences: tuple[Defence, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> TorchModel | Declared:
        """The module as a model to evaluate, with what its recipe declares."""
        model = TorchModel(self.net, domain=self.domain, preprocess=self.preprocess)
        return Declared(model, *self.defences) if self.defences else model

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, as plain values."""
        return {
            "recipe": self.recipe,
            "held_out": {
                "clean_accuracy": self.clean.to_dict(),
                "robust_accuracy_at_most": None if self.robust is None else self.robust.to_dict(),
                "certified_accuracy_at_least": (
                    None if self.certified is None else self.certified.to_dict()
                ),
            },
            "chosen": {"epoch": self.epoch, "weights": self.weights},
            "cost": told(self.cost),
            "notes": list(self.notes),
            "alarms": [{**asdict(alarm), "told": str(alarm)} for alarm in self.alarms],
            "history": [asdict(epoch) for epoch in self.history],
            "provenance": self.provenance,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write weights.safetensors and harden.json; raises OutputError."""
        folder = check_writable(folder)
        content = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        return [
            write(folder / "weights.safetensors", _weights(self.net)),
            write(folder / "harden.json", content.encode()),
        ]


def _weights(net: nn.Module) -> bytes:
    from safetensors.torch import save

    # Copies, since tensors that share their memory are refused.
    return save(
        {
            name: value.detach().cpu().contiguous().clone()
            for name, value in net.state_dict().items()
        }
    )
