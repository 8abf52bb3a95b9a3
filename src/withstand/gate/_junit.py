"""The gate as JUnit XML, in the form that Jenkins, GitLab and others read."""

from __future__ import annotations

from xml.etree import ElementTree

from ..evaluate import printable
from ._judge import Gate

# A limit that is missed is a failure; one that could not be decided is an error, which breaks a
# build too: a skipped test would let the release through.
_TAG = {"fail": "failure", "inconclusive": "error"}


def junit(gate: Gate) -> bytes:
    """A test case for each limit, as UTF-8."""
    outcomes = [check.outcome for check in gate.checks]
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("fail")),
        "errors": str(outcomes.count("inconclusive")),
        "time": f"{gate.spent.get('wall_seconds', 0.0):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "withstand gate", **counts})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": "withstand gate", **counts, "skipped": "0"}
    )
    told = {
        "outcome": gate.outcome,
        "threat": str(gate.measured.threat.get("region", "")),
        "how": str(gate.measured.basis["how"]),
    }
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in told.items():
        ElementTree.SubElement(properties, "property", name=name, value=printable(value))
    for check in gate.checks:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="withstand.gate",
            name=f"{check.metric} {check.limit}",
            time="0",
        )
        if check.outcome != "pass":
            message = printable(f"{check.metric} is {check.found}; asked for: {check.limit}")
            ElementTree.SubElement(
                case, _TAG[check.outcome], message=message, type=check.outcome
            ).text = printable(f"{message}\n{check.words}")
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
