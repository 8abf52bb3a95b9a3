"""Suspects of categories in tables: their codes in another order, which is searched for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._errors import listed
from ._compare import Comparison
from ._route import Route
from ._suspect import Suspect, before

_MOST_CODES = 20
_MOST_ASKED = 256
_SWEEPS = 2


@dataclass(frozen=True)
class Coded:
    """A category in some columns: values (k, columns) are its codes, one-hot ones or numbers."""

    name: str
    columns: list[int]
    values: Tensor

    def codes(self, x: Tensor) -> Tensor:
        """Which of its values each row (N,) has; -1 for none of them."""
        same = (x[:, None, self.columns] == self.values.to(x)).all(2)
        return torch.where(same.any(1), same.int().argmax(1), -1)

    def put(self, x: Tensor, codes: Tensor) -> Tensor:
        """x with other codes (N,); rows of code -1 stay as they are."""
        x = x.clone()
        there = codes >= 0
        rows = there.nonzero().flatten()[:, None]
        x[rows, torch.tensor(self.columns)] = self.values.to(x)[codes[there]]
        return x

    def title(self, code: int) -> str:
        """A code in the user's words."""
        if len(self.columns) > 1:
            return f"the {code + 1}th"
        return f"{float(self.values[code, 0]):g}"


def code_suspects(seen: Comparison, route: Route, features: Sequence[str] | None) -> list[Suspect]:
    """The codes of categories in the orders that explain most, if any explains something.

    A row depends on its own code alone, so each code's best replacement is found apart from the
    others: as many passes over the rows as there are codes.
    """
    fields = list(_fields(seen.x, features))
    if not 0 < sum(len(field.values) for field in fields) <= _MOST_ASKED:
        return []
    chosen = [torch.arange(len(field.values)) for field in fields]
    x = seen.x
    for _ in range(_SWEEPS if len(fields) > 1 else 1):
        for place, field in enumerate(fields):
            chosen[place] = _best(seen, route, x, field, field.codes(seen.x), chosen[place])
            x = _recoded(seen.x, fields, chosen)
    moved = [
        (field, codes)
        for field, codes in zip(fields, chosen, strict=True)
        if bool((codes != torch.arange(len(codes))).any())
    ]
    if not moved:
        return []
    told = [
        f"{field.title(old)} as {field.title(int(new))} in {field.name}"
        for field, codes in moved
        for old, new in enumerate(codes)
        if old != new
    ]
    return [
        Suspect(
            step="category encoding",
            change=f"categories are encoded in another order: {listed(told, 6)}",
            fix="store the encoder with the model, and encode with it where the model is served",
            alter=before(lambda x: _recoded(x, [f for f, _ in moved], [c for _, c in moved])),
        )
    ]


def _recoded(x: Tensor, fields: Sequence[Coded], chosen: Sequence[Tensor]) -> Tensor:
    for field, new in zip(fields, chosen, strict=True):
        codes = field.codes(x)
        x = field.put(x, torch.where(codes >= 0, new.to(codes)[codes], codes))
    return x


def _best(
    seen: Comparison, route: Route, x: Tensor, field: Coded, codes: Tensor, now: Tensor
) -> Tensor:
    """For each code the one that, in its place, brings the answers nearest to the served ones."""
    tried = [
        seen.gaps(route, field.put(x, torch.where(codes >= 0, new, codes)))
        for new in range(len(field.values))
    ]
    gaps = torch.stack(tried, 1)
    best = now.clone()
    for code in range(len(field.values)):
        rows = codes == code
        if bool(rows.any()):
            sums = gaps[rows].sum(0)
            # Chance finds a code that is a little better; the right one is better by far.
            if sums.min() < 0.5 * sums[now[code]]:
                best[code] = sums.argmin()
    return best


def _fields(x: Tensor, features: Sequence[str] | None) -> Iterator[Coded]:
    """Columns of few whole numbers, and neighbours of which exactly one is 1."""
    names = [f"column {j}" for j in range(x.shape[1])] if features is None else list(features)
    whole = ((x == x.round()) & x.isfinite()).all(0)
    binary = ((x == 0) | (x == 1)).all(0)
    j = 0
    while j < x.shape[1]:
        width = _one_hot(x, binary, j)
        if width:
            columns = list(range(j, j + width))
            title = f"{names[j]} to {names[j + width - 1]}"
            yield Coded(title, columns, torch.eye(width))
            j += width
            continue
        values = torch.unique(x[:, j]) if bool(whole[j]) else x.new_empty(0)
        if 2 <= len(values) <= _MOST_CODES:
            yield Coded(names[j], [j], values[:, None])
        j += 1


def _one_hot(x: Tensor, binary: Tensor, first: int) -> int:
    """How many columns from this one on are one category, or 0."""
    total = torch.zeros(len(x))
    for j in range(first, x.shape[1]):
        if not bool(binary[j]):
            return 0
        total = total + x[:, j]
        if bool((total > 1).any()):
            return 0
        if bool((total == 1).all()) and j > first:
            return j - first + 1
    return 0
