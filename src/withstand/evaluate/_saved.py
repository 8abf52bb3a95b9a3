"""Reports that were written earlier."""

from __future__ import annotations

import dataclasses
import json
import types
import zipfile
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from .._errors import ConfigError, DataError, one_line
from ..data import Dataset
from ..models import Model, describe
from ..stats import Interval
from ..threat import Threat
from ._report import HIDDEN, SCHEMA, Report, Trust, _plain

_OF_ACCESS = ("access", "note")
_ENDS = ("low", "high", "value")


def read_report(place: str | Path) -> dict[str, Any]:
    """The content of the report.json at a path or in a folder; DataError for what is no report."""
    place = Path(place)
    path = place / "report.json" if place.is_dir() else place
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path} is not there; run `withstand evaluate` first, or give the folder of its report"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no report ({one_line(error, 80)}); give the folder of a report"
        ) from None
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        kind = told.get("schema") if isinstance(told, dict) else None
        raise DataError(
            f"{path} is no report of this kind (schema {one_line(repr(kind), 40)}, not {SCHEMA}); "
            "give the folder that `withstand evaluate` wrote"
        )
    return told


def load_trust(place: str | Path) -> Trust:
    """The findings in a report.json, at a path or in a folder; raises DataError."""
    told = read_report(place)
    try:
        return cast(Trust, _made(Trust, told["trust"]))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{place} holds no findings ({one_line(error, 80)}); evaluate again"
        ) from None


def load_report(folder: str | Path) -> Report:
    """The report that `Report.save` wrote to a folder, with its examples; raises DataError.

    Names of classes and features are only in report.html and are not read back.
    """
    told, path = read_report(folder), Path(folder) / "adversarial.npz"
    try:
        with np.load(path) as stored:
            x, x_adv, domain = stored["x"], stored["x_adv"], tuple(stored["domain"].tolist())
        hints = get_type_hints(Report)
        fields = [f.name for f in dataclasses.fields(Report) if f.name not in HIDDEN]
        # A report that was written before there were tables has no such reading.
        told.setdefault("business", None)
        # Nor does an early one tell what the training cost.
        told.setdefault("training", None)
        if told["business"] is not None and told["business"]["money"] is not None:
            # Nor did the first readings tell of groups.
            told["business"]["money"] = {"groups": None, **told["business"]["money"]}
        plain = {name: _made(hints[name], told[name]) for name in fields}
        trust = _made(Trust, told["trust"])
        report = Report(**plain, trust=trust, x=x, x_adv=x_adv, domain=domain)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{folder} does not hold a whole report ({one_line(error, 80)}); evaluate again"
        ) from None
    if len(x) != len(report.samples.status):
        raise DataError(
            f"{path} holds {len(x)} examples for {len(report.samples.status)} samples; evaluate "
            "again"
        )
    return report


def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _made(kind: Any, value: Any) -> Any:
    """A value of a type from its plain form; null is no number, infinity where one must be."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Interval:
        low, high, middle = (np.nan if value[k] is None else value[k] for k in _ENDS)
        return Interval(value=middle, low=low, high=high, n=value["n"])
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return kind(**{name: _made(hint, value[name]) for name, hint in _hints(kind).items()})
    if origin in (Union, types.UnionType):
        return None if value is None else _made(parts[0], value)
    if origin is tuple:
        return tuple(_made(parts[0], item) for item in value)
    if origin is np.ndarray:
        return np.asarray([np.inf if item is None else item for item in value])
    return np.inf if kind is float and value is None else value


def check_same(provenance: Any, model: Model, data: Dataset) -> None:
    """Raise ConfigError where a report's provenance is that of another model or of other data.

    What the model gives away may differ: that is the threat's.
    """
    try:
        pairs = (
            ("model", provenance["model"], describe(model)),
            ("data", provenance["data"]["digest"], data.provenance.digest),
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"the report does not say what was evaluated ({one_line(error)}); evaluate again"
        ) from None
    for name, then, given in pairs:
        if _itself(then) != _itself(given):
            raise ConfigError(
                f"the {name} is not the one of the report; give the configuration that was "
                "evaluated, or evaluate again"
            )


def check_same_threat(told: dict[str, Any], threat: Threat) -> None:
    """Raise ConfigError where a report's threat is another one."""
    now = threat.describe()
    # An infinite radius is null in a report.
    if _plainly(_plain({name: told[name] for name in now})) != _plainly(_plain(now)):
        raise ConfigError(
            "the threat is not the one of the report; give the configuration that was evaluated, "
            "or evaluate again"
        )


def _plainly(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _itself(told: Any) -> Any:
    """A description without what only tells how much a model gives away."""
    if isinstance(told, dict):
        return {key: _itself(item) for key, item in told.items() if key not in _OF_ACCESS}
    return [_itself(item) for item in told] if isinstance(told, list | tuple) else _plainly(told)
