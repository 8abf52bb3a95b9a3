"""Threat models: who attacks, what they may change, what counts as success, what they may spend."""

from ._fits import check_goal
from ._goal import Evading, Goal, MultiLabel, Regression, Targeted, Untargeted
from ._patch import Tones, frame, patch, stickers
from ._region import L0, L1, L2, Box, Frozen, Linf, Mask, Region
from ._taxonomy import Technique, techniques
from ._threat import ACCESS, Access, Budget, Threat

__all__ = [
    "ACCESS",
    "L0",
    "L1",
    "L2",
    "Access",
    "Box",
    "Budget",
    "Evading",
    "Frozen",
    "Goal",
    "Linf",
    "Mask",
    "MultiLabel",
    "Region",
    "Regression",
    "Targeted",
    "Technique",
    "Threat",
    "Tones",
    "Untargeted",
    "check_goal",
    "frame",
    "patch",
    "stickers",
    "techniques",
]
