"""The whole loop on one machine: serve, guard, attack, page, roll back, retrain, promote."""

from ._facts import DETECT, ROLL_BACK, LoopReport, Stage
from ._loop import run_loop

__all__ = ["DETECT", "ROLL_BACK", "LoopReport", "Stage", "run_loop"]
