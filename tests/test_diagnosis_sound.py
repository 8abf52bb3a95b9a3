"""Soundly trained networks must not come out as suspicious."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from withstand.evaluate import evaluate
from withstand.models import TorchModel
from withstand.threat import Linf, Threat

NETWORKS = [
    *(("mnist", seed, 0.0, 0.1) for seed in range(3)),
    *(("mnist", seed, 0.2, 0.2) for seed in range(3)),
    *(("digits", seed, 0.0, 0.05) for seed in range(2)),
    *(("digits", seed, 0.1, 0.1) for seed in range(2)),
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("data", "seed", "hardened", "eps"), NETWORKS)
def test_a_sound_network_is_never_red_and_amber_at_most_once(
    data: str, seed: int, hardened: float, eps: float, sound: Callable[..., Any]
) -> None:
    given = sound(data, seed, hardened, known=597)
    assert len(given.unseen) == 1200
    report = evaluate(TorchModel(given.net), given.unseen, Threat(region=Linf(eps)))
    fired = [(f.check, f.verdict, f.value) for f in report.trust.findings if f.verdict != "green"]
    checks, whole = report.trust.cost, report.cost
    print(  # noqa: T201
        data, seed, hardened, eps, report.robust_accuracy, report.trust.verdict, fired,
        f"{checks.cpu_seconds:.1f} of {whole.cpu_seconds:.1f} CPU s",
    )  # fmt: skip
    assert report.trust.verdict != "red"
    assert len(fired) <= 1
