"""Attacks from labels alone against the peers' at equal queries, in L2 and Linf."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import peers
import torch
from measure import Counting, Rows, distances, forwards, right, timed
from networks import mnist, network
from torch import Tensor, nn

from withstand import attacks
from withstand.models import TorchModel
from withstand.threat import L2, Linf, Threat

OURS = (
    attacks.HopSkipJump,
    attacks.CGBA,
    attacks.SurFree,
    attacks.SignOPT,
    attacks.BoundaryAttack,
)
Calls = dict[str, peers.Attack]
BATCHES = (64, 256, 1024, 3200)
# ART's HopSkipJump has no budget: iterations and first evaluations that come to the queries.
HOPS = {500: (3, 120), 1000: (5, 110), 5000: (17, 98)}


def decisions() -> Rows:
    """Labels alone, L2 and Linf, 50 images from number 500 on, where no settings were chosen.

    The network alone: as many forwards of these images and nothing else, in the batches that take
    the least time. No attack of so many queries is faster.
    """
    rows: Rows = []
    for name in ("standard", "larger"):
        net = network(name)
        x, y = right(net, *mnist("test", 70, 500), 50)
        for queries in (500, 1000, 5000):
            asked = queries * len(x)
            alone = min(
                (timed(partial(forwards, net, x, asked, size)) for size in BATCHES),
                key=lambda spent: spent.wall,
            )
            rows.append(
                {
                    "network": name, "norm": "-", "attack": "the network alone", "budget": queries,
                    "queries": queries, "median distance": "-", "not fooled": "-",
                    "CPU s": round(alone.cpu, 1), "wall s": round(alone.wall, 1),
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
            # The larger network takes minutes, and shows the same of the others.
            ours = OURS if name == "standard" else OURS[:2]
            calls: Calls = {
                f"withstand {attack.__name__}": partial(_ours, attack(queries=queries), L2)
                for attack in ours
            }
            calls["art HopSkipJump"] = peers.hopskipjump("l2", *HOPS[queries])
            if name == "standard":
                calls |= _others(queries)
            rows += _asked(net, x, y, name, "l2", queries, calls)
            if name == "standard":
                calls = {
                    f"withstand {attack.__name__}": partial(_ours, attack(queries=queries), Linf)
                    for attack in (attacks.HopSkipJump, attacks.RayS)
                }
                calls["art HopSkipJump"] = peers.hopskipjump("linf", *HOPS[queries])
                calls["foolbox HopSkipJump"] = _foolbox_hops(queries, "linf")
                rows += _asked(net, x, y, name, "linf", queries, calls)
    return rows


def _asked(
    net: nn.Module, x: Tensor, y: Tensor, name: str, norm: str, queries: int, calls: Calls
) -> Rows:
    rows: Rows = []
    for label, attack in calls.items():
        counted = Counting(net).eval()
        np.random.seed(0)
        torch.manual_seed(0)
        spent = timed(partial(attack, counted, x, y))
        found = distances(net, x, y, spent.found, norm)
        rows.append(
            {
                "network": name,
                "norm": norm,
                "attack": label,
                "budget": queries,
                "queries": round(counted.asked / len(x)),
                "median distance": round(float(np.median(found)), 4),
                "not fooled": int((~found.isfinite()).sum()),
                "CPU s": round(spent.cpu, 1),
                "wall s": round(spent.wall, 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _ours(
    attack: attacks.Attack, ball: type[L2 | Linf], net: nn.Module, x: Tensor, y: Tensor
) -> Tensor:
    threat = Threat(region=ball(np.inf), access="labels")
    result = attacks.run(attack, TorchModel(net), x, y, threat)
    said = torch.tensor([status == attacks.Status.FOOLED for status in result.status])
    silent = said & ~distances(net, x, y, result.x_adv, threat.norm).isfinite()
    assert not silent.any(), "a sample is said to be fooled and is not"
    return result.x_adv


def _others(queries: int) -> dict[str, peers.Attack]:
    """Peers' settings that come to at least the queries."""

    def signopt(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import SignOPTAttack

        attack = SignOPTAttack(
            peers.art_classifier(net), targeted=False, query_limit=queries, verbose=False
        )
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    def boundary(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        # A little more than a query a step.
        attack = foolbox.attacks.BoundaryAttack(steps=queries, tensorboard=False)
        return _foolbox(attack, net, x, y)

    return {
        "art SignOPT": signopt,
        "foolbox BoundaryAttack": boundary,
        "foolbox HopSkipJump": _foolbox_hops(queries, "l2"),
    }


def _foolbox_hops(queries: int, norm: str) -> peers.Attack:
    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        iterations, first = HOPS[queries]
        attack = foolbox.attacks.HopSkipJumpAttack(
            steps=iterations, initial_gradient_eval_steps=first, constraint=norm
        )
        return _foolbox(attack, net, x, y)

    return by_foolbox


def _foolbox(
    attack: Callable[..., tuple[Tensor, ...]], net: nn.Module, x: Tensor, y: Tensor
) -> Tensor:
    import foolbox

    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return attack(model, x, y, epsilons=None)[0]
