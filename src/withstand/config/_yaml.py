"""YAML that means one thing: read safely, no key twice, all keys text."""

from __future__ import annotations

from typing import Any

import yaml

from .._errors import ConfigError, one_line


class _Loader(yaml.SafeLoader):
    """A safe loader for which duplicate keys and keys that are not text are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"line {line}: key {_name(key)} is not text; put it in quotes")
            if key.value in seen:
                raise ConfigError(
                    f"line {line}: key {key.value!r} is there twice (first on line "
                    f"{seen[key.value]}); take one out"
                )
            seen[key.value] = line
        return super().construct_mapping(node, deep)


def _name(key: yaml.Node) -> str:
    if isinstance(key, yaml.ScalarNode):
        return repr(one_line(key.value))
    return "that is a list" if isinstance(key, yaml.SequenceNode) else "that is a mapping"


def read_yaml(text: str) -> Any:
    """What a text holds, as plain values; raises ConfigError with the line and the fix."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown line"
        what = one_line(error.problem or error.context or "syntax error")
        raise ConfigError(f"YAML error at {line}: {what}; correct the syntax there") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not readable as YAML ({one_line(error)}); correct it") from None
