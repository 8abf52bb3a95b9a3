"""What takes minutes or real data: runs in `make test-release`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))

RUN = """
import json, resource, sys
import numpy as np, torch
from torch import nn
from withstand.data import load_npz
from withstand.evaluate import evaluate
from withstand.models import TorchModel
from withstand.threat import Linf, Threat

path, n = sys.argv[1], int(sys.argv[2])
train = load_npz(path, "x_train", "y_train", scale=255, limit=10000)
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(),
    nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
    nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
)
x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
for rows in torch.split(torch.randperm(len(x)), 100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
    optimizer.step()
del train, x, y
data = load_npz(path, "x_test", "y_test", scale=255, limit=n)
report = evaluate(TorchModel(net), data, Threat(region=Linf(0.1)))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"peak_gib": peak, "robust": report.robust_accuracy.value, "n": len(data),
                  "cpu_seconds": report.cost.cpu_seconds}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_8000_pictures_fit_into_2_gib() -> None:
    if not (DATA / "mnist.npz").exists():
        pytest.skip(f"no mnist.npz in {DATA}; set WITHSTAND_DATA")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(DATA / "mnist.npz"), "8000"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n"] == 8000
    assert found["peak_gib"] < 2
    assert found["robust"] < 0.9
