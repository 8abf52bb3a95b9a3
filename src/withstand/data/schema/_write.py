"""A proposed table as a file for people, and the configuration that goes with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from ...config import model_lines
from ._candidates import Candidate
from ._profile import Column
from ._propose import Proposal

_HEAD = """\
# What the columns of {name} are, and what an attacker can do to them.
# Proposed from {rows:,} rows: read it, correct it, and take out what is not so.
#
# What no data can tell is what an attacker can do, so here it is the most: every column that
# differs between rows may become anything in its range, at no cost. For each column say
#   change: both | increase | decrease | none     in which direction
#   most: 30   share: 0.8                         how far, in its units or as a share
#   cost: 1    fixed: 5                           what a unit of it and any change of it cost
# and at the end what one row is worth. `withstand table check` finds rules that make no sense.

features:
"""
_TAIL = """
# most_changed: 4               # how many features an attacker can change in a row
# most_cost: 250                # what an attacker can spend on a row, in the units of costs
# stake: amount                 # the money at stake in a row: an expression of columns
# currency: EUR
"""
_CONFIG = """\
# Which model is attacked, on which rows, and what counts as withstanding.
# A key behind "# " is optional: take the "# " away to use it.

model:
{model}
  # threshold: 0.5                # from which score on a row is class 1

data:
  kind: {kind}
  path: {path}
  y: {target}
  table: {table}
  # only: [1]                     # attack only rows of these classes, such as the frauds
  # limit: 1000                   # only the first rows

threat:
  goal: untargeted                # or targeted, with target: 0 for frauds that pass
  access: scores                  # what the attacker sees: gradients | scores | labels | none
  # region: {{most_changed: 4, most_cost: 250}}  # tighter than the table's

evaluate:
  preset: standard                # smoke | standard | thorough
  seed: 0

gate:
  robust_accuracy: {{min: 0.5}}     # share still right under attack: what you need
  trust: {{min: amber}}             # can the number be believed: green | amber | red
"""
_WIDTH = 100


def table_text(proposal: Proposal) -> str:
    """The commented table.yaml of a proposal; the same for the same data."""
    made = {one.gives for one in proposal.derived}
    lines = [_HEAD.format(name=proposal.path.name, rows=proposal.rows)]
    for one in proposal.columns:
        lines += _feature(one, derived=one.name in made)
    if proposal.target is not None:
        lines.append(f"  # {_plain(proposal.target)} is the label, and no feature.\n")
    if proposal.choices:
        lines.append("\nchoices:  # of each group exactly one is 1: one choice, and one change\n")
        for group in proposal.choices:
            lines += _wrapped("  - {columns: [", [_flow(name) for name in group], "]}")
    if proposal.derived:
        lines.append("\nderived:  # computed from others, and never changed by themselves\n")
        for rule in proposal.derived:
            lines.append(
                f"  {_key(rule.gives or '')}: {_text(rule.value)}{_held(rule, proposal)}\n"
            )
    if proposal.relations:
        lines.append("\nrelations:  # hold in all rows, before and after an attack\n")
        for rule in proposal.relations:
            lines.append(f"  - {_text(rule.text)}{_held(rule, proposal)}\n")
    if proposal.more:
        lines.append(
            f"  # {proposal.more} more that hold are left out, with less to speak for them\n"
        )
    return "".join((*lines, _TAIL))


def config_text(
    proposal: Proposal, *, path: str, table: str, model: Mapping[str, Any] | None = None
) -> str:
    """The withstand.yaml that refers to the model, the data and the proposed table."""
    return _CONFIG.format(
        model=model_lines(**(model or {"model": "sklearn"})),
        kind="csv" if proposal.path.suffix.lower() == ".csv" else "parquet",
        path=_text(path),
        table=_text(table),
        target=_text(proposal.target or "label") + ("" if proposal.target else "  # name it"),
    )


def _feature(one: Column, *, derived: bool) -> list[str]:
    key = _key(one.name)
    if one.left_out is not None:
        return [f"  # {key}:{' ' * 4}# left out: it {_plain(one.left_out)}\n"]
    why = f"  # {_plain('; '.join(one.why))}" if one.why else ""
    told = one.derived if derived else one.told
    if not told:
        return [f"  {key}:{why}\n"]
    parts = [f"{name}: {_value(value)}" for name, value in told.items() if name != "values"]
    if "values" in told:
        before = "".join(f"{part}, " for part in parts)
        values = [_flow(value) for value in told["values"]]
        lines = _wrapped(f"  {key}: {{{before}values: [", values, "]}")
        return [*lines[:-1], lines[-1].rstrip("\n") + why + "\n"]
    return [f"  {key}: {{{', '.join(parts)}}}{why}\n"]


def _held(rule: Candidate, proposal: Proposal) -> str:
    broken = f"{round(rule.evidence):,} of {proposal.rows:,} rows would break it by chance"
    return f"  # {_plain('; '.join(part for part in (rule.why, broken) if part))}"


def _wrapped(start: str, parts: list[str], end: str) -> list[str]:
    """A list in flow style, broken into lines of a readable length."""
    lines, line = [], start
    for place, part in enumerate(parts):
        more = part + (", " if place + 1 < len(parts) else end)
        if len(line) + len(more) > _WIDTH and line.strip():
            lines.append(line.rstrip() + "\n")
            line = " " * 6
        line += more
    return [*lines, line + "\n"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def _key(name: str) -> str:
    return _flow(name)


def _flow(text: str) -> str:
    """Text in a flow list or as a key, in quotes where it would be read as something else."""
    simple = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.\- ]*[A-Za-z0-9_]|[A-Za-z_]", text)
    return text if simple and _same(text) else _quoted(text)


def _text(text: str) -> str:
    """Text as a value of its own."""
    simple = re.fullmatch(r"[A-Za-z_/][^\n\"{}\[\],&!|%@`]*", text)
    return text if simple and _same(text) else _quoted(text)


def _quoted(text: str) -> str:
    # Escaped is what YAML cannot hold; the two halves of an escaped emoji are not joined again.
    plain = json.dumps(text, ensure_ascii=False)
    return plain if _same(plain, text) else json.dumps(text, ensure_ascii=True)


def _same(written: str, text: str | None = None) -> bool:
    try:
        return bool(yaml.safe_load(written) == (written if text is None else text))
    except (yaml.YAMLError, ValueError):
        return False


def _plain(text: str) -> str:
    """For a comment, which ends with its line."""
    return " ".join(text.split())
