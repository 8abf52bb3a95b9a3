"""The suite for attacks finds what is wrong with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

from withstand.attacks import Attack, Problem
from withstand.attacks._ball import project
from withstand.attacks._contract import Query, Seen
from withstand.testing import check_attack
from withstand.threat import Access


class Steps(NamedTuple):
    step: Tensor


@dataclass(frozen=True, kw_only=True)
class Corners(Attack):
    """A few corners of the region, the same ones for all samples: weak, and nothing is wrong."""

    needs: ClassVar[Access] = "labels"
    norms: ClassVar = ("linf",)

    def init(self, problem: Problem) -> Steps:
        return Steps(torch.zeros_like(problem.lane))

    def query(self, problem: Problem, state: Steps) -> Query:
        place = torch.arange(problem.x[0].numel()).reshape(problem.x.shape[1:])
        signs = 1.0 - 2 * ((place * (1 + problem.column(state.step))) // 7 % 2)
        return Query(self.moved(problem, signs), state.step < 4)

    def step(self, problem: Problem, state: Steps, seen: Seen) -> Steps:
        return Steps(state.step + 1)

    def moved(self, problem: Problem, signs: Tensor) -> Tensor:
        return project(problem, problem.x + problem.column(problem.eps) * signs)


class Idle(Corners):
    def moved(self, problem: Problem, signs: Tensor) -> Tensor:
        return problem.x.clone()


class Nowhere(Corners):
    norms: ClassVar = ()


class Elsewhere(Corners):
    norms: ClassVar = ("l3",)


class Drawing(Corners):
    def moved(self, problem: Problem, signs: Tensor) -> Tensor:
        return super().moved(problem, torch.randn(signs.shape).sign())


class Together(Corners):
    def moved(self, problem: Problem, signs: Tensor) -> Tensor:
        return super().moved(problem, (problem.x - problem.x.mean(0)).sign())


class Leaning(Corners):
    """What it begins with depends on the batch, and is so near to x that no result shows it."""

    def query(self, problem: Problem, state: Steps) -> Query:
        near = problem.x + 1e-5 * (problem.x - problem.x.mean(0)).sign()
        usual = super().query(problem, state)
        begins = problem.column(state.step == 0)
        return Query(torch.where(begins, project(problem, near), usual.points), usual.live)


def test_an_attack_with_nothing_wrong_conforms() -> None:
    check_attack(Corners())


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (Idle(), "nobody is fooled"),
        (Nowhere(), "names no norm"),
        (Elsewhere(), "l3"),
        (Drawing(), "random state changed"),
        (Together(), "changes the examples"),
        (Leaning(), "points are asked about in some batches only"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_wrong_with_an_attack_is_found(attack: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_attack(attack)
