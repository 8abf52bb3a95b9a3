"""Changing single values of withstand.yaml, and nothing else in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..._errors import ConfigError
from ...config import load_config, parse_config
from .._files import write


def set_region(path: str | Path, *, eps: float, norm: str | None = None) -> str:
    """Write threat.region's eps, and norm if given, into a configuration; returns the old eps.

    Comments, order, quotes and line ends stay byte for byte, and the file is replaced at once or
    not at all. Raises ConfigError where the new file would not hold, or where the value is shared
    with another key through an anchor.
    """
    path = Path(path).resolve()
    load_config(path)
    text = path.read_bytes().decode()
    wanted: dict[str, Any] = {"eps": int(eps) if eps == int(eps) else eps}
    if norm is not None:
        wanted["norm"] = norm
    nodes = _nodes(path, text)
    changed = text
    for key in sorted(wanted, key=lambda key: -nodes[key].start_mark.index):
        start, end = nodes[key].start_mark.index, nodes[key].end_mark.index
        if text[start] in "&!":
            raise _shared(path, key)
        changed = changed[:start] + _scalar(wanted[key]) + changed[end:]
    _check(path, text, changed, wanted)
    mode = path.stat().st_mode
    write(path, changed.encode())
    path.chmod(mode)
    return str(nodes["eps"].value)


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"


def _nodes(path: Path, text: str) -> Mapping[str, yaml.ScalarNode]:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in ("threat", "region"):
        node = _values(node).get(key)
    found = _values(node)
    if not all(isinstance(found.get(key), yaml.ScalarNode) for key in ("norm", "eps")):
        raise ConfigError(
            f"{path}: threat.region does not hold its own norm and eps; write them there, or set "
            "them by hand"
        )
    return found


def _values(node: Any) -> dict[str, Any]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: value for key, value in pairs}


def _check(path: Path, before: str, after: str, wanted: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the new text differs in the wanted values alone, and holds."""
    expected, read = _plain(before), _plain(after)
    expected["threat"]["region"].update(wanted)
    # A small number may have been written in a form that YAML reads as text.
    given = read["threat"]["region"]
    given["eps"] = float(given["eps"])
    if expected != read:
        raise _shared(path, "eps")
    parse_config(read, where=f"{path}, as it would be")


def _plain(text: str) -> dict[str, Any]:
    """The values of a YAML text, none of them the same object as another."""
    values: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(text), default=str))
    return values


def _shared(path: Path, key: str) -> ConfigError:
    return ConfigError(
        f"{path}: threat.region.{key} has a tag or is shared with another key (an anchor); set it "
        "by hand"
    )
