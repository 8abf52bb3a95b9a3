"""Evidence: the corpus of adversarial and flagged inputs."""

from ._card import card
from ._corpus import Corpus
from ._entry import Entry, Kind, Origin, content_digest
from ._exchange import Exchange, import_exchange, read_exchange, trust, write_exchange
from ._flagged import Collected, collect, stale
from ._packed import Form
from ._remark import Remark, View
from ._version import FORMAT, Version

__all__ = [
    "FORMAT",
    "Collected",
    "Corpus",
    "Entry",
    "Exchange",
    "Form",
    "Kind",
    "Origin",
    "Remark",
    "Version",
    "View",
    "card",
    "collect",
    "content_digest",
    "import_exchange",
    "read_exchange",
    "stale",
    "trust",
    "write_exchange",
]
