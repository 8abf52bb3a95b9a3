"""Answers of the model, read once: checked, learned from, and made coarser where that is due."""

from ._answered import Answered, Output, read_answer
from ._coarsen import coarsened
from ._error import plain_error

__all__ = ["Answered", "Output", "coarsened", "plain_error", "read_answer"]
