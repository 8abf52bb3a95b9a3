"""From how many near copies on a query is suspicious, taken from benign ones."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError, listed, one_line
from ...stats import upper_bound
from ._space import Space
from ._spectrum import Spectrum

Array = NDArray[Any]

FILES = ("queries.json", "queries.safetensors")
"""What a folder holds: the description, which names the digest of the other, and the tensors."""

_SCHEMA = "withstand.queries/1"
_TENSORS = ("projection", "offset", "centres", "lengths")
_SPECTRUM = ("mixing", "mean", "unlike")
_FEWEST = 1000
_FITTED = 6000
_SIZES = (32, 512)
_TAIL = 30
_LEAST, _MOST = 2.0, 100.0
_SURE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Where benign queries lie, how many are remembered in each cell, and what is too near.

    threshold: of the score, the number of near copies. rate: the share of benign queries above it
    that was asked for; bound: the share that is not exceeded with 95 % confidence, as far as so
    many `queries` can show. spectrum: of pictures, None for other queries, with a threshold and a
    bound of its own.
    """

    space: Space
    sizes: Array
    threshold: float
    rate: float
    bound: float
    queries: int
    spectrum: Spectrum | None = None
    spectrum_threshold: float = math.inf
    spectrum_bound: float = 0.0

    def save(self, folder: str | Path) -> list[Path]:
        """Write queries.json and queries.safetensors, which are secret; raises OutputError."""
        from safetensors.numpy import save

        from ...evaluate import check_writable, write

        folder = check_writable(folder)
        space, spectrum = self.space, self.spectrum
        state = {name: getattr(space, name) for name in _TENSORS} | {"sizes": self.sizes}
        if spectrum is not None:
            state |= {f"spectrum.{name}": getattr(spectrum, name) for name in _SPECTRUM}
        tensors = save({name: np.ascontiguousarray(value) for name, value in state.items()})
        told = {
            "schema": _SCHEMA,
            "size": space.size,
            "threshold": self.threshold,
            "rate": self.rate,
            "bound": self.bound,
            "queries": self.queries,
            "state": sha256(tensors).hexdigest(),
        }
        if spectrum is not None:
            told["spectrum"] = {
                "shape": list(spectrum.shape),
                "floor": spectrum.floor,
                "threshold": self.spectrum_threshold,
                "bound": self.spectrum_bound,
            }
        contents = ((json.dumps(told, indent=2) + "\n").encode(), tensors)
        # The description comes last: a folder without one holds no calibration.
        pairs = reversed(list(zip(FILES, contents, strict=True)))
        written = [write(folder / name, content) for name, content in pairs]
        for path in written:
            path.chmod(0o600)
        return written

    @property
    def enough(self) -> int:
        """How many benign queries it takes to show `rate`: those to fit, and no alarm on others."""
        others = math.ceil(math.log(_SURE) / math.log1p(-self.rate))
        return others + min(-(-others // 3), _FITTED)

    @staticmethod
    def load(folder: str | Path) -> Calibration:
        """What was saved; raises DataError for damaged or other files."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = Path(folder)
        try:
            told = json.loads((folder / FILES[0]).read_text())
            tensors = (folder / FILES[1]).read_bytes()
            if told["schema"] != _SCHEMA or sha256(tensors).hexdigest() != told["state"]:
                raise ValueError("the files do not belong together")
            state = load(tensors)
            sizes = state.pop("sizes")
            spectrum, more = _spectrum(told.get("spectrum"), state)
            return Calibration(
                space=Space(size=int(told["size"]), **state),
                sizes=sizes,
                threshold=float(told["threshold"]),
                rate=float(told["rate"]),
                bound=float(told["bound"]),
                queries=int(told["queries"]),
                spectrum=spectrum,
                **more,
            )
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename} is not there; run `withstand guard calibrate-queries` first"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(
                f"the calibration in {folder} cannot be read ({type(error).__name__}: "
                f"{one_line(error, 80)}); run `withstand guard calibrate-queries` again"
            ) from None


def _spectrum(
    told: dict[str, Any] | None, state: dict[str, Array]
) -> tuple[Spectrum | None, dict[str, float]]:
    """The spectrum that was saved, and what belongs to it; takes its tensors out of the others."""
    if told is None:
        return None, {}
    tensors = {name: state.pop(f"spectrum.{name}") for name in _SPECTRUM}
    shape = tuple(int(size) for size in told["shape"])
    found = Spectrum(shape=shape, floor=float(told["floor"]), **tensors)
    more = {f"spectrum_{name}": float(told[name]) for name in ("threshold", "bound")}
    return found, more


def read_queries(path: str | Path, name: str = "x") -> Array:
    """Queries (N, ...) from an .npy file, or from an array of an .npz file; raises DataError."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                if name not in found:
                    raise DataError(f"{path} has no array {name!r}; it has {listed(found.files)}")
                found = found[name]
    except FileNotFoundError:
        raise DataError(f"queries {path} are not there; give an .npz or .npy file") from None
    except (OSError, ValueError, EOFError, BadZipFile):
        raise DataError(
            f"queries {path} cannot be read as numbers; give an .npz or .npy file"
        ) from None
    if found.ndim < 2 or found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise DataError(f"queries {path} are no rows of finite numbers; give N inputs (N, ...)")
    return np.asarray(found)


def calibrate(benign: Array, *, rate: float = 1e-4, seed: int | None = None) -> Calibration:
    """The calibration for benign queries (N, ...), a quarter of which shows where they lie.

    The threshold is taken from the others, as if all came from one client and again and again:
    every query has rings before it that are full. It is the higher of two: the one whose
    Clopper-Pearson bound is at most `rate`, or the highest score where there are too few queries
    for that; and the one that a tail of a power law exceeds at half the rate (Weissman 1978). The
    spectrum of pictures may add half as many false alarms.
    seed: None for a secret one. Raises DataError for less than a thousand, and where benign queries
    are near copies of one another.
    """
    if len(benign) < _FEWEST:
        raise DataError(f"{len(benign)} benign queries are too few; give at least {_FEWEST}")
    if not 0 < rate < 1:
        raise DataError(f"rate is {rate:g}; give a share between 0 and 1, such as 0.0001")
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    x = benign.reshape(len(benign), -1)
    fitted = np.zeros(len(x), bool)
    fitted[:: max(4, -(-len(x) // _FITTED))] = True
    space = Space.fit(x[fitted], seed=seed)
    rest = x[~fitted]
    scores, sizes = _scores(space, rest)
    threshold = _threshold(scores, rate)
    if threshold > _MOST:
        raise DataError(
            f"benign queries have {threshold:.0f} near copies, and at most {_MOST:.0f} make sense; "
            "leave out clients that ask about one input again and again"
        )
    above = int((scores > threshold).sum())
    bound = float(upper_bound(above, len(rest), _SURE))
    spectrum = Spectrum.fit(benign[fitted], seed=seed)
    unlike, unlike_bound = math.inf, 0.0
    if spectrum is not None:
        scores = spectrum.score(rest, np.random.default_rng(seed))
        unlike = _threshold(scores, rate / 2)
        unlike_bound = float(upper_bound(int((scores > unlike).sum()), len(rest), _SURE))
    return Calibration(
        space=space, sizes=sizes, threshold=threshold, rate=rate, bound=bound, queries=len(rest),
        spectrum=spectrum, spectrum_threshold=unlike, spectrum_bound=unlike_bound,
    )  # fmt: skip


def _scores(space: Space, x: Array) -> tuple[Array, Array]:
    """Scores (N,) of queries (N, F) that come round and round, and the sizes of the rings.

    A ring is no longer than so many different queries of its cell were there to fill it.
    """
    cells, places = space.place(x)
    digests = np.array([hash(row.tobytes()) for row in x])
    counts = np.bincount(cells, minlength=len(space.centres))
    sizes = np.clip(counts - 1, *_SIZES)
    scores = np.zeros(len(x))
    for cell, size in enumerate(sizes):
        inside = np.flatnonzero(cells == cell)
        back = min(int(size), len(inside) - 1)
        if back < 1:
            continue
        around = np.concatenate((inside[-back:], inside))
        for first in range(0, len(inside), 256):
            now = inside[first : first + 256]
            before = around[first : first + len(now) + back]
            apart = _squared(places[now], places[before])
            number = np.arange(len(before)) - np.arange(len(now))[:, None]
            apart[(number < 0) | (number >= back)] = 1
            apart[digests[now][:, None] == digests[before]] = 1
            scores[now] = np.maximum(0, 1 - apart).sum(1)
    return scores, sizes


def _squared(a: Array, b: Array) -> Array:
    return np.asarray((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T)


def _threshold(scores: Array, rate: float) -> float:
    ranked = np.sort(scores)[::-1]
    bounds = upper_bound(np.arange(1 + int(rate * len(ranked))), len(ranked), _SURE)
    allowed = max(0, int((bounds <= rate).sum()) - 1)
    threshold = max(_LEAST, float(ranked[allowed]))
    tail = min(_TAIL, len(ranked) // 100)
    start = float(ranked[tail])
    if start > 0:
        index = float(np.log(ranked[:tail] / start).mean())
        threshold = max(threshold, start * (tail / (len(ranked) * rate / 2)) ** index)
    return threshold
