"""Answers of the model, read once: checked, learned from, and made coarser where that is due."""

from ._answered import Answered, Output, read_answer
from ._coarsen import coarsened

__all__ = ["Answered", "Output", "coarsened", "read_answer"]
