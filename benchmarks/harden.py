"""Single-step training on MNIST at Linf 0.3: what it reaches, and what it costs."""

from __future__ import annotations

from typing import Any

import torch
from measure import Rows
from networks import DATA, small

from withstand.data import load_npz
from withstand.evaluate import evaluate
from withstand.harden import FGSM, NFGSM, Recipe, adam, harden
from withstand.threat import Linf, Threat

EPS = 0.3
REGION = Linf(EPS)
RUNS: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "FGSM-RS from 0.3 on": (FGSM(region=REGION), {"start": 0.3, "growth": 0.1}),
    "FGSM-RS from 0.55 on": (FGSM(region=REGION), {"start": 0.55, "growth": 0.1}),
    "FGSM-RS from 0.57 on": (FGSM(region=REGION), {"start": 0.57, "growth": 0.1}),
    "N-FGSM, no guard": (NFGSM(region=REGION), {"growth": 0.2, "guard": False}),
    "N-FGSM": (NFGSM(region=REGION), {"growth": 0.2}),
    "FGSM, twice the step, no noise": (
        FGSM(region=REGION, step_size=2.0, random_start=False),
        {"epochs": 2, "growth": 0.2},
    ),
}


def hardening() -> Rows:
    """Training on single steps at Linf 0.3: seed 0, `standard` on 1,000 test images.

    10 epochs, 2 for the provoked overfitting. Robust accuracy is an upper bound;
    at the end: of the last weights or their average, not the chosen ones, by PGD of 10 steps on 512
    training images that were held out. The factor is over the seconds of standard training; guard
    and selection are included.
    """
    train = load_npz(DATA / "mnist.npz", "x_train", "y_train", scale=255)
    test = load_npz(DATA / "mnist.npz", "x_test", "y_test", scale=255, limit=1000)
    rows: Rows = []
    for name, (recipe, settings) in RUNS.items():
        torch.manual_seed(0)
        made = harden(small(), train, recipe, **{"optimizer": adam(5e-3), **settings})
        report = evaluate(made.model, test, Threat(region=REGION))
        rows.append(
            {
                "recipe": name,
                "clean %": f"{100 * report.clean_accuracy.value:.1f}",
                "robust %, at most": str(report.robust_accuracy),
                "at the end %": f"{100 * (made.history[-1].robust or 0.0):.1f}",
                "trust": report.trust.verdict,
                "gradient passes": round(made.cost.passes, 2),
                "CPU s": round(made.cost.seconds, 1),
                "factor": round(made.cost.factor, 2),
                "alarms": "; ".join(f"epoch {alarm.epoch:.2f}" for alarm in made.alarms) or "none",
            }
        )
        print(rows[-1], flush=True)
    return rows
