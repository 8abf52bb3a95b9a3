"""Minimum-norm attacks against the peers' of the same name, and all of them together."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import peers
import torch
from measure import Counting, Rows, distances, right, timed
from networks import mnist, network
from torch import Tensor, nn

from withstand import attacks
from withstand.models import TorchModel
from withstand.threat import L0, L1, L2, Linf, Threat
from withstand.workflows import optimality

BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def minimum_norm() -> Rows:
    """FMN at equal steps on the images that the network gets right among the first 500."""
    rows: Rows = []
    for name, norms in (("standard", ("l2", "linf", "l1", "l0")), ("adversarial", ("l2",))):
        net = network(name)
        x, y = right(net, *mnist("test", 500))
        for norm in norms:
            for steps in (100, 300):

                def ours(
                    net: nn.Module, x: Tensor, y: Tensor, norm: str = norm, steps: int = steps
                ) -> Tensor:
                    threat = Threat(region=BALLS[norm](np.inf))
                    return attacks.run(
                        attacks.FMN(steps=steps), TorchModel(net), x, y, threat
                    ).x_adv

                for label, attack in {"withstand": ours, **peers.fmn(norm, steps)}.items():
                    spent = timed(partial(attack, net, x, y))
                    found = distances(net, x, y, spent.found.detach(), norm)
                    rows.append(
                        {
                            "network": name,
                            "norm": norm,
                            "steps": steps,
                            "package": label,
                            "median distance": round(float(np.median(found)), 4),
                            "success %": round(100 * float(found.isfinite().float().mean()), 1),
                            "CPU s": round(spent.cpu, 1),
                        }
                    )
    return rows


CASES: tuple[tuple[attacks.Attack, str, int], ...] = (
    *((attacks.FAB(steps=100, targets=3), norm, 100) for norm in ("linf", "l2", "l1")),
    *((attacks.FMN(steps=100), norm, 100) for norm in BALLS),
    (attacks.DDN(steps=100), "l2", 100),
    (attacks.SuperDeepFool(), "l2", 100),
    *((attacks.DeepFool(), norm, 50) for norm in ("linf", "l2")),
    (attacks.CarliniWagner(steps=100, searches=9), "l2", 900),
    *((attacks.SigmaZero(steps=steps), "l0", steps) for steps in (100, 300)),
    *((attacks.PDPGD(steps=300), norm, 300) for norm in BALLS),
    *((attacks.ALMA(steps=steps), norm, steps) for norm in ("l2", "l1") for steps in (100, 300)),
)


def smallest() -> Rows:
    """Minimum-norm attacks, each against its namesakes: 200 images from number 2,000 on.

    Optimality (AttackBench) against the best of all packages in the norm; the last rows are what
    all attacks of a package reach together.
    """
    rows: Rows = []
    for name in ("standard", "adversarial"):
        net = network(name)
        x, y = right(net, *mnist("test", 220, 2000), 200)
        reached: dict[str, list[tuple[dict[str, Any], Tensor]]] = defaultdict(list)
        for attack, norm, steps in CASES:
            method = type(attack).__name__
            theirs = peers.fmn(norm, steps) if method == "FMN" else None
            if theirs is None:
                theirs = peers.smallest(method, norm, steps)
            if method == "SuperDeepFool" and name == "adversarial":
                # adv-lib's does not end on this network.
                theirs = {}
            for label, peer in {"withstand": partial(_ours, attack, norm), **theirs}.items():
                counted = Counting(net).eval()
                spent = timed(partial(peer, counted, x, y))
                found = distances(net, x, y, spent.found.detach(), norm)
                row = {
                    "network": name,
                    "norm": norm,
                    "attack": f"{method}, {steps} steps",
                    "package": label,
                    **_reached(found),
                    "forwards": round(counted.asked / len(x)),
                    "CPU s": round(spent.cpu, 1),
                }
                print(row, flush=True)
                reached[norm].append((row, found))
        for norm, found_by in reached.items():
            rows += _judged(name, norm, found_by)
    return rows


def _ours(attack: attacks.Attack, norm: str, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return attacks.run(attack, TorchModel(net), x, y, Threat(region=BALLS[norm](np.inf))).x_adv


def _reached(found: Tensor) -> dict[str, float]:
    return {
        "median distance": round(float(np.median(found)), 4),
        "success %": round(100 * float(found.isfinite().float().mean()), 1),
    }


def _judged(name: str, norm: str, reached: list[tuple[dict[str, Any], Tensor]]) -> Rows:
    """The rows with their optimality, and one for all attacks of us and of the peers."""
    best = torch.stack([found for _, found in reached]).amin(0)
    rows = [{**row, "optimality": round(optimality(found, best), 4)} for row, found in reached]
    for label, ours in (("withstand", True), ("peers", False)):
        together = torch.stack(
            [found for row, found in reached if (row["package"] == "withstand") == ours]
        ).amin(0)
        rows.append(
            {
                "network": name,
                "norm": norm,
                "attack": "all together",
                "package": label,
                **_reached(together),
                "forwards": "",
                "CPU s": "",
                "optimality": round(optimality(together, best), 4),
            }
        )
    return rows
