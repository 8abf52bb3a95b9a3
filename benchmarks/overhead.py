"""What the engine adds to the network's own passes."""

from __future__ import annotations

from functools import partial

import numpy as np
import peers
import torch
from measure import Counting, Rows, right, timed
from networks import mnist, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand import attacks
from withstand.models import TorchModel
from withstand.threat import Linf, Threat

PAIRS = 15


def overhead() -> Rows:
    """CPU time over a bare loop of the same forward + input-gradient passes: 64 images, eps 0.1."""
    eps = 0.1
    rows: Rows = []
    for name in ("standard", "larger"):
        net = network(name).requires_grad_(False)
        counted = Counting(net, keep=True).eval()
        models = {net: TorchModel(net), counted: TorchModel(counted)}
        # A wrong image leaves at once even without compaction: the bare loop would do more work.
        x, y = right(net, *mnist("test", 128), 64)
        candidates = {
            "withstand PGD-40": _whole(attacks.PGD(steps=40), models, eps),
            "withstand APGD-CE-100": _whole(attacks.APGD(loss="ce"), models, eps),
            "withstand APGD-PMA-100": _whole(attacks.APGD(), models, eps),
        }
        # The larger network takes minutes, and shows the same of the peers.
        if name == "standard":
            candidates |= {f"{p} PGD-40": attack for p, attack in peers.pgd(eps, 40).items()}
        asked: dict[str, float] = {}
        passes: dict[str, list[Tensor]] = {}
        for label, attack in candidates.items():
            attack(counted, x, y)
            counted.clear()
            attack(counted, x, y)
            asked[label] = counted.asked / len(x)
            # What a pass costs depends on the pixels: the bare loop goes over the same ones.
            passes[label] = [points for points in counted.graded if len(points) == len(x)]
            counted.clear()
            attack(net, x, y)
        ratios: dict[str, list[float]] = {label: [] for label in candidates}
        for _ in range(PAIRS if name == "standard" else 5):
            for label, attack in candidates.items():
                before = timed(partial(_bare, net, passes[label], y)).cpu
                spent = timed(partial(attack, net, x, y)).cpu
                after = timed(partial(_bare, net, passes[label], y)).cpu
                ratios[label].append(2 * spent / (before + after))
        for label, found in ratios.items():
            low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
            rows.append(
                {
                    "network": name,
                    "attack": label,
                    "forwards": round(asked[label], 2),
                    "gradients": len(passes[label]),
                    "ratio, median": round(float(middle), 3),
                    "ratio, quartiles": f"{low:.3f} to {high:.3f}",
                }
            )
    return rows


def _bare(net: nn.Module, passes: list[Tensor], y: Tensor) -> None:
    for points in passes:
        points = points.detach().requires_grad_()
        torch.autograd.grad(cross_entropy(net(points), y, reduction="sum"), points)


def _whole(attack: attacks.Attack, models: dict[nn.Module, TorchModel], eps: float) -> peers.Attack:
    """Our attack with every row kept to the end, the model wrapped once."""
    threat = Threat(region=Linf(eps))
    return lambda net, x, y: attacks.run(attack, models[net], x, y, threat, compact=False).x_adv
