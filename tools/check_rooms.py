"""Lint step: a room imports only from rooms on floors below its own."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FLOORS = (
    ("threat", "config", "stats"),
    ("models", "data"),
    ("attacks", "evidence"),
    ("certify",),
    ("evaluate",),
    ("harden", "detect", "audit"),
    ("guard", "monitor"),
    ("gate", "respond", "redteam"),
    ("ui", "workflows"),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and room of every import of our own package, relative or absolute."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *((node.module or "").split(".") if node.module else ()))
            names = [(*stem, alias.name) for alias in node.names]
        for name in names:
            if name[:1] == (package[0],) and len(name) > 1:
                yield node.lineno, name[1]


def violations(source: Path) -> Iterator[str]:
    """One line for each import that does not go strictly downward."""
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).parts
        room = parts[0] if len(parts) > 1 else None
        package = (source.name, *parts[:-1])
        if room is not None and room not in FLOOR and room != "testing":
            yield f"{path}: room {room!r} has no floor; add it to FLOORS"
            continue
        if room is None or room == "testing":
            continue
        for line, other in imported(ast.parse(path.read_text()), package):
            if other == "testing":
                yield f"{path}:{line}: nothing imports testing/"
            elif other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]:
                floors = f"{room}/ (floor {FLOOR[room]}) imports {other}/ ({FLOOR[other]})"
                yield f"{path}:{line}: {floors}"


if __name__ == "__main__":
    found = list(violations(Path(sys.argv[1])))
    print("\n".join(found) or "rooms: imports go downward")
    sys.exit(bool(found))
