"""The web pages: what operations know, for executives, for who is on call, and to act upon."""

from ._app import App
from ._server import serve
from ._site import Site

__all__ = ["App", "Site", "serve"]
