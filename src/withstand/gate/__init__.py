"""The release gate: limits held against a report, or against attacks that stop when decided."""

from ._baseline import Baseline, read_baseline
from ._coverage import read_coverage
from ._detection import read_detection
from ._files import forget, save, save_examples
from ._hold import hold
from ._judge import Check, Gate, judge
from ._junit import junit
from ._live import Effort, Live, gate
from ._measured import Extra, Measured, from_report
from ._report import judge_report
from ._sarif import sarif
from ._show import markdown, show

__all__ = [
    "Baseline",
    "Check",
    "Effort",
    "Extra",
    "Gate",
    "Live",
    "Measured",
    "forget",
    "from_report",
    "gate",
    "hold",
    "judge",
    "judge_report",
    "junit",
    "markdown",
    "read_baseline",
    "read_coverage",
    "read_detection",
    "sarif",
    "save",
    "save_examples",
    "show",
]
