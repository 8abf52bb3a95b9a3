"""What a callable of the user's makes, named as file.py:callable or package.module:callable."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from ._errors import WithstandError, did_you_mean, listed, one_line

T = TypeVar("T")


@contextmanager
def importable(root: Path, named: str) -> Iterator[None]:
    """The user's file may import its siblings while it is loaded."""
    place = named.rpartition(":")[0]
    folder = (root / place).parent if place.endswith(".py") else root
    added = [str(folder.resolve()), str(root.resolve())]
    sys.path[:0] = added
    try:
        yield
    finally:
        for entry in added:
            # The user's own code may have taken it out.
            if entry in sys.path:
                sys.path.remove(entry)


def called(factory: str, root: Path, *, key: str, error: type[WithstandError]) -> Any:
    """What the callable returns; raises the error, in one line, for all that goes wrong.

    key: where the configuration names it. To be called where its siblings are importable.
    """
    place, _, name = factory.rpartition(":")
    if place.endswith(".py"):
        module = _executed(root / place, place, key, error)
    else:
        module = _imported(place, key, error)
    found = getattr(module, name, None)
    if not callable(found):
        names = [one for one, value in vars(module).items() if callable(value)]
        raise error(
            f"{place} has no callable {name!r}{did_you_mean(name, names) or ';'} "
            f"it has {listed(names)}"
        )
    return users(found, factory, error)


def users(work: Callable[[], T], place: str, error: type[WithstandError]) -> T:
    """What the user's code gives; raises the error, which names the user's file and line."""
    try:
        return work()
    except WithstandError:
        raise
    except (Exception, SystemExit) as failed:
        raise error(_blame(failed, place)) from None


def _imported(place: str, key: str, error: type[WithstandError]) -> Any:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as failed:
        if failed.name not in (place, place.partition(".")[0]):
            raise error(_blame(failed, place)) from None
        raise error(
            f"{place} failed: ModuleNotFoundError: {failed}; install it, or for a file write "
            f"{key} as {place.replace('.', '/')}.py:callable"
        ) from None
    except (Exception, SystemExit) as failed:
        raise error(_blame(failed, place)) from None


def _executed(path: Path, place: str, key: str, error: type[WithstandError]) -> Any:
    # A name that no package has, and another for each file.
    name = f"_withstand_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Fresh(name, str(path)))
    if not path.is_file() or spec is None or spec.loader is None:
        raise error(f"{place} is not there; correct {key}")
    module = importlib.util.module_from_spec(spec)
    # Classes of the file look for their module by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as failed:
        del sys.modules[name]
        raise error(_blame(failed, place)) from None
    return module


class _Fresh(SourceFileLoader):
    """Always compiles the file itself.

    Python's compiled copy is told from its source by size and whole seconds, so that a file which
    was written twice within one would run as it was before.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _blame(failed: BaseException, place: str) -> str:
    """One line that names the user's file and line."""
    ours = (str(Path(__file__).parent), importlib.__file__, "<frozen")
    frames = [
        frame
        for frame in traceback.extract_tb(failed.__traceback__)
        if not frame.filename.startswith(ours)
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    where = f"line {own[-1].lineno} of {Path(own[-1].filename).name}: " if own else ""
    if isinstance(failed, TypeError) and not own:
        where = "it is called without arguments: "
    return f"{place} failed: {where}{type(failed).__name__}: {one_line(failed)}; mend it there"
