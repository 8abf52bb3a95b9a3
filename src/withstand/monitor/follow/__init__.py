"""The evidence of a guard, followed while it is written."""

from ._follower import Followed, Follower

__all__ = ["Followed", "Follower"]
