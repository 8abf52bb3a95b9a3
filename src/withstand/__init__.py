"""Find out how your model can be fooled, make it withstand attack, know when somebody tries."""

from ._errors import WithstandError
from ._version import __version__

__all__ = ["WithstandError", "__version__"]
