"""Rules: what a request must be before anything looks at it, and the one form in which it goes on.

Each is a frozen dataclass that takes an Inference and returns one, the same object where nothing
was changed; `Rule(name="range", apply=Range(...))` puts it on a line.
"""

from ._images import Images
from ._range import Range
from ._schema import ROWS, Input, Schema
from ._table import Rows
from ._text import Text

__all__ = ["ROWS", "Images", "Input", "Range", "Rows", "Schema", "Text"]
