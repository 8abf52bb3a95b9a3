"""Attacks at one radius against the peers' of the same name, at equal steps or motions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import peers
import torch
from measure import ORDER, Counting, Rows, distances, right, timed
from networks import mnist, network
from torch import Tensor, nn

from withstand import attacks
from withstand.models import TorchModel
from withstand.stats import paired_difference, wilson
from withstand.threat import L1, L2, Linf, Region, Threat

REGIONS = {"linf": Linf, "l2": L2, "l1": L1}
STEPS, RESTARTS, N = 100, 1, 500
# Radii at which neither nearly all nor nearly none are fooled.
RADII = {
    ("standard", "linf"): 0.1, ("standard", "l2"): 1.5, ("standard", "l1"): 8.0,
    ("adversarial", "linf"): 0.3, ("adversarial", "l2"): 2.0, ("adversarial", "l1"): 10.0,
}  # fmt: skip
# ART's and foolbox's grids name the pixels, ours shares of 28 of them.
TURN, SHIFT, ANGLES, SHIFTS = 30, 3, 11, 7
Calls = dict[str, peers.Attack]


def namesakes() -> Rows:
    """Gradients at one radius, 100 steps, 500 images from number 3,000 on.

    Robust accuracy of the images that the network gets right, Wilson's interval at 95 %; the
    difference is to the best peer, image by image (Tango's interval): below 0 ours is stronger.
    Turning: the same grid of 11 x 7 x 7 motions, each in its package's own interpolation. A
    universal change is fitted on other 200 images than it is judged on, by ART in 2 passes, as each
    takes minutes.
    """
    rows: Rows = []
    for name in ("standard", "adversarial"):
        net = network(name)
        x, y = right(net, *mnist("test", N, 3000))
        for norm in REGIONS:
            eps = RADII[name, norm]
            for method, calls in _cases(norm, eps).items():
                rows += _compared(net, x, y, name, f"{norm} {eps:g}", method, calls, norm, eps)
        turned = _turned(x.shape[2])
        about = f"{TURN} degrees, {SHIFT} pixels"
        rows += _compared(net, x, y, name, about, "Spatial", turned, "linf", 1.0)
        eps = RADII[name, "linf"]
        fitted = right(net, *mnist("test", 200, 4000))
        calls = _universal(*fitted, eps)
        rows += _compared(net, x, y, name, f"linf {eps:g}", "universal", calls, "linf", eps)
    return rows


def _compared(
    net: nn.Module, x: Tensor, y: Tensor, name: str, about: str, method: str, calls: Calls,
    norm: str, eps: float,
) -> Rows:  # fmt: skip
    rows: Rows = []
    stood: dict[str, Tensor] = {}
    for package, attack in calls.items():
        counted = Counting(net).eval()
        np.random.seed(0)
        torch.manual_seed(0)
        spent = timed(partial(attack, counted, x, y))
        found = distances(net, x, y, spent.found.detach().float(), norm)
        # Peers round outward: a change may be a float32 step longer than eps.
        stood[package] = found > eps * (1 + 1e-5)
        robust = wilson(int(stood[package].sum()), len(x))
        rows.append(
            {
                "network": name,
                "attack": method,
                "region": about,
                "package": package,
                "robust": str(robust),
                "against the best peer, points": "",
                "images asked, mean": round(counted.asked / len(x)),
                "CPU s": round(spent.cpu, 1),
            }
        )
        print(rows[-1], flush=True)
    best = min((one for package, one in stood.items() if package != "withstand"), key=torch.sum)
    ours = stood["withstand"]
    gap = paired_difference(int((ours & ~best).sum()), int((~ours & best).sum()), len(x), 0.95)
    told = f"{100 * gap.value:+.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"
    rows[0]["against the best peer, points"] = told
    print(told, flush=True)
    return rows


def _ours(attack: attacks.Attack, region: Region, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return attacks.run(attack, TorchModel(net), x, y, Threat(region=region)).x_adv


def _cases(norm: str, eps: float) -> dict[str, Calls]:
    region = REGIONS[norm](eps)
    kind = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]

    def auto(loss: str) -> peers.Attack:
        def by_pyautoattack(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            from pyautoattack.autopgd_base import APGDAttack

            attack = APGDAttack(
                net, n_iter=STEPS, norm=kind, n_restarts=RESTARTS, eps=eps, loss=loss,
                device="cpu", use_largereps=norm == "l1",
            )  # fmt: skip
            return attack.perturb(x, y)

        return by_pyautoattack

    def targeted(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack_targeted

        attack = APGDAttack_targeted(
            net, n_iter=STEPS, norm=kind, n_restarts=RESTARTS, eps=eps, device="cpu",
            use_largereps=norm == "l1",
        )  # fmt: skip
        return attack.perturb(x, y)

    def by_torchattacks(loss: str) -> peers.Attack:
        def call(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            import torchattacks

            attack = torchattacks.APGD(net, norm=kind, eps=eps, steps=STEPS, loss=loss)
            return attack(x, y)

        return call

    def targeted_by_torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks

        return torchattacks.APGDT(net, norm=kind, eps=eps, steps=STEPS)(x, y)

    def by_art(loss: str) -> peers.Attack:
        def call(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            from art.attacks.evasion import AutoProjectedGradientDescent

            attack = AutoProjectedGradientDescent(
                peers.art_classifier(net), norm=ORDER[norm], eps=eps, eps_step=2 * eps,
                max_iter=STEPS, nb_random_init=RESTARTS, batch_size=len(x), loss_type=loss,
                verbose=False,
            )  # fmt: skip
            return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

        return call

    def ours(attack: attacks.Attack) -> Calls:
        return {"withstand": partial(_ours, attack, region)}

    pgd = {"withstand": partial(_ours, attacks.PGD(steps=40), region), **peers.pgd(eps, 40)}
    found: dict[str, Calls] = {"PGD-40": pgd} if norm == "linf" else {}
    losses = {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}
    for loss, art in losses.items():
        calls = ours(attacks.APGD(steps=STEPS, loss=loss)) | {"pyautoattack": auto(loss)}
        if norm != "l1":
            calls |= {"torchattacks": by_torchattacks(loss), "art": by_art(art)}
        found[f"APGD-{loss.upper()}"] = calls
    calls = ours(attacks.APGDT(steps=STEPS, targets=9)) | {"pyautoattack": targeted}
    found["APGD-T"] = calls if norm == "l1" else calls | {"torchattacks": targeted_by_torchattacks}
    return found


def _turned(size: int) -> Calls:
    ours = attacks.Spatial(
        rotation=TURN, translation=SHIFT / size, angles=ANGLES, shifts=SHIFTS, fill="zeros"
    )

    def by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import SpatialTransformation

        def one(image: Tensor, label: Tensor) -> Tensor:
            # It looks for one motion that fools most of a batch.
            attack = SpatialTransformation(
                peers.art_classifier(net), max_translation=100 * SHIFT / size,
                num_translations=SHIFTS, max_rotation=TURN, num_rotations=ANGLES, verbose=False,
            )  # fmt: skip
            return torch.from_numpy(attack.generate(image.numpy(), label.numpy()))

        pairs = zip(x.split(1), y.split(1), strict=True)
        return torch.cat([one(image, label) for image, label in pairs])

    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        attack = foolbox.attacks.SpatialAttack(
            max_translation=SHIFT, max_rotation=TURN, num_translations=SHIFTS, num_rotations=ANGLES
        )
        return attack(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y)[0]

    return {
        "withstand": partial(_ours, ours, Linf(1.0)),
        "art": by_art,
        "foolbox": by_foolbox,
    }


def _universal(x: Tensor, y: Tensor, eps: float) -> Calls:
    def ours(net: nn.Module, shown: Tensor, _: Tensor) -> Tensor:
        threat = Threat(region=Linf(eps))
        found = attacks.universal(TorchModel(net), x, y, threat, held_out=0.1)
        return found.apply(shown)

    def by_art(net: nn.Module, shown: Tensor, _: Tensor) -> Tensor:
        from art.attacks.evasion import UniversalPerturbation

        attack = UniversalPerturbation(
            peers.art_classifier(net), attacker="deepfool", attacker_params={"verbose": False},
            delta=0.0, max_iter=2, eps=eps, norm=np.inf, batch_size=64, verbose=False,
        )  # fmt: skip
        attack.generate(x.numpy(), y.numpy())
        return (shown + torch.from_numpy(attack.noise)).clamp(0, 1)

    calls: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {"withstand": ours}
    return calls | {"art": by_art}
