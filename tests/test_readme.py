"""Every Python block of the README runs."""

import re
from pathlib import Path

import pytest


def test_python_blocks_run(capsys: pytest.CaptureFixture[str]) -> None:
    readme = Path(__file__).parents[1] / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
    assert "tensor" in capsys.readouterr().out
