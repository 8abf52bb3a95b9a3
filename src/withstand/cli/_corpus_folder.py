"""Which corpus a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..evidence import Corpus

Config = Annotated[Path, typer.Option(help="The configuration that names the corpus.")]
Folder = Annotated[
    Path | None, typer.Option("--corpus", help="Its folder; evaluate.corpus if not given.")
]


def opened(config: Path, folder: Path | None, *, new: bool = False) -> Corpus:
    """The corpus in a folder, or the one that a configuration names; raises WithstandError.

    new: it need not be there yet.
    """
    from .._errors import ConfigError, CorpusError

    if folder is None:
        from ..config import load_config

        named = load_config(config).evaluate.corpus
        if named is None:
            raise ConfigError(f"{config}: evaluate.corpus is missing; add it, or give --corpus")
        folder = config.parent / named
    if not new and not folder.is_dir():
        raise CorpusError(
            f"corpus {folder} is not there; `withstand evaluate --corpus {folder}` makes one"
        )

    from ..evidence import Corpus

    return Corpus(folder)
