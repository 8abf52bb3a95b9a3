"""Runbooks from their files, every mistake as one line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..._errors import ConfigError, OperationError, did_you_mean, listed, one_line
from ...config import read_yaml
from ..action import Action, actions
from ._references import check_references
from ._runbook import Runbook, RunbookStep, When


def runbooks(folder: Path) -> dict[str, Runbook]:
    """The built-in runbooks by name, and those of a folder, which replace them by their names.

    Raises OperationError with the file, the step, the key and the fix.
    """
    known = actions()
    built = files(__package__) / "builtin"
    found = {}
    for place in sorted(built.iterdir(), key=lambda one: one.name):
        if place.name.endswith(".yaml"):
            runbook = parse(place.read_text("utf-8"), place.name, known)
            found[runbook.name] = runbook
    own: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OperationError(f"{path} cannot be read ({one_line(error)}); mend it") from None
        runbook = parse(text, str(path), known)
        if runbook.name in own:
            raise OperationError(
                f"{path}: name is {runbook.name}, as in {own[runbook.name]}; give another"
            )
        own[runbook.name] = path
        found[runbook.name] = runbook
    return dict(sorted(found.items()))


def parse(text: str, where: str, known: dict[str, Action[Any]]) -> Runbook:
    """A runbook in YAML, checked against the actions that are known; raises OperationError."""
    try:
        raw = read_yaml(text)
    except ConfigError as error:
        raise OperationError(f"{where}: {error}") from None
    if not isinstance(raw, dict):
        raise OperationError(f"{where}: it is no mapping; write name, when and steps")
    try:
        found = Runbook.model_validate(raw)
    except ValidationError as error:
        raise OperationError(f"{where}: {_told(error, raw)}") from None
    for number, step in enumerate(found.steps, 1):
        place = f"{where}: step {number} ({one_line(step.name, 40)})"
        if step.action not in known:
            raise OperationError(
                f"{place}: action {one_line(step.action, 40)!r} is unknown"
                f"{did_you_mean(step.action, known) or ';'} the actions are {listed(known, 30)}"
            )
        check_arguments(known[step.action], step.arguments, place)
    return found


def check_arguments(action: Action[Any], arguments: dict[str, Any], place: str) -> None:
    """Raises OperationError for arguments that an action cannot have, references included."""
    try:
        action.told.model_validate(check_references(arguments))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        names = list(action.told.model_fields)
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(key, names) or ";"
            raise OperationError(
                f"{place}: with.{one_line(key, 40)} is unknown{hint} {action.name} takes "
                f"{listed(names)}"
            ) from None
        raise OperationError(
            f"{place}: with.{one_line(key, 40)}: {one_line(problem['msg'])}; {action.name} takes "
            f"{listed(names)}"
        ) from None
    except ValueError as error:
        raise OperationError(f"{place}: with: {error}") from None


def _told(error: ValidationError, raw: dict[Any, Any]) -> str:
    # A misspelt key is also a missing one: the misspelling is what helps.
    problems = sorted(
        error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"
    )
    problem = problems[0]
    loc = list(problem["loc"])
    place, keys = "", list(Runbook.model_fields)
    if loc[:1] == ["steps"] and len(loc) > 1 and isinstance(loc[1], int):
        place, loc = f"step {loc[1] + 1}: ", loc[2:]
        keys = ["with" if name == "arguments" else name for name in RunbookStep.model_fields]
    elif loc[:1] == ["when"] and len(loc) > 1:
        place, loc, keys = "when: ", loc[1:], list(When.model_fields)
    key = one_line(".".join(str(part) for part in loc) or "it", 60)
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(loc[-1], keys) or ";"
        return f"{place}unknown key {key!r}{hint} the keys here are {listed(keys, 20)}"
    if problem["type"] == "missing":
        return f"{place}key {key!r} is missing; the keys here are {listed(keys, 20)}"
    shown = one_line(repr(problem["input"]), 60)
    return f"{place}{key} is {shown}; {one_line(problem['msg'])}"
