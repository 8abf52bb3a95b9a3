"""A fitted detector: its score, its threshold, its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._errors import DataError, ModelError, one_line
from .._version import __version__
from ..data import Dataset
from ..evaluate import check_writable, write
from ..models import Model, describe, network_of
from ._contract import NEEDS, Counted, Method, Observation, State
from ._observe import Observer, check_layers, counting, default_layers
from ._registry import made, settings_of
from .calibration._by_class import by_class as thresholds_by_class
from .calibration._power import Power
from .calibration._recalibration import Recalibration, recalibration
from .calibration._threshold import Threshold, threshold
from .methods._answers import two

Array = NDArray[Any]

SCHEMA = "urn:withstand:detector:3"
_FILES = ("detector.json", "state.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """A method fitted to a model and its benign inputs, as `fit` makes it.

    layers: what is looked at in the model's network. threshold: None until it is calibrated.
    power: what was found out about it by `powered`. history: the thresholds that were replaced.
    """

    method: Method
    model: Model
    layers: tuple[str, ...]
    state: State
    threshold: Threshold | None = None
    power: Power | None = None
    history: tuple[Recalibration, ...] = ()

    @cached_property
    def observer(self) -> Observer:
        """What makes observations for `score_seen`."""
        return Observer(model=self.model, needs=self.method.needs, layers=self.layers)

    def score(self, x: Tensor, *, batch_size: int = 256) -> Tensor:
        """Suspicion (B,) of raw input x (B, ...), higher is more suspicious.

        With the graph that leads back to x if x wants one. 1 forward, and the method's `passes`.
        """
        return self._each(self.score_seen, x, batch_size)

    def score_seen(self, seen: Observation) -> Tensor:
        """Suspicion (B,) of what was observed; for callers who have made the forward themselves."""
        return self.method.score(self.state, seen)

    def suspicion(self, x: Tensor, *, batch_size: int = 256) -> Tensor:
        """By how much the score (B,) exceeds the threshold of the predicted class, as `score` is.

        An input is flagged where it is above 0.
        """
        return self._each(self.suspicion_seen, x, batch_size)

    def suspicion_seen(self, seen: Observation) -> Tensor:
        """By how much the score (B,) of what was observed exceeds the threshold."""
        score, kept = self.score_seen(seen), self._threshold
        if not kept.classes:
            return score - kept.value
        classes = self._labels(seen)
        # Not only those of this batch: an exported graph keeps the table as it is made here.
        answered = two(seen.scores).shape[1] or int(classes.max()) + 1
        known = range(max(*kept.classes, answered - 1) + 1)
        values = score.new_tensor([kept.value_of(label) for label in known])
        return score - values[classes]

    def flags(self, x: Tensor) -> Tensor:
        """Which of the inputs x (B, ...) are flagged, (B,)."""
        return self.suspicion(x) > 0

    def calibrate(
        self,
        benign: Dataset | Tensor,
        *,
        fpr: float = 0.01,
        confidence: float = 0.95,
        by_class: bool = False,
        progress: Counted | None = None,
    ) -> Detector:
        """The detector with the threshold that `threshold` gives for held-out benign inputs.

        by_class: with those that `by_class` gives, where a model tells classes. Raises DataError
        for too few, or for inputs that make scores which are not finite.
        """
        scores, classes = self.scores_and_labels(inputs_of(benign), by_class, progress=progress)
        return replace(self, threshold=_threshold_of(scores, classes, fpr, confidence))

    def recalibrate(
        self,
        benign: Dataset | Tensor,
        *,
        fpr: float | None = None,
        confidence: float | None = None,
        by_class: bool | None = None,
    ) -> Detector:
        """The detector with a new threshold, from new benign inputs, and a record of the old one.

        What is not given stays as it was. Raises DataError as `calibrate` does.
        """
        old = self._threshold
        per_class = bool(old.classes) if by_class is None else by_class
        scores, classes = self.scores_and_labels(inputs_of(benign), per_class or bool(old.classes))
        new = _threshold_of(
            scores,
            classes if per_class else None,
            old.fpr if fpr is None else fpr,
            old.confidence if confidence is None else confidence,
        )
        time = datetime.now(UTC).isoformat(timespec="seconds")
        record = recalibration(old, new, scores, classes, time)
        return replace(self, threshold=new, history=(*self.history, record))

    def scores_and_labels(
        self,
        x: Tensor,
        labels: bool = True,
        *,
        batch_size: int = 256,
        progress: Counted | None = None,
    ) -> tuple[Array, Array | None]:
        """Suspicion (N,) and, if asked for, the predicted classes (N,) of raw input x (N, ...)."""
        scores, classes = [], []
        with self._ready(), torch.no_grad():
            for part in counting(torch.split(x, batch_size), progress):
                seen = self.observer(part)
                scores.append(self.score_seen(seen).cpu())
                classes += [self._labels(seen).cpu()] if labels else []
        return torch.cat(scores).numpy(), torch.cat(classes).numpy() if labels else None

    def _labels(self, seen: Observation) -> Tensor:
        """The predicted classes (B,); 1 forward more where the scores were not looked at."""
        if not seen.scores.shape[1]:
            if self.model.access == "none":
                raise ModelError("the model tells no classes; calibrate without by_class")
            return self.model.labels(seen.x.detach())
        return two(seen.scores).argmax(1)

    def _each(self, told: Callable[[Observation], Tensor], x: Tensor, batch_size: int) -> Tensor:
        with self._ready():
            if torch.is_grad_enabled() and x.requires_grad:
                return told(self.observer(x))
            with torch.set_grad_enabled(False):
                if len(x) <= batch_size:
                    return told(self.observer(x))
                return torch.cat([told(self.observer(part)) for part in torch.split(x, batch_size)])

    @property
    def _threshold(self) -> Threshold:
        if self.threshold is None:
            raise DataError(
                "the detector has no threshold yet; calibrate it on held-out benign inputs"
            )
        return self.threshold

    def _ready(self) -> AbstractContextManager[None]:
        # Holding copies buffers, which single inputs would feel.
        still = self._modules and True not in [module.training for module in self._modules]
        return nullcontext() if still else self.model.held()

    @cached_property
    def _modules(self) -> tuple[nn.Module, ...]:
        net = network_of(self.model)
        return () if net is None else tuple(net.modules())

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
            "power": None if self.power is None else self.power.to_dict(),
            "history": [record.to_dict() for record in self.history],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write detector.json and state.safetensors; raises OutputError."""
        from safetensors.torch import save

        folder = check_writable(folder)
        state = {name: value.cpu() for name, value in self.state.items()}
        tensors = save(state)
        told = {**self.to_dict(), "state": sha256(tensors).hexdigest()}
        contents = ((json.dumps(told, indent=2, allow_nan=False) + "\n").encode(), tensors)
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
    progress: Counted | None = None,
) -> Detector:
    """Fit a method to a model and benign inputs x (N, ...), with their labels (N,) where known.

    None of them may serve for `Detector.calibrate` afterwards. progress: told how many inputs were
    looked at, after which the method itself still has to learn from them. Raises DataError for too
    few inputs and ModelError for a model that does not give what the method needs.
    """
    x = inputs_of(benign)
    if isinstance(benign, Dataset) and benign.y.dtype == np.int64:
        y = torch.from_numpy(benign.y)
    method, layers = _layers(method, model, x)
    if NEEDS.index(method.needs) > 0 and model.access in ("labels", "none"):
        raise ModelError(
            f"{type(method).__name__} needs {method.needs} and the model gives {model.access}; use "
            "a method that needs input only"
        )
    observer = Observer(model=model, needs=method.needs, layers=layers)
    with model.held():
        learned = method.fit(observer.over(x, y, batch_size, progress))
    # As they come back from a file, so that a loaded detector gives the same scores to the bit.
    state = {name: value.detach().contiguous() for name, value in learned.items()}
    return Detector(method=method, model=model, layers=layers, state=state)


