"""A model held to limits in one call, as the pytest fixture does."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from .._errors import ConfigError, did_you_mean, listed
from ..config import GateConfig, Limit
from ..data import Dataset, from_arrays
from ..evaluate import Report, evaluate
from ..models import Model, TorchModel
from ..threat import L0, L1, L2, Linf, Threat
from ._judge import Gate
from ._report import judge_report

_BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
_AT_MOST = ("fooling_rate",)
_AT_LEAST = ("robust_accuracy", "clean_accuracy")


def hold(
    model: Any,
    data: Any,
    *,
    eps: float,
    norm: str = "linf",
    access: Any = "gradients",
    preset: str = "standard",
    seed: int = 0,
    trust: str = "amber",
    **limits: float,
) -> tuple[Report, Gate]:
    """Evaluate a model under a threat and hold it to limits: the report, and the gate.

    model: a Model, or a torch module whose inputs lie in [0, 1]. data: a Dataset, or x (N, ...) and
    y (N,). limits: robust_accuracy and clean_accuracy at least, fooling_rate at most; the interval
    has to be within. Raises ConfigError for what is no limit.
    """
    if norm not in _BALLS:
        raise ConfigError(f"norm is {norm!r}; it is one of {', '.join(_BALLS)}")
    threat = Threat(region=_BALLS[norm](eps), access=access)
    asked = _asked(limits, trust)
    report = evaluate(
        model if isinstance(model, Model) else TorchModel(model),
        data if isinstance(data, Dataset) else from_arrays(*data),
        threat,
        preset=preset,
        seed=seed,
    )
    return report, judge_report(report.to_dict(), asked)


def _asked(limits: dict[str, float], trust: str) -> GateConfig:
    names = (*_AT_LEAST, *_AT_MOST)
    for name in limits:
        if name not in names:
            raise ConfigError(
                f"robustness has no limit {name!r}{did_you_mean(name, names) or ';'} the limits "
                f"are {listed(names)}"
            )
    if not limits:
        raise ConfigError("robustness asks for nothing; give a limit, e.g. robust_accuracy=0.8")
    try:
        return GateConfig.model_validate(
            {
                name: Limit.model_validate({"max" if name in _AT_MOST else "min": share})
                for name, share in limits.items()
            }
            | {"trust": {"min": trust}}
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ConfigError(f"robustness: {problem['input']!r}: {problem['msg']}") from None
