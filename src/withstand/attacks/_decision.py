"""What attacks on labels share: starting points, ways between points, directions to try."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._ball import length
from ._noise import uniform
from ._problem import Problem
from ._rows import Rows

# Of the rows that one begins with, the nearest; most of them have the wanted answer.
_KNOWN = 5


def start(problem: Problem, tries: Tensor, starting: Tensor) -> Tensor:
    """The starting point number `tries` (B,): x inverted, plain pictures, then noise.

    What it gives for rows that are not starting (B,) is of no use.
    """
    x, lower, upper = problem.x, problem.lower, problem.upper
    if not bool(starting.any()):
        return x
    column = problem.column
    drawn = uniform(problem, 3, tries, x[0].numel()).reshape(x.shape)
    # Even tries are noise of full contrast, odd ones uniform.
    share = torch.where(column(tries % 2 == 0), drawn.round(), drawn)
    for number, plain in enumerate((0.0, 1.0, 0.5)):
        share = torch.where(column(tries == number + 1), plain, share)
    picture = lower + share * (upper - lower)
    return torch.where(column(tries == 0), lower + upper - x, picture)


def begun(
    problem: Problem,
    points: Tensor,
    starting: Tensor,
    tries: Tensor,
    starts: int,
    rows: Rows | None = None,
) -> tuple[Tensor, Tensor]:
    """The points (B, ...) in the box, starting ones for the rows that are starting (B,).

    rows: what is tried before plain pictures. And which of these rows (B,) have tried as many as
    `starts` of those in vain.
    """
    known = 0 if rows is None else _KNOWN
    first = start(problem, (tries - known).clamp_min(0), starting)
    where = (starting & (tries < known)).nonzero()[:, 0]
    if rows is not None and len(where):
        values, there = rows.begin(problem.take(where), known)
        turn = tries[where]
        place = torch.arange(len(where), device=turn.device)
        own = values[place, turn].reshape(problem.x[where].shape)
        first = first.clone()
        first[where] = torch.where(
            problem.take(where).column(there[place, turn]), own, first[where]
        )
    points = torch.where(problem.column(starting), first, points)
    return inside(problem, points), starting & (tries >= starts + known)


def between(problem: Problem, far: Tensor, share: Tensor) -> Tensor:
    """The point at a share (B,) of the way from x to far: in Linf, far cut to that radius."""
    delta, share = far - problem.x, problem.column(share)
    if problem.norm == "linf":
        limit = share * problem.column(length(delta, "linf"))
        return problem.x + torch.clamp(delta, -limit, limit)
    return problem.x + share * delta


def inside(problem: Problem, points: Tensor) -> Tensor:
    """The points (B, ...) or (B, M, ...) cut to the box."""
    if points.ndim > problem.x.ndim:
        return torch.clamp(points, problem.lower[:, None], problem.upper[:, None])
    return torch.clamp(points, problem.lower, problem.upper)


def arc(problem: Problem, edge: Tensor, across: Tensor, angle: Tensor) -> Tensor:
    """The point at an angle (B,) on the semicircle from edge, at angle 0, to x, at a right angle.

    across: the direction in which it bulges, orthogonal to what of edge - x is inside the box and
    of length 1, or zero: then the semicircle is the straight line. Points are not cut to the box:
    features that strive outwards should stay at the bound, whatever small noise says.
    """
    size = length(inside(problem, edge) - problem.x, "l2")
    cos, sin = problem.column(angle.cos()), problem.column(angle.sin())
    return problem.x + cos * (cos * (edge - problem.x) + sin * problem.column(size) * across)


def relaxed(problem: Problem, points: Tensor) -> Tensor:
    """The points (B, ...), less out of the box: what once strove outwards gets another chance."""
    return torch.lerp(inside(problem, points), points, 0.85)


def orthogonal(vectors: Tensor, ray: Tensor) -> Tensor:
    """The vectors (B, ...) or (B, M, ...) without their part along ray (B, ...), of length 1."""
    first = vectors.ndim - ray.ndim + 1
    ray = unit(ray).reshape(len(ray), *(1,) * (first - 1), *ray.shape[1:])
    along = (vectors * ray).flatten(first).sum(first)
    return unit(vectors - ray * along.reshape(*along.shape, *(1,) * (ray.ndim - first)), first)


def unit(vectors: Tensor, first: int = 1) -> Tensor:
    """The vectors, whose features begin at axis `first`, at an L2 length of 1; zero stays zero."""
    size: Tensor = torch.linalg.vector_norm(vectors.flatten(first), dim=first)
    ones = (1,) * (vectors.ndim - first)
    return vectors / size.clamp_min(1e-12).reshape(*size.shape, *ones)


def waves(problem: Problem, tag: int, number: Tensor, smoothness: Tensor) -> Tensor:
    """Directions (B, M, ...), numbers (B, M) of a random family of each row; of any length.

    As many in a row as there are features are orthogonal to one another before they are shaped:
    the vectors of a cosine transform under random signs, so that none is drawn and forgotten. In
    pictures they are shaped to be smooth, because the normals of decision boundaries are:
    frequencies above 1 / smoothness (B,) of the highest one fade, with their square. Features that
    cannot change are left alone.
    """
    shape = problem.x.shape[1:]
    features = problem.x[0].numel()
    place = torch.arange(features, device=number.device)
    phase = (2 * place + 1) * (number % features)[..., None] % (4 * features)
    family = uniform(problem, tag, number // features, features)
    vectors = torch.cos(phase * (math.pi / (2 * features))) * (family - 0.5).sign()
    if len(shape) > 1:
        spread = smoothness.repeat_interleave(vectors[0].numel() // (shape[-2] * shape[-1]))
        vectors = _shaped(vectors.reshape(-1, *shape[-2:]), spread)
    vectors = vectors.reshape(*number.shape, *shape)
    return vectors * (problem.upper > problem.lower)[:, None]


def _shaped(spectra: Tensor, smoothness: Tensor) -> Tensor:
    """The pictures (N, H, W) of spectra of a cosine transform, high frequencies faded."""
    n, h, w = spectra.shape
    vertical, horizontal = (_cosines(size, spectra.device) for size in (h, w))
    down, across = (torch.arange(size, device=spectra.device) / size for size in (h, w))
    gain = 1 / (1 + smoothness.square()[:, None, None] * (down[:, None].square() + across.square()))
    # One product for each picture: its rounding does not depend on how many there are.
    faded = torch.bmm(spectra * gain, horizontal.expand(n, w, w))
    return torch.bmm(vertical.T.expand(n, h, h), faded)


def _cosines(size: int, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (size, size): a frequency in each row."""
    place = torch.arange(size, device=device)
    phase = (2 * place + 1) * place[:, None] % (4 * size)
    table = torch.cos(phase * (math.pi / (2 * size))) * math.sqrt(2 / size)
    table[0] /= math.sqrt(2)
    return table
