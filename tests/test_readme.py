"""Every block of the documentation runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from processes import script, withstand

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]
BLOCK = re.compile(r"```(\w+)(?: file=(\S+))?\n(.*?)```", re.DOTALL)
WITH_BLOCKS = [page for page in PAGES if BLOCK.search((ROOT / page).read_text())]


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_run(page: str, tmp_path: Path) -> None:
    ran = 0
    for language, file, text in BLOCK.findall((ROOT / page).read_text()):
        if file:
            (tmp_path / file).write_text(text)
        elif language == "python":
            done = script(text, tmp_path)
            assert done.returncode == 0, done.stderr
            ran += 1
        elif language == "console":
            for line in re.findall(r"^\$ withstand (.*)$", text, re.MULTILINE):
                done = withstand(*line.split(), folder=tmp_path)
                assert done.returncode == 0, done.stderr
                ran += 1
    assert ran


def test_links_lead_somewhere() -> None:
    missing = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
        if not link.startswith("http") and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not missing
