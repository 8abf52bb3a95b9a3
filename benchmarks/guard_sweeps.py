"""Clients who ask about near copies for a good reason: do they raise alarms, too?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from guard_queries import ALL
from guarded import Array, Guarded, calibrated, victim
from measure import Rows
from networks import DATA
from scipy import ndimage
from torch import nn

from withstand.guard.queries import Calibration, calibrate
from withstand.stats import clopper_pearson

CLIENTS = 40
SIDE = 28
PATCHES = np.add.outer(np.arange(SIDE) // 4 * 7, np.arange(SIDE) // 4)


def lime(x: Array, rng: np.random.Generator) -> Array:
    """300 times, half of 49 patches black."""
    return np.where(rng.integers(0, 2, (300, 49))[:, PATCHES] > 0, x, 0)


def shap(x: Array, rng: np.random.Generator) -> Array:
    """300 times, one to three patches black, or all but one to three: KernelSHAP's weights."""
    kept = rng.choice([1, 2, 3, 46, 47, 48], 300)
    return np.where(np.stack([rng.permutation(49) < k for k in kept])[:, PATCHES], x, 0)


def occlusion(x: Array, rng: np.random.Generator) -> Array:
    """A black square of 4 x 4 pixels, in 169 places."""
    found = []
    for i in range(0, SIDE - 3, 2):
        for j in range(0, SIDE - 3, 2):
            hidden = x.copy()
            hidden[i : i + 4, j : j + 4] = 0
            found.append(hidden)
    return np.stack(found)


def brightness(x: Array, rng: np.random.Generator) -> Array:
    """25 steps from 0.3 to 1.5 of it."""
    return np.stack([x * factor for factor in np.linspace(0.3, 1.5, 25)])


def rotation(x: Array, rng: np.random.Generator) -> Array:
    """From -30 to 30 degrees in steps of 2."""
    return np.stack([_turned(x, angle) for angle in range(-30, 31, 2)])


def shift(x: Array, rng: np.random.Generator) -> Array:
    """By up to three pixels in both directions."""
    return np.stack([_moved(x, i, j) for i in range(-3, 4) for j in range(-3, 4)])


def noise(x: Array, rng: np.random.Generator) -> Array:
    """Gaussian noise of 8 sizes from 0.02 to 0.3, four times each."""
    sizes = np.repeat(np.linspace(0.02, 0.3, 8), 4)
    return np.stack([x + size * rng.standard_normal(x.shape) for size in sizes])


def jpeg(x: Array, rng: np.random.Generator) -> Array:
    """As JPEG would round it, at 20 qualities: cosine coefficients of 7 x 7 blocks."""
    from scipy.fft import dctn, idctn

    blocks = x.reshape(4, 7, 4, 7).transpose(0, 2, 1, 3)
    found = []
    for step in np.linspace(0.02, 0.4, 20):
        rounded = step * np.round(dctn(blocks, axes=(2, 3), norm="ortho") / step)
        back = idctn(rounded, axes=(2, 3), norm="ortho")
        found.append(back.transpose(0, 2, 1, 3).reshape(SIDE, SIDE))
    return np.stack(found)


def video(x: Array, rng: np.random.Generator) -> Array:
    """100 frames that turn and move slowly, with noise of 0.02."""
    frames = [
        _moved(_turned(x, 8 * np.sin(t / 15)), 2 * np.sin(t / 20), 2 * np.cos(t / 25))
        for t in range(100)
    ]
    return np.stack(frames) + 0.02 * rng.standard_normal((100, SIDE, SIDE))


def _turned(x: Array, angle: float) -> Array:
    return np.asarray(ndimage.rotate(x, angle, reshape=False, order=1))


def _moved(x: Array, down: float, right: float) -> Array:
    return np.asarray(ndimage.shift(x, (down, right), order=1))


Sweep = Callable[[Array, np.random.Generator], Array]
SWEEPS: tuple[Sweep, ...] = (
    lime, shap, occlusion, brightness, rotation, shift, noise, jpeg, video,
)  # fmt: skip


def sweeps() -> Rows:
    """Alarms on benign clients who ask about near copies: 40 clients of each kind on MNIST.

    Each asks about one test image from number 500 on that the network gets right, with a key of its
    own, undeclared; then all of it again with a key that is declared to be a benign optimiser.
    queries, search, spectrum: share of the clients that were flagged, and the median query of the
    first flag.
    signs: real frames of signs that a car drove by, about 10 of each, one client for each sign.
    """
    net, x, _ = victim("mnist", "standard")
    rows: Rows = []
    for sweep in SWEEPS:
        rng = np.random.default_rng(0)
        asked = [
            np.clip(sweep(one[0].numpy(), rng), 0, 1)[:, None].astype(np.float32)
            for one in x[:CLIENTS]
        ]
        what = " ".join((sweep.__doc__ or "").split()).rstrip(".")
        rows.append(_row(sweep.__name__, what, net, calibrated("mnist"), asked))
    rows.append(_row("signs", "frames of one sign", *_signs()))
    return rows


def _row(
    name: str, what: str, net: nn.Module, calibration: Calibration, asked: list[Array]
) -> dict[str, object]:
    guarded = Guarded(net, calibration)
    first: dict[str, list[int]] = {name: [] for name in (*ALL, "declared")}
    for client, queries in enumerate(asked):
        seen: dict[str, int] = {}
        for number, query in enumerate(queries, 1):
            guarded.ask(query[None], f"t{client}")
            for sensor in guarded.flags:
                seen.setdefault(sensor, number)
        for query in queries:
            guarded.ask(query[None], f"declared {client}", declared=True)
            if guarded.flags:
                seen.setdefault("declared", 1)
        for sensor, number in seen.items():
            first[sensor].append(number)
    guarded.close()
    told: dict[str, object] = {
        "client": name,
        "asks": what,
        "queries each": f"{np.median([len(one) for one in asked]):.0f}",
    }
    for sensor in ALL:
        where = f", query {np.median(first[sensor]):.0f}" if first[sensor] else ""
        told[sensor] = f"{clopper_pearson(len(first[sensor]), len(asked))}{where}"
    told["declared: flagged"] = len(first["declared"])
    print(told, flush=True)
    return told


def _signs() -> tuple[nn.Module, Calibration, list[Array]]:
    net, _, _ = victim("signs", "")
    with np.load(DATA / "signs" / "gtsrb32_track_split.npz") as file:
        train, test, kind = file["x_train"], file["x_test"], file["y_test"].ravel()
        # Numbers of tracks begin anew in each class.
        track = 1000 * kind.astype(int) + file["track_test"].ravel()
    x = torch.from_numpy(test).permute(0, 3, 1, 2).float().numpy() / 255
    fitted = train.transpose(0, 3, 1, 2).astype(np.float32) / 255
    return net, calibrate(fitted, seed=1), [x[track == one] for one in np.unique(track)[:CLIENTS]]
