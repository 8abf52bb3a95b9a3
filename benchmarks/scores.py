"""Attacks from scores alone against the peers' at equal queries and radius."""

from __future__ import annotations

from functools import partial

import numpy as np
import peers
import torch
from measure import Counting, Rows, distances, right, timed
from networks import mnist, network
from torch import Tensor, nn

from withstand import attacks
from withstand.models import TorchModel
from withstand.threat import L1, L2, Linf, Region, Threat

CASES: tuple[tuple[str, str, str, float], ...] = (
    ("Square", "standard", "linf", 0.1),
    ("Square", "adversarial", "linf", 0.3),
    ("Square", "standard", "l2", 1.5),
    ("Square", "standard", "l1", 8.0),
    ("Square", "adversarial", "l1", 10.0),
    ("SimBA", "standard", "l2", 1.5),
    ("SPSA", "standard", "linf", 0.1),
)
OURS = {"Square": attacks.Square, "SimBA": attacks.SimBA, "SPSA": attacks.SPSA}
QUERIES = 5000


def scores() -> Rows:
    """Scores alone: at most 5,000 queries, 100 images from number 500 on."""
    rows: Rows = []
    for method, name, norm, eps in CASES:
        net = network(name)
        x, y = right(net, *mnist("test", 120, 500), 100)
        region = {"linf": Linf, "l2": L2, "l1": L1}[norm](eps)
        ours = partial(_ours, OURS[method](queries=QUERIES), region)
        for label, attack in {"withstand": ours, **_theirs(method, norm, eps)}.items():
            counted = Counting(net).eval()
            np.random.seed(0)
            torch.manual_seed(0)
            spent = timed(partial(attack, counted, x, y))
            found = distances(net, x, y, spent.found.detach(), norm)
            rows.append(
                {
                    "attack": method,
                    "network": name,
                    "region": f"{norm} {eps}",
                    "package": label,
                    # Peers round outward: a change may be a float32 step longer than eps.
                    "robust %": round(100 * float((found > eps * (1 + 1e-5)).float().mean()), 1),
                    "images asked, mean": round(counted.asked / len(x)),
                    "CPU s": round(spent.cpu, 1),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _ours(attack: attacks.Attack, region: Region, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return attacks.run(attack, TorchModel(net), x, y, Threat(region=region, access="scores")).x_adv


def _theirs(method: str, norm: str, eps: float) -> dict[str, peers.Attack]:
    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]

    def square_by_pyautoattack(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from pyautoattack.square import SquareAttack

        attack = SquareAttack(net, norm=kind, eps=eps, n_queries=QUERIES, seed=0, device="cpu")
        return attack.perturb(x, y)

    def square_by_torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks

        return torchattacks.Square(net, norm=kind, eps=eps, n_queries=QUERIES, seed=0)(x, y)

    def square_by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import SquareAttack

        attack = SquareAttack(
            peers.art_classifier(net),
            norm=np.inf if norm == "linf" else 2,
            eps=eps,
            max_iter=QUERIES,
            batch_size=len(x),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    def simba_by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import SimBA
        from art.estimators.classification import PyTorchClassifier

        # SimBA there wants probabilities, and one image at a time.
        probable = nn.Sequential(net, nn.Softmax(1)).eval()
        victim = PyTorchClassifier(
            probable, nn.NLLLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
        )
        attack = SimBA(victim, attack="dct", max_iter=QUERIES // 2, freq_dim=28, verbose=False)
        return torch.cat([torch.from_numpy(attack.generate(image.numpy())) for image in x.split(1)])

    def spsa_by_torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks

        # Two queries a sample, and one more a step.
        steps, samples = 40, QUERIES // 80
        return torchattacks.SPSA(net, eps=eps, nb_iter=steps, nb_sample=samples)(x, y)

    found: dict[str, dict[str, peers.Attack]] = {
        "Square": {
            "pyautoattack": square_by_pyautoattack,
            "torchattacks": square_by_torchattacks,
            "art": square_by_art,
        },
        "SimBA": {"art": simba_by_art},
        "SPSA": {"torchattacks": spsa_by_torchattacks},
    }
    # Only one of them knows L1.
    return {k: v for k, v in found[method].items() if norm != "l1" or k == "pyautoattack"}
