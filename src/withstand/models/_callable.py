"""A Python function or a scikit-learn estimator as a model: queries only, no gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._errors import ModelError, answering
from ..threat import Access, Box
from ..threat.tabular import Table
from ._protocol import Gradient, Objective
from ._torch import largest


class FunctionModel:
    """A function of a numpy batch (B, ...) that returns scores (B, K) or labels (B,).

    estimator: what the function asks, where it stands for a scikit-learn estimator; digest: sha256
    (hex) of the file that it came from, where it did.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        returns: Literal["scores", "labels"] = "scores",
        domain: Sequence[float] | Box = (0.0, 1.0),
        estimator: Any = None,
    ) -> None:
        self.function, self.estimator = function, estimator
        self.digest: str | None = None
        self.access: Access = returns
        self.domain = domain if isinstance(domain, Box) else Box(domain[0], domain[1])

    def _call(self, x: Tensor) -> Any:
        # A copy, since the function may work in place and numpy would share the caller's memory.
        with answering(x):
            out = np.asarray(self.function(x.detach().cpu().numpy().copy()))
        if len(x) == 1 and out.ndim == 0:
            # A function that squeezes its answer drops the axis of a batch of one.
            out = out.reshape(1)
        if out.ndim not in (1, 2) or len(out) != len(x) or out.dtype.kind not in "biuf":
            raise ModelError(
                f"the model answered {len(x)} inputs with {out.dtype} of shape {out.shape}; it "
                "must return one row of numbers for each input"
            )
        return out

    def scores(self, x: Tensor) -> Tensor:
        """Scores (B, K) of raw input x (B, ...); 1 query for each row."""
        if self.access == "labels":
            raise ModelError("this model returns labels only; attack it with access: labels")
        out = self._call(x)
        if out.size == len(out) and out.dtype.kind in "biu":
            raise ModelError(
                "the model answered with one whole number for each input, which looks like labels; "
                "set access to labels, or return scores with decimals"
            )
        scores = torch.as_tensor(out, dtype=torch.float32, device=x.device)
        return scores[:, None] if scores.ndim == 1 else scores

    def labels(self, x: Tensor) -> Tensor:
        """Class (B,) of raw input x (B, ...); 1 query for each row."""
        if self.access == "scores":
            return largest(self.scores(x))
        out = self._call(x)
        if not (np.isfinite(out) & (out == np.round(out))).all():
            raise ModelError(
                "the model answered with fractions or NaN where labels were expected; return "
                "whole numbers, or set its access to scores"
            )
        return torch.as_tensor(out.astype(np.int64), device=x.device)

    def gradient(self, x: Tensor, objective: Objective) -> Gradient:
        """There is none: raises ModelError."""
        raise ModelError("this model has no gradients; set access to scores or labels")

    def jacobian(self, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """There is none: raises ModelError."""
        raise ModelError("this model has no gradients; set access to scores or labels")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing to hold: a function has no state that we could know of."""
        yield


def sklearn_model(
    estimator: Any, *, domain: Sequence[float] | Box, table: Table | None = None
) -> FunctionModel:
    """A fitted scikit-learn estimator over rows of features (B, d).

    One that was fitted to named columns gets them as a data frame, in the order of its own names;
    table: what they are, so that categories come as texts. It answers with log-probabilities where
    it has `predict_proba`, with its decision function where it is linear, with its prediction where
    it has no `classes_` (a regression), else with labels, each as the index into `classes_`.
    """

    names = getattr(estimator, "feature_names_in_", None)
    if find_spec("pandas") is None and table is None:
        # Most estimators take plain rows too.
        names = None

    def rows(x: Any) -> Any:
        flat = x.reshape(len(x), -1)
        # Another number of columns is the estimator's to refuse.
        if names is None or (table is None and flat.shape[1] != len(names)):
            return flat
        from pandas import DataFrame

        return DataFrame(flat, columns=names) if table is None else DataFrame(table.decode(flat))

    if hasattr(estimator, "predict_proba"):

        def scores(x: Any) -> Any:
            # The smallest normal float keeps the logarithm of an impossible class finite.
            return np.log(np.maximum(estimator.predict_proba(rows(x)), np.finfo(np.float32).tiny))

        return FunctionModel(scores, domain=domain, estimator=estimator)

    if not hasattr(estimator, "classes_"):
        return FunctionModel(
            lambda x: estimator.predict(rows(x)), domain=domain, estimator=estimator
        )

    if _linear(estimator):

        def margins(x: Any) -> Any:
            found = estimator.decision_function(rows(x))
            return np.stack((np.zeros_like(found), found), 1) if found.ndim == 1 else found

        return FunctionModel(margins, domain=domain, estimator=estimator)

    def labels(x: Any) -> Any:
        return np.searchsorted(estimator.classes_, estimator.predict(rows(x)))

    return FunctionModel(labels, returns="labels", domain=domain, estimator=estimator)


def _linear(estimator: Any) -> bool:
    """Whether its answer is the class of its largest margin, which votes of pairs need not be."""
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else estimator
    known = hasattr(last, "coef_") and not hasattr(last, "dual_coef_")
    return known and hasattr(estimator, "decision_function")
