"""The lint step that keeps the rooms' import order."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
check_rooms = importlib.import_module("check_rooms")


@pytest.mark.parametrize(
    "line",
    ["from ..evaluate import x", "from withstand.evaluate import x", "from .. import evaluate"],
)
def test_upward_import_is_found(tmp_path: Path, line: str) -> None:
    room = tmp_path / "withstand" / "attacks"
    room.mkdir(parents=True)
    (room / "_x.py").write_text(line + "\n")
    (found,) = check_rooms.violations(tmp_path / "withstand")
    assert "attacks/ (floor 2) imports evaluate/ (4)" in found


def test_unknown_room_is_found(tmp_path: Path) -> None:
    room = tmp_path / "withstand" / "attic"
    room.mkdir(parents=True)
    (room / "_x.py").write_text("")
    (found,) = check_rooms.violations(tmp_path / "withstand")
    assert "'attic' has no floor" in found


def test_our_rooms_import_downward() -> None:
    assert list(check_rooms.violations(ROOT / "src" / "withstand")) == []
