"""Examples made on one network and shown to another, against the peers' at equal steps."""

from __future__ import annotations

from functools import partial

import numpy as np
import peers
import torch
from measure import Counting, Rows, timed
from networks import mnist, network
from numpy.typing import NDArray
from torch import Tensor, nn

from withstand import attacks
from withstand.models import TorchModel
from withstand.stats import bootstrap
from withstand.threat import Linf, Threat

PAIRS = (("standard", "larger"), ("larger", "standard"))
EPS, STEPS, N, WIDTH, NEIGHBOURS, SEEDS = 0.2, 10, 500, 5, 5, 4
OURS = {
    "momentum": attacks.TransferPGD(steps=STEPS),
    "diverse input": attacks.TransferPGD(steps=STEPS, diversity=0.5),
    "translation": attacks.TransferPGD(steps=STEPS, diversity=0.5, smoothing=WIDTH),
    "variance": attacks.TransferPGD(steps=STEPS, variance=NEIGHBOURS),
}


def transferred() -> Rows:
    """Examples made with the gradients of one network and shown to another, once each.

    Linf 0.2, 10 steps of a tenth, 500 images from number 3,000 on, of which those count that both
    networks get right. Fooled is the mean share of the second network's over four seeds; the
    difference is to the best peer. Intervals are bootstraps over images, at 95 %; above 0 ours
    fools more.
    """
    rows: Rows = []
    for source, victim in PAIRS:
        first, second = network(source), network(victim)
        x, y = mnist("test", N, 3000)
        both = (first(x).argmax(1) == y) & (second(x).argmax(1) == y)
        x, y = x[both], y[both]
        for method, attack in OURS.items():
            calls = {"withstand": partial(_ours, attack)} | _theirs(method)
            fell: dict[str, NDArray[np.float64]] = {}
            made: Rows = []
            for package, call in calls.items():
                counted = Counting(first).eval()
                found, cpu = [], 0.0
                for seed in range(SEEDS):
                    np.random.seed(seed)
                    torch.manual_seed(seed)
                    spent = timed(partial(call, counted, x, y))
                    change = spent.found.detach().float() - x
                    # Peers round outward by a float32 step.
                    x_adv = (x + change.clamp(-EPS, EPS)).clamp(0, 1)
                    found.append((second(x_adv).argmax(1) != y).double())
                    cpu += spent.cpu
                fell[package] = torch.stack(found).mean(0).numpy()
                made.append(
                    {
                        "made on": source,
                        "shown to": victim,
                        "treatment": method,
                        "package": package,
                        "fooled": str(bootstrap(fell[package])),
                        "against the best peer, points": "",
                        "images asked, mean": round(counted.asked / len(x) / SEEDS),
                        "CPU s": round(cpu / SEEDS, 1),
                    }
                )
                print(made[-1], flush=True)
            ours = fell.pop("withstand")
            gap = bootstrap(ours - max(fell.values(), key=np.mean))
            told = f"{100 * gap.value:+.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"
            made[0]["against the best peer, points"] = told
            print(told, flush=True)
            rows += made
    return rows


class _First(nn.Module):
    """A network that looks at the first channel of pictures."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x[:, :1])
        return out


def _ours(attack: attacks.Attack, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    # The seeds of peers are torch's.
    seed, threat = torch.initial_seed(), Threat(region=Linf(EPS))
    return attacks.craft(attack, TorchModel(net), x, y, threat, seed=seed)


def _theirs(method: str) -> dict[str, peers.Attack]:
    def by_torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks

        same = {"eps": EPS, "alpha": EPS / STEPS, "steps": STEPS, "decay": 1.0}
        attack = {
            "momentum": partial(torchattacks.MIFGSM, **same),
            "diverse input": partial(torchattacks.DIFGSM, **same),
            "translation": partial(torchattacks.TIFGSM, **same, len_kernel=WIDTH),
            "variance": partial(torchattacks.VMIFGSM, **same, N=NEIGHBOURS),
        }[method]
        if method != "translation":
            return attack(net)(x, y)
        # It knows three channels only; the network looks at the first.
        three = _First(net).eval()
        return attack(three)(x.repeat(1, 3, 1, 1), y)[:, :1]

    def by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import MomentumIterativeMethod

        attack = MomentumIterativeMethod(
            peers.art_classifier(net), eps=EPS, eps_step=EPS / STEPS, max_iter=STEPS,
            batch_size=len(x), verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        attack = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(
            steps=STEPS, abs_stepsize=EPS / STEPS
        )
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return attack(model, x, y, epsilons=EPS)[1]

    found: dict[str, peers.Attack] = {"torchattacks": by_torchattacks}
    return found | {"art": by_art, "foolbox": by_foolbox} if method == "momentum" else found
