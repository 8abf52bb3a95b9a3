"""Randomised smoothing: time against ART's at equal draws, and draws against the fixed number."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import peers
import torch
from measure import Rows, forwards, timed
from networks import CACHE, mnist, small
from torch import nn

from withstand.certify import Certificates, Smoothing, certify
from withstand.data import Dataset, from_arrays
from withstand.harden import NoiseAugmented, harden
from withstand.models import TorchModel
from withstand.threat import L2, Threat

DRAWS, IMAGES, ROUNDS = 10_000, 10, 3
CASES = ((0.25, 0.25), (0.25, 0.5), (0.5, 0.5), (0.5, 1.0))


def speed() -> Rows:
    """Certificates of 10 images at 10,000 draws each, in turns: sigma 0.25, alpha 0.001.

    The network is trained under noise of that sigma. Our draws are numbered and can be made again;
    the peer's cannot. Batches of 32 are ART's default; 250 is the size that is used here. Both take
    100 more draws to choose the class. Times are the least of three turns. The network alone: as
    many forwards, and no noise.
    """
    net, data = _trained(0.25), _images(range(0, 1000, 1000 // IMAGES))
    draws, x = IMAGES * (DRAWS + 100), torch.as_tensor(data.x)
    ways = {
        ("the network alone", 250): partial(forwards, net, x, draws, 250),
        ("withstand", 250): partial(_ours, net, data, 250),
        ("art", 32): partial(_theirs, net, data, 32),
        ("art", 250): partial(_theirs, net, data, 250),
    }
    spent: dict[Any, list[Any]] = {key: [] for key in ways}
    for _ in range(ROUNDS):
        for key, certified in ways.items():
            spent[key].append(timed(certified))
    best = {key: min(times, key=lambda t: t.wall) for key, times in spent.items()}
    own = best["withstand", 250].wall
    return [
        {
            "package": package,
            "batch": batch,
            "certified at 0.5": _certified(best[package, batch].found),
            "CPU s": round(best[package, batch].cpu, 1),
            "s": round(best[package, batch].wall, 1),
            "draws a CPU second": f"{draws / best[package, batch].cpu:,.0f}",
            "times ours": round(best[package, batch].wall / own, 1),
        }
        for package, batch in ways
    ]


def sequential(images: int = 60) -> Rows:
    """Draws until a radius is settled, against 100,000 draws: test images in steps of 5.

    Certified accuracy at the radius, alpha 0.001. Images that the network gets wrong cost 100 draws
    and are left out of the mean.
    """
    rows: Rows = []
    for sigma, eps in CASES:
        net, data = _trained(sigma), _images(range(0, 5 * images, 5))
        threat = Threat(region=L2(eps))
        adaptive = certify(TorchModel(net), data, threat, Smoothing(sigma=sigma))
        fixed = certify(TorchModel(net), data, threat, Smoothing(sigma=sigma, sequential=False))
        rows.append(
            {
                "sigma": sigma,
                "radius": eps,
                "certified %, fixed": 100 * fixed.certified_accuracy.value,
                "certified %, sequential": 100 * adaptive.certified_accuracy.value,
                "different": int((fixed.certified != adaptive.certified).sum()),
                "draws, fixed": f"{_draws(fixed).mean():,.0f}",
                "draws, sequential": f"{_draws(adaptive).mean():,.0f}",
                "times fewer": round(float(_draws(fixed).mean() / _draws(adaptive).mean()), 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _certified(radii: Any) -> int | str:
    return "-" if radii is None else int((radii >= 0.5).sum())


def _draws(found: Certificates) -> Any:
    draws = np.asarray([c.draws for c in found.certificates])
    return draws[draws > 0]


def _ours(net: nn.Module, data: Dataset, batch: int) -> Any:
    settings = Smoothing(sigma=0.25, draws=DRAWS, sequential=False, batch=batch)
    found = certify(TorchModel(net), data, Threat(region=L2(0.5)), settings)
    return np.asarray([c.radius for c in found.certificates])


def _theirs(net: nn.Module, data: Dataset, batch: int) -> Any:
    return peers.smoothing(net, 0.25)(data.x, DRAWS, batch)


def _images(places: range) -> Dataset:
    """Test images at these places."""
    x, y = mnist("test", 1000)
    return from_arrays(x[list(places)].numpy(), y[list(places)].numpy())


def _trained(sigma: float) -> nn.Module:
    file, net = CACHE / f"noise-{sigma:g}.pt", small()
    if not file.exists():
        x, y = mnist("train")
        torch.manual_seed(0)
        recipe = NoiseAugmented(sigma=sigma)
        made = harden(small(), from_arrays(x.numpy(), y.numpy()), recipe, epochs=4)
        CACHE.mkdir(exist_ok=True)
        torch.save(made.net.state_dict(), file)
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()
