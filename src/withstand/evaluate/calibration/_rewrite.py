"""Changing single values of withstand.yaml and of a table's file, and nothing else in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..._errors import ConfigError
from ...config import load_config, load_table, parse_config
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
    _replace(path, changed)
    return str(nodes["eps"].value)


def set_most(path: str | Path, most: Mapping[str, float]) -> dict[str, str | None]:
    """Write the largest change of features into a table's file; returns what was there, if any.

    As `set_region` otherwise. Raises ConfigError where a feature is not in the file by itself.
    """
    path = Path(path).resolve()
    load_table(path)
    text = path.read_bytes().decode()
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    nodes, expected = _values(_values(root).get("features")), _plain(text)
    edits, old = [], {}
    for name, value in most.items():
        if name not in nodes:
            raise ConfigError(f"{path}: features has no {name}; add it")
        edits.append(_most_edit(nodes[name], _scalar(value), _line_end(text)))
        before = _values(nodes[name]).get("most")
        old[name] = None if before is None else str(before.value)
        expected["features"][name] = {**(expected["features"][name] or {}), "most": value}
    changed = text
    for start, end, words in sorted(edits, reverse=True):
        changed = changed[:start] + words + changed[end:]
    try:
        read = _plain(changed)
        for name in most:
            # A small number may have been written in a form that YAML reads as text.
            read["features"][name]["most"] = float(read["features"][name]["most"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        read = {}
    if read != expected:
        raise ConfigError(
            f"{path}: features has tags or values that are shared (an anchor); set most by hand"
        )
    _replace(path, changed)
    return old


def _most_edit(node: Any, value: str, end: str) -> tuple[int, int, str]:
    """Where of the text a feature's `most` is to stand, and how it is written there."""
    before, start = _values(node).get("most"), node.start_mark
    if before is not None:
        return before.start_mark.index, before.end_mark.index, value
    if not isinstance(node, yaml.MappingNode):
        space = "" if node.value else " "
        return start.index, node.end_mark.index, f"{space}{{most: {value}}}"
    if not node.flow_style:
        return start.index, start.index, f"most: {value}{end}{' ' * start.column}"
    if not node.value:
        return start.index, node.end_mark.index, f"{{most: {value}}}"
    last = node.value[-1][1].end_mark.index
    return last, last, f", most: {value}"


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode
    write(path, text.encode())
    path.chmod(mode)


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
