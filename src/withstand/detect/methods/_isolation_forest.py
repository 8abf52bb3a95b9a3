"""How few random splits set an input apart from the benign ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from ..._errors import ConfigError
from .._contract import State
from ._features import OnFeatures, enough

_MOST = 4096


@dataclass(frozen=True, kw_only=True)
class IsolationForest(OnFeatures):
    """The anomaly score of Liu, Ting and Zhou (2008, equation 2), 0 to 1, as scikit-learn has it.

    scikit-learn grows the trees, which are kept as tensors. The score moves in steps, so that it
    has no gradient: an attacker who knows it asks for scores, or follows another detector. samples:
    so many benign inputs for each tree. No extra pass.
    """

    trees: int = 100
    samples: int = 256
    seed: int = 0
    reference: ClassVar[str] = "Liu, Ting and Zhou 2008"
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trees < 1 or not 2 <= self.samples <= _MOST:
            raise ConfigError(
                f"trees is {self.trees} and samples {self.samples}; give at least 1 tree, and 2 to "
                f"{_MOST} samples for each"
            )

    @property
    def highest(self) -> float | None:
        return 1.0 if self.of == "input" else None

    def learned(self, features: Tensor, y: Tensor) -> State:
        from sklearn.ensemble import IsolationForest as Forest

        enough(len(features), 10, "a forest")
        samples = min(self.samples, len(features))
        forest = Forest(n_estimators=self.trees, max_samples=samples, random_state=self.seed)
        forest.fit(features.detach().cpu().numpy())
        return _tensors([estimator.tree_ for estimator in forest.estimators_], samples)

    def suspicion(self, state: State, features: Tensor, y: Tensor) -> Tensor:
        features, jit = features.detach().float(), cast(Any, torch.jit)
        # Of the same walk numpy takes half the time, but it cannot be traced for an export.
        by_numpy = features.device.type == "cpu" and not jit.is_tracing()
        lengths = (_lengths_by_numpy if by_numpy else _lengths)(state, features)
        return (-log(2) * lengths).exp().float()


def _lengths(state: State, features: Tensor) -> Tensor:
    """The mean path length (B,) of features (B, F), as a share of the usual one."""
    columns = features.T.contiguous()
    feature, threshold = state["feature"], state["threshold"]
    # Which of its level's nodes each input (trees, B) is at.
    place = (columns[feature[:, 0]] > threshold[:, :1]).long()
    for level in range(1, _depth(feature)):
        own = slice(2**level - 1, 2 ** (level + 1) - 1)
        values = columns.gather(0, feature[:, own].gather(1, place))
        place = 2 * place + (values > threshold[:, own].gather(1, place))
    return state["length"].gather(1, place).mean(0)


def _lengths_by_numpy(state: State, features: Tensor) -> Tensor:
    feature, threshold, length = (state[n].numpy() for n in ("feature", "threshold", "length"))
    values, rows = features.numpy().ravel(), np.arange(len(features)) * features.shape[1]
    place = (features.numpy().T[feature[:, 0]] > threshold[:, :1]).astype(np.int64)
    # Counted over all trees' nodes of the level, so that node i still leads to 2 i and 2 i + 1.
    place += 2 * np.arange(len(feature))[:, None]
    for level in range(1, _depth(feature)):
        own = slice(2**level - 1, 2 ** (level + 1) - 1)
        # No place is out of range, and to clip is cheaper than to check.
        at = feature[:, own].ravel().take(place, mode="clip")
        at += rows
        above = values.take(at, mode="clip") > threshold[:, own].ravel().take(place, mode="clip")
        place *= 2
        place += above
    return torch.from_numpy(length.ravel().take(place, mode="clip")).mean(0)


def _depth(feature: Any) -> int:
    return int(feature.shape[1] + 1).bit_length() - 1


def _tensors(trees: list[Any], samples: int) -> State:
    """The trees, each filled up to a complete one, so that node i leads to 2 i + 1 and 2 i + 2.

    feature and threshold (trees, nodes), and the path length that the last level's places stand
    for, as a share of the usual one for so many samples.
    """
    depth = max(1, *(tree.max_depth for tree in trees))
    inner = 2**depth - 1
    feature = np.zeros((len(trees), inner), np.int64)
    threshold = np.full((len(trees), inner), np.inf)
    length = np.zeros((len(trees), inner + 1))
    for i, tree in enumerate(trees):
        usual = _usual_length(tree.n_node_samples)
        # Level by level: which of the tree's nodes is where, a leaf on the left below itself.
        nodes, places = np.zeros(1, np.int64), np.zeros(1, np.int64)
        depths = np.zeros(1)
        for _ in range(depth):
            inside = tree.children_left[nodes] >= 0
            feature[i, places[inside]] = tree.feature[nodes[inside]]
            threshold[i, places[inside]] = tree.threshold[nodes[inside]]
            left = np.where(inside, tree.children_left[nodes], nodes)
            right = tree.children_right[nodes[inside]]
            depths = np.concatenate((depths + inside, depths[inside] + 1))
            places = np.concatenate((2 * places + 1, 2 * places[inside] + 2))
            nodes = np.concatenate((left, right))
        length[i, places - inner] = depths + usual[nodes]
    # Inputs are float32: the same side for all of them if thresholds are rounded towards -inf.
    rounded = threshold.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return {
        "feature": torch.from_numpy(feature),
        "threshold": torch.from_numpy(np.where(rounded > threshold, below, rounded)),
        "length": torch.from_numpy(length / _usual_length(samples)),
    }


def _usual_length(n: Any) -> Any:
    """The mean path length of an unsuccessful search among n (Liu et al. 2008, equation 1)."""
    n = np.asarray(n, np.float64)
    several = np.maximum(n, 3)
    harmonic = np.log(several - 1) + np.euler_gamma
    return np.where(n > 2, 2 * harmonic - 2 * (several - 1) / several, n == 2)
