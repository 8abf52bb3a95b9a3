"""Small real parts that several tests share.

Whoever starts other processes reads this file too: what is heavy is imported where it is used.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from networks import Digits, Sound

    from withstand.models import TorchModel


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays to the end: nobody need look for garbage in it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests have ten minutes where they do not say how many: the machine may be busy."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def digits() -> Digits:
    from networks import trained_on_digits

    return trained_on_digits()


@pytest.fixture
def scaled(digits: Digits) -> TorchModel:
    from networks import Scaled

    from withstand.models import TorchModel

    return TorchModel(Scaled(digits.net, 100.0))


@pytest.fixture
def quantised(digits: Digits) -> TorchModel:
    from networks import Quantised

    from withstand.models import TorchModel

    return TorchModel(Quantised(digits.net))


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if not k.endswith("_seconds")}
    return [_without_seconds(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def without_seconds() -> Callable[[Any], Any]:
    """A report's values without its seconds, which alone may differ between two runs."""
    return _without_seconds


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Sound]:
    """Sound networks by data (digits or mnist), seed, the radius they were hardened for, and how
    many digits they were trained on."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    @cache
    def asked(data: str = "digits", seed: int = 0, eps: float = 0.0, known: int = 1200) -> Sound:
        from networks import trained_soundly

        return trained_soundly(folder, data, seed, eps, known)

    return asked
