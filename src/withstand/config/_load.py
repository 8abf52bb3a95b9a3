"""Reading withstand.yaml, every failure as one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .._errors import ConfigError, did_you_mean, listed, one_line
from ._guard import GuardConfig
from ._operations import Operations
from ._sections import Config
from ._table import TableConfig
from ._url import without_secrets
from ._yaml import read_yaml

_Wanted = TypeVar("_Wanted", bound=BaseModel)


def load_config(
    path: str | Path = "withstand.yaml",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """The configuration in a YAML file; raises ConfigError with the key and the fix.

    overrides: keys by section that replace those of the file, unless they are None.
    """
    raw = _plain(Path(path))
    if isinstance(raw, dict):
        for section, given in (overrides or {}).items():
            here = raw.get(section)
            wanted = {key: value for key, value in given.items() if value is not None}
            if wanted and isinstance(here, dict | None):
                raw[section] = {**(here or {}), **wanted}
    return parse_config(raw, where=str(path))


def load_guard(path: str | Path = "withstand.yaml") -> GuardConfig:
    """The section `guard` of a YAML file; raises ConfigError with the key and the fix.

    A guard is often where model and data are not, so that the other sections are not looked at.
    """
    raw = _plain(Path(path))
    told = raw.get("guard") if isinstance(raw, dict) else None
    if not isinstance(told, dict):
        _known_keys(path, raw, ("guard",))
        raise ConfigError(
            f"{path}: key 'guard' is missing; add it, e.g. "
            "guard: {upstream: http://127.0.0.1:8080, keys: keys.json}"
        )
    return _parsed(GuardConfig, _with_model(told, raw.get("model")), str(path), ("guard",))


def load_operations(path: str | Path = "withstand.yaml") -> Operations:
    """The sections of a YAML file for a model in service; raises ConfigError.

    Like the guard, they are often where model and data are not.
    """
    raw = _plain(Path(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: the file is no mapping; write the sections guard and monitor")
    _known_keys(path, raw, tuple(Operations.model_fields))
    told = {key: raw[key] for key in Operations.model_fields if raw.get(key) is not None}
    if "guard" in told:
        told["guard"] = _with_model(told["guard"], raw.get("model"))
    return _parsed(Operations, told, str(path), ())


def load_table(path: str | Path = "table.yaml") -> TableConfig:
    """What a YAML file says of a table; raises ConfigError with the key and the fix."""
    path = Path(path)
    try:
        raw = _plain(path)
    except ConfigError:
        if path.exists():
            raise
        raise ConfigError(
            f"{path} not found; write it, or run `withstand init --from data.csv`"
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: the file is no mapping; write the section features")
    return _parsed(TableConfig, raw, str(path), ())


def _known_keys(path: str | Path, raw: Any, wanted: tuple[str, ...]) -> None:
    """Raises ConfigError for a section that looks like a misspelt one of those wanted."""
    for key in raw if isinstance(raw, dict) else ():
        if key not in Config.model_fields and (hint := did_you_mean(key, wanted)):
            raise ConfigError(f"{path}: unknown key {key!r}{hint}")


def _with_model(told: Any, model: Any) -> Any:
    """A section guard whose detectors name the model that they were fitted to."""
    if not isinstance(told, dict):
        return told
    found = dict(told)
    if isinstance(models := found.get("models"), dict):
        found["models"] = {name: _with_model(one, model) for name, one in models.items()}
    if isinstance(detectors := found.get("detectors"), list) and model is not None:
        found["detectors"] = [
            {"model": model, **one} if isinstance(one, dict) else one for one in detectors
        ]
    return found


def _plain(path: Path) -> Any:
    """What a file holds, as plain values."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path} not found; run `withstand init` to write one") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); give the path of a YAML file"
        ) from None
    try:
        return read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_config(raw: object, where: str = "configuration") -> Config:
    """The configuration in plain values, as YAML gives them; `where` names it in errors."""
    if not isinstance(raw, Mapping):
        is_what = "is empty" if raw is None else f"is a {type(raw).__name__}, not a mapping"
        raise ConfigError(
            f"{where}: the file {is_what}; write the sections model, data and threat, "
            "or run `withstand init`"
        )
    return _parsed(Config, raw, where, ())


def _parsed(
    section: type[_Wanted], raw: Mapping[str, Any], where: str, place: tuple[str, ...]
) -> _Wanted:
    """A section in plain values that stands at a place in the file."""
    try:
        return section.model_validate(dict(raw))
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling is what helps.
        problems = error.errors(include_url=False)
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        first = {**problems[0], "loc": (*place, *problems[0]["loc"])}
        root = section if section is TableConfig else Config
        raise ConfigError(one_line(f"{where}: {_told(first, root)}", most=600)) from None


def _told(problem: Mapping[str, Any], root: type[BaseModel]) -> str:
    """A problem in words; root: what the whole file holds."""
    loc, kind, value = problem["loc"], problem["type"], problem["input"]
    context: Mapping[str, Any] = problem.get("ctx", {})
    key = _dotted(loc)
    if kind == "extra_forbidden":
        allowed = _keys(root, loc[:-1])
        hint = did_you_mean(loc[-1], allowed)
        return f"unknown key {key!r}{hint or ';'} the keys here are {listed(allowed, 20)}"
    if kind == "missing":
        field = _field(root, loc)
        examples = field.examples if field else None
        hint = f", e.g. {loc[-1]}: {examples[0]}" if examples else ""
        hint = (
            hint or f" (its keys are {listed(_keys(root, loc), 20)})" if _keys(root, loc) else hint
        )
        return f"key {key!r} is missing; add it{hint}"
    if kind == "key":
        return f"{key}.{context['key']} {context['text']}".lstrip(".")
    shown = f"{key} is {one_line(without_secrets(repr(value)), 60)}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"{shown}{did_you_mean(value, allowed) or ';'} it is one of {', '.join(allowed)}"
    if kind == "value_error":
        return f"{shown}; {context['error']}"
    if kind == "string_type":
        if isinstance(value, bool):
            return f"{shown}; YAML reads bare yes, no, on, off as true or false; put it in quotes"
        return f"{shown}; give text, in quotes if it looks like a number"
    if kind == "bool_type":
        return f"{shown}; give true or false"
    if kind == "dict_type":
        return f"{shown}; give a mapping by name"
    if kind == "list_type":
        return f"{shown}; give a list, each entry after a dash"
    if kind == "model_type":
        return f"{shown}; give a mapping with the keys {listed(_keys(root, loc), 20)}"
    return f"{shown}; {problem['msg']}"


def _dotted(loc: tuple[str | int, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return "".join(parts).lstrip(".")


def _field(root: type[BaseModel], loc: tuple[str | int, ...]) -> FieldInfo | None:
    section: type[BaseModel] | None = root
    field: FieldInfo | None = None
    named = False
    for part in loc:
        if isinstance(part, int) or named:
            # An entry of a list, or of a mapping by name, is what all entries are.
            named = False
            continue
        field = section.model_fields.get(part) if section else None
        section = _section(field)
        named = field is not None and get_origin(field.annotation) is dict
    return field


def _section(field: FieldInfo | None) -> type[BaseModel] | None:
    if field is None:
        return None
    choices = [field.annotation]
    for choice in choices:
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
        choices += get_args(choice)
    return None


def _keys(root: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    section = _section(_field(root, loc)) if loc else root
    return list(section.model_fields) if section else []
