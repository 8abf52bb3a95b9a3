"""The gate as SARIF 2.1.0: limits and doubts are rules, public catalogues are taxonomies."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from .._version import __version__
from ..evaluate import printable
from ._judge import Gate

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
# An open limit is a warning of kind fail, not of kind open: that has no level, and viewers hide it.
_LEVEL = {"fail": "error", "inconclusive": "warning", "red": "warning", "amber": "note"}


def sarif(gate: Gate, config: str | Path = "withstand.yaml") -> str:
    """What did not pass, and each doubt about the number, as results in the configuration.

    Limits that passed are rules without a result, since viewers show every result as an alert.
    """
    config = Path(config)
    catalogues = _catalogues(gate)
    relations = [
        {
            "target": {"id": taxon["id"], "toolComponent": _named(catalogues, name)},
            "kinds": ["relevant"],
        }
        for name, taxa in catalogues.items()
        for taxon in taxa
    ]
    rules, results = [], []
    for rule, meaning, verdict, words in [*_limits(gate), *_doubts(gate)]:
        text = {"text": printable(meaning)}
        rules.append({"id": rule, "shortDescription": text, "relationships": relations})
        if verdict in _LEVEL:
            results.append(
                {
                    "ruleId": rule,
                    "ruleIndex": len(rules) - 1,
                    "level": _LEVEL[verdict],
                    "message": {"text": printable(words)},
                    "locations": [_location(config, rule)],
                    "partialFingerprints": {"withstandLimit/v1": _fingerprint(gate, rule)},
                    "taxa": [relation["target"] for relation in relations],
                    "properties": {"outcome": verdict},
                }
            )
    content = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "withstand",
                        "version": __version__,
                        "rules": rules,
                        "supportedTaxonomies": [_named(catalogues, name) for name in catalogues],
                    }
                },
                "taxonomies": [
                    {"name": name, "isComprehensive": False, "taxa": taxa}
                    for name, taxa in catalogues.items()
                ],
                "invocations": [{"executionSuccessful": True, "exitCode": gate.exit_code}],
                "results": results,
                "columnKind": "utf16CodeUnits",
                "properties": {"outcome": gate.outcome, "basis": gate.measured.basis},
            }
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


_Rules = list[tuple[str, str, str, str]]


def _limits(gate: Gate) -> _Rules:
    """Rule, meaning, outcome and words of each limit."""
    return [
        (
            f"gate/{check.metric}",
            f"{check.metric} is to be {check.limit}",
            check.outcome,
            f"{check.metric} is {check.found}; asked for: {check.limit}. {check.words}".strip(),
        )
        for check in gate.checks
    ]


def _doubts(gate: Gate) -> _Rules:
    """The same of each finding about whether the number can be believed."""
    findings = (gate.measured.trust or {}).get("findings", [])
    found: dict[str, tuple[str, str, str, str]] = {}
    for finding in findings:
        rule = "trust/" + re.sub(r"[^a-z0-9]+", "-", finding["check"].lower()).strip("-")
        words = f"{finding['check']}: {finding['meaning']}. Fix: {finding['fix']}."
        found.setdefault(rule, (rule, finding["meaning"], finding["verdict"], words))
    return list(found.values())


def _catalogues(gate: Gate) -> dict[str, list[dict[str, str]]]:
    """The catalogue entries of the threat, by catalogue."""
    found: dict[str, list[dict[str, str]]] = {}
    for technique in gate.measured.threat.get("techniques", []):
        entry = {"id": technique["id"], "name": technique["name"]}
        found.setdefault(technique["catalogue"], []).append(entry)
    return found


def _named(catalogues: dict[str, Any], name: str) -> dict[str, Any]:
    return {"name": name, "index": list(catalogues).index(name)}


def _location(config: Path, rule: str) -> dict[str, Any]:
    place = config.resolve()
    inside = place.is_relative_to(Path.cwd())
    uri = quote(place.relative_to(Path.cwd()).as_posix()) if inside else place.as_uri()
    key = rule.removeprefix("gate/") if rule.startswith("gate/") else "trust"
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": uri},
            "region": {"startLine": _line(config, key)},
        }
    }


def _line(config: Path, key: str) -> int:
    """The line of a key of the gate section, or the first."""
    try:
        root = yaml.compose(config.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return 1
    line = 1
    for name in ("gate", key):
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        found = [(k, v) for k, v in pairs if k.value == name]
        if not found:
            break
        line, root = found[0][0].start_mark.line + 1, found[0][1]
    return int(line)


def _fingerprint(gate: Gate, rule: str) -> str:
    """The same for the same limit on the same threat, whatever was measured."""
    threat = gate.measured.threat
    told = "|".join(str(threat.get(key)) for key in ("region", "goal", "access"))
    return hashlib.sha256(f"{rule}|{told}".encode()).hexdigest()
