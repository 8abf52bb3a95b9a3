"""The pytest plugin: tests that say how robust a model must be, and how many of all they are.

Every pytest run of a project loads it, so nothing here imports torch before a test asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_MARK = "robustness"
_FILE = "robustness-coverage.json"
_NAME = "withstand-robustness-coverage"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --robustness-coverage."""
    parser.getgroup("withstand").addoption(
        "--robustness-coverage",
        nargs="?",
        const=_FILE,
        metavar="FILE",
        help=f"count tests marked {_MARK} among all, for `withstand gate` ({_FILE} if not named)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark and, where it is wanted, the count."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(eps=..., norm='linf', robust_accuracy=..., fooling_rate=..., ...): a test of how "
        "a model withstands attack; the fixture of the same name holds a model to these limits",
    )
    place = config.getoption("--robustness-coverage")
    if place and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Count(config.invocation_params.dir / place), _NAME)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember tests that are left out: they are tests of the project all the same."""
    for item in items:
        _left_out(item.config).add(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the controller of pytest-xdist what was left out here."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told[_NAME] = sorted(_left_out(session.config))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Mark the test's reports: they reach the controller of pytest-xdist, the test does not."""
    if item.get_closest_marker(_MARK) is not None:
        item.user_properties.append((_MARK, True))


@pytest.fixture
def robustness(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Hold a model to the limits of the test's mark: robustness(model, data) returns the report.

    data: a Dataset, or arrays x and y. Fails the test where a limit is missed, and where it is not
    certain that it is met.
    """

    def hold(model: Any, data: Any, **more: Any) -> Any:
        from withstand import WithstandError
        from withstand.gate import hold as held

        __tracebackhide__ = True
        marks = list(request.node.iter_markers(_MARK))
        # The closest mark comes first, and what is said nearer to the test holds.
        said = {key: value for mark in reversed(marks) for key, value in mark.kwargs.items()} | more
        unnamed = [value for mark in marks for value in mark.args]
        if unnamed or "eps" not in said:
            wrong = f"{unnamed[0]!r} has no name" if unnamed else "eps is missing"
            pytest.fail(
                f"error: {_MARK}: {wrong}; write e.g. {_MARK}(eps=0.03, robust_accuracy=0.8)",
                pytrace=False,
            )
        try:
            report, gate = held(model, data, **said)
        except WithstandError as error:
            pytest.fail(f"error: {error}", pytrace=False)
        if gate.outcome != "pass":
            pytest.fail(gate.story(), pytrace=False)
        return report

    return hold


_LEFT_OUT = pytest.StashKey[set[str]]()


class _Count:
    """Counts tests by their reports, so that it is the same with and without pytest-xdist."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tests: set[str] = set()
        self.robustness: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tests.add(report.nodeid)
        # What was skipped has tested nothing.
        if report.when == "call" and not report.skipped and (_MARK, True) in _told(report):
            self.robustness.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.tests |= _left_out(session.config)
        content = {"tests": len(self.tests), "robustness": len(self.robustness)}
        self.place.write_text(json.dumps(content) + "\n")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.tests |= set(getattr(node, "workeroutput", {}).get(_NAME, []))


def _left_out(config: pytest.Config) -> set[str]:
    return config.stash.setdefault(_LEFT_OUT, set())


def _told(report: pytest.TestReport) -> set[tuple[str, object]]:
    # Over pytest-xdist a tuple arrives as a list.
    return {(name, value) for name, value in report.user_properties}
