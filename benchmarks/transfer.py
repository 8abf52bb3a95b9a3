"""Examples made on one network and shown to another, against the peers' at equal steps."""

from __future__ import annotations

from functools import partial

import numpy as np
import peers
import torch
from measure import Counting, Rows, timed
from networks import mnist, network
from torch import Tensor, nn

from withstand import attacks
from withstand.models import TorchModel
from withstand.stats import paired_difference, wilson
from withstand.threat import Linf, Threat

PAIRS = (("standard", "larger"), ("larger", "standard"))
EPS, STEPS, N, WIDTH, NEIGHBOURS = 0.2, 10, 500, 5, 5
OURS = {
    "momentum": attacks.TransferPGD(steps=STEPS),
    "diverse input": attacks.TransferPGD(steps=STEPS, diversity=0.5),
    "translation": attacks.TransferPGD(steps=STEPS, diversity=0.5, smoothing=WIDTH),
    "variance": attacks.TransferPGD(steps=STEPS, variance=NEIGHBOURS),
}


def transferred() -> Rows:
    """Examples made with the gradients of one network and shown to another, once each.

    Linf 0.2, 10 steps of a tenth, 500 images from number 3,000 on, of which those count that both
    networks get right. Fooled is the share of the second network's, Wilson's interval at 95 %; the
    difference is to the best peer, image by image (Tango's interval): above 0 ours fools more.
    """
    rows: Rows = []
    for source, victim in PAIRS:
        first, second = network(source), network(victim)
        x, y = mnist("test", N, 3000)
        both = (first(x).argmax(1) == y) & (second(x).argmax(1) == y)
        x, y = x[both], y[both]
        for method, attack in OURS.items():
            calls = {"withstand": partial(_ours, attack)} | _theirs(method)
            fell: dict[str, Tensor] = {}
            made: Rows = []
            for package, call in calls.items():
                counted = Counting(first).eval()
                np.random.seed(0)
                torch.manual_seed(0)
                spent = timed(partial(call, counted, x, y))
                change = spent.found.detach().float() - x
                # Peers round outward by a float32 step.
                x_adv = (x + change.clamp(-EPS, EPS)).clamp(0, 1)
                fell[package] = second(x_adv).argmax(1) != y
                made.append(
                    {
                        "made on": source,
                        "shown to": victim,
                        "treatment": method,
                        "package": package,
                        "fooled": str(wilson(int(fell[package].sum()), len(x))),
                        "against the best peer, points": "",
                        "images asked, mean": round(counted.asked / len(x)),
                        "CPU s": round(spent.cpu, 1),
                    }
                )
                print(made[-1], flush=True)
            ours = fell.pop("withstand")
            best = max(fell.values(), key=torch.sum)
            more, less = int((ours & ~best).sum()), int((~ours & best).sum())
            gap = paired_difference(more, less, len(x), 0.95)
            told = f"{100 * gap.value:+.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"
            made[0]["against the best peer, points"] = told
            print(told, flush=True)
            rows += made
    return rows


def _ours(attack: attacks.Attack, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return attacks.craft(attack, TorchModel(net), x, y, Threat(region=Linf(EPS)))


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
        return attack(net)(x, y)

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
