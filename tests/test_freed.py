"""A process keeps the memory that its networks free, instead of getting it anew for each pass."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PASSES = """
import resource, sys
import torch
from torch import nn
from withstand.models import TorchModel

torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten())
if sys.argv[1] == "model":
    TorchModel(net)
x = torch.rand(100, 1, 28, 28)
faults = []
with torch.no_grad():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            net(x)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's way with freed memory")
def test_a_pass_over_a_batch_gets_no_new_pages() -> None:
    # The least of four rounds: a block may once be put where none was before, which is 1,225 pages
    # in that round; without the call every one of a round's 40 blocks is.
    def faults(kind: str) -> int:
        command = [sys.executable, "-c", PASSES, kind]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return int(ended.stdout)

    assert faults("net") > 2000
    assert faults("model") < 200
