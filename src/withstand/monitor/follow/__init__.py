"""The evidence of a guard, followed while it is written."""

from ._follower import Followed, Follower
from ._walk import Lost, Position, walk_on

__all__ = ["Followed", "Follower", "Lost", "Position", "walk_on"]