def _layers(method: Method, model: Model, x: Tensor) -> tuple[Method, tuple[str, ...]]:
    if method.layers is None:
        method = method.at(default_layers(model, x[:1]))
    layers = method.layers or ()
    if layers:
        check_layers(model, x[:1], layers)
    return method, layers


def load(folder: str | Path, model: Model) -> Detector:
    """The detector that was saved for this model; raises DataError for damaged or other files."""
    from safetensors.torch import load as load_tensors

    folder = Path(folder)
    try:
        told = json.loads((folder / _FILES[0]).read_text())
        if told["schema"] != SCHEMA:
            raise ValueError(f"its form is {told['schema']}, read is {SCHEMA}")
        tensors = (folder / _FILES[1]).read_bytes()
        if sha256(tensors).hexdigest() != told["state"]:
            raise ValueError(f"{_FILES[1]} is of another detector than {_FILES[0]}")
        state = load_tensors(tensors)
        kept, found = told["threshold"], told["power"]
        detector = Detector(
            method=made(told["method"], told["settings"]),
            model=model,
            layers=tuple(told["layers"]),
            state=state,
            threshold=None if kept is None else Threshold.from_dict(kept),
            power=None if found is None else Power.from_dict(found),
            history=tuple(Recalibration.from_dict(each) for each in told["history"]),
        )
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is not there; fit a detector first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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


def _threshold_of(scores: Array, classes: Array | None, fpr: float, confidence: float) -> Threshold:
    if classes is None:
        return threshold(scores, fpr=fpr, confidence=confidence)
    return thresholds_by_class(scores, classes, fpr=fpr, confidence=confidence)


def inputs_of(benign: Dataset | Tensor) -> Tensor:
    """The inputs (N, ...) of a data set, or the tensor itself; raises DataError for none."""
    x = torch.from_numpy(benign.x) if isinstance(benign, Dataset) else benign
    if len(x) == 0:
        raise DataError("0 benign inputs; give those that the model meets in production")
    return x
