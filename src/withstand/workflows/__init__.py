"""What joins rooms."""

from ._compare import show_comparison
from ._demo import demo

__all__ = ["demo", "show_comparison"]
