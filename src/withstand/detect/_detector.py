"""A fitted detector: its score, its threshold, its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import DataError, ModelError, one_line
from .._version import __version__
from ..data import Dataset
from ..evaluate import check_writable, write
from ..models import Model, describe, network_of
from ._contract import NEEDS, Method, Observation, State
from ._observe import Observer, check_layers, default_layers
from ._registry import made, settings_of
from ._threshold import Threshold, threshold

SCHEMA = "urn:withstand:detector:1"
_FILES = ("detector.json", "state.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """A method fitted to a model and its benign inputs, as `fit` makes it.

    layers: what is looked at in the model's network. threshold: None until it is calibrated.
    """

    method: Method
    model: Model
    layers: tuple[str, ...]
    state: State
    threshold: Threshold | None = None

    @property
    def observer(self) -> Observer:
        """What makes observations for `score_seen`."""
        return Observer(model=self.model, needs=self.method.needs, layers=self.layers)

    def score(self, x: Tensor, *, batch_size: int = 256) -> Tensor:
        """Suspicion (B,) of raw input x (B, ...), higher is more suspicious.

        With the graph that leads back to x if x wants one. 1 forward, and the method's `passes`.
        """
        with self._ready():
            if torch.is_grad_enabled() and x.requires_grad:
                return self.score_seen(self.observer(x))
            with torch.no_grad():
                parts = torch.split(x, batch_size)
                return torch.cat([self.score_seen(self.observer(part)) for part in parts])

    def score_seen(self, seen: Observation) -> Tensor:
        """Suspicion (B,) of what was observed; for callers who have made the forward themselves."""
        return self.method.score(self.state, seen)

    def suspicion(self, x: Tensor) -> Tensor:
        """By how much the score (B,) exceeds the threshold; flagged where it is above 0."""
        return self.score(x) - self._threshold.value

    def flags(self, x: Tensor) -> Tensor:
        """Which of the inputs x (B, ...) are flagged, (B,)."""
        return self.score(x) > self._threshold.value

    def calibrate(
        self, benign: Dataset | Tensor, *, fpr: float = 0.01, confidence: float = 0.95
    ) -> Detector:
        """The detector with the threshold that `threshold` gives for held-out benign inputs.

        Raises DataError for too few, or for inputs that make scores which are not finite.
        """
        scores = self.score(inputs_of(benign)).cpu().numpy()
        return replace(self, threshold=threshold(scores, fpr=fpr, confidence=confidence))

    @property
    def _threshold(self) -> Threshold:
        if self.threshold is None:
            raise DataError(
                "the detector has no threshold yet; calibrate it on held-out benign inputs"
            )
        return self.threshold

    @contextmanager
    def _ready(self) -> Iterator[None]:
        net = network_of(self.model)
        # Holding copies buffers, which single inputs would feel.
        still = net is not None and not any(module.training for module in net.modules())
        with nullcontext() if still else self.model.held():
            yield

    def to_dict(self) -> dict[str, Any]:
        """All but the state, as plain values."""
        return {
            "schema": SCHEMA,
            "withstand": __version__,
            "method": type(self.method).__name__,
            "settings": settings_of(self.method),
            "layers": list(self.layers),
            "model": describe(self.model),
            "threshold": None if self.threshold is None else self.threshold.to_dict(),
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write detector.json and state.safetensors; raises OutputError."""
        from safetensors.torch import save

        folder = check_writable(folder)
        state = {name: value.cpu() for name, value in self.state.items()}
        told = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        contents = (told.encode(), save(state))
        # The description comes last: a folder without one holds no detector.
        pairs = reversed(list(zip(_FILES, contents, strict=True)))
        return [write(folder / name, content) for name, content in pairs]


def fit(
    method: Method,
    model: Model,
    benign: Dataset | Tensor,
    y: Tensor | None = None,
    *,
    batch_size: int = 256,
) -> Detector:
    """Fit a method to a model and benign inputs x (N, ...), with their labels (N,) where known.

    None of them may serve for `Detector.calibrate` afterwards. Raises DataError for too few inputs
    and ModelError for a model that does not give what the method needs.
    """
    x = inputs_of(benign)
    if isinstance(benign, Dataset) and benign.y.dtype == np.int64:
        y = torch.from_numpy(benign.y)
    layers = _layers(method, model, x)
    if NEEDS.index(method.needs) > 0 and model.access in ("labels", "none"):
        raise ModelError(
            f"{type(method).__name__} needs {method.needs} and the model gives {model.access}; use "
            "a method that needs input only"
        )
    observer = Observer(model=model, needs=method.needs, layers=layers)
    with model.held():
        learned = method.fit(observer.over(x, y, batch_size))
    # As they come back from a file, so that a loaded detector gives the same scores to the bit.
    state = {name: value.detach().contiguous() for name, value in learned.items()}
    return Detector(method=method, model=model, layers=layers, state=state)


def _layers(method: Method, model: Model, x: Tensor) -> tuple[str, ...]:
    if method.layers is None:
        return default_layers(model, x[:1])
    if method.layers:
        check_layers(model, x[:1], method.layers)
    return method.layers


def load(folder: str | Path, model: Model) -> Detector:
    """The detector that was saved for this model; raises DataError for damaged or other files."""
    from safetensors.torch import load as load_tensors

    folder = Path(folder)
    try:
        told = json.loads((folder / _FILES[0]).read_text())
        state = load_tensors((folder / _FILES[1]).read_bytes())
        kept = told["threshold"]
        detector = Detector(
            method=made(told["method"], told["settings"]),
            model=model,
            layers=tuple(told["layers"]),
            state=state,
            threshold=None if kept is None else Threshold(**kept),
        )
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is not there; fit a detector first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the detector in {folder} cannot be read ({type(error).__name__}: "
            f"{one_line(error, 80)}); fit it again"
        ) from None
    if told["model"] != describe(model):
        raise DataError(
            f"the detector in {folder} was fitted to another model; fit it again, or give the "
            "model that it belongs to"
        )
    return detector


def inputs_of(benign: Dataset | Tensor) -> Tensor:
    """The inputs (N, ...) of a data set, or the tensor itself; raises DataError for none."""
    x = torch.from_numpy(benign.x) if isinstance(benign, Dataset) else benign
    if len(x) == 0:
        raise DataError("0 benign inputs; give those that the model meets in production")
    return x
