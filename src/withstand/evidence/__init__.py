"""Evidence: the corpus of adversarial and flagged inputs."""

from ._corpus import Corpus
from ._entry import Entry, Kind, Origin, content_digest
from ._version import FORMAT, Version

__all__ = [
    "FORMAT",
    "Corpus",
    "Entry",
    "Kind",
    "Origin",
    "Version",
    "content_digest",
]
