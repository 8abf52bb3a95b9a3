"""The paths that are let through; everything else there is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["infer", "metadata", "health"]
Form = Literal["v2", "v1", "mlflow"]

_NAME = r"(?P<model>(?!\.+(?:/|$))[A-Za-z0-9._-]{1,128})"
_VERSION = r"(?:/versions/(?P<version>(?!\.+(?:/|$))[A-Za-z0-9._-]{1,128}))?"
_PATHS: tuple[tuple[str, str, Kind, Form], ...] = (
    ("POST", rf"/v2/models/{_NAME}{_VERSION}/infer", "infer", "v2"),
    ("POST", rf"/v1/models/{_NAME}:predict", "infer", "v1"),
    ("POST", r"/invocations", "infer", "mlflow"),
    ("GET", r"/v2/health/(?:live|ready)", "health", "v2"),
    ("GET", rf"/v2/models/{_NAME}{_VERSION}/ready", "health", "v2"),
    ("GET", r"/v2", "metadata", "v2"),
    ("GET", rf"/v2/models/{_NAME}{_VERSION}", "metadata", "v2"),
    ("GET", rf"/v1/models/{_NAME}", "health", "v1"),
    ("GET", r"/ping|/health|/version", "health", "mlflow"),
)
_COMPILED = [(method, re.compile(path), kind, form) for method, path, kind, form in _PATHS]
_ROOM = 1024


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a path asks for. model is empty where the path names none."""

    kind: Kind
    form: Form
    path: str
    model: str = ""
    version: str = ""


_found: dict[tuple[str, str], Route] = {}


def find_route(method: str, path: str) -> Route | None:
    """The route of a path as it was written, None where there is none.

    Escapes, dots and a query match nothing: what servers would read differently is not passed on.
    """
    route = _found.get((method, path))
    if route is not None:
        return route
    for wanted, pattern, kind, form in _COMPILED:
        match = pattern.fullmatch(path) if wanted == method else None
        if match:
            names = match.groupdict()
            route = Route(
                kind=kind,
                form=form,
                path=path,
                model=names.get("model") or "",
                version=names.get("version") or "",
            )
            if len(_found) < _ROOM:
                _found[method, path] = route
            return route
    return None
