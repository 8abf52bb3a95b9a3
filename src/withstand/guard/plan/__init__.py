"""From the section `guard` to a guard, and from a new section to a new one."""

from ._parts import Parts
from ._plan import Learned, Plan

__all__ = ["Learned", "Parts", "Plan"]
