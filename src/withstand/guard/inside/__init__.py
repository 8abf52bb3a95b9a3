"""The guard inside somebody else's process: as middleware, or as a function."""

from ._from_file import guard_from
from ._function import GuardFunction
from ._middleware import GuardMiddleware

__all__ = ["GuardFunction", "GuardMiddleware", "guard_from"]
