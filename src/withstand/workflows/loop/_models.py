"""Two small classifiers of digits, and the data that all of the loop is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .. import _networks
from .._digits import digits, fit


def make(folder: Path) -> None:
    """Write data, model.py, and the weights of both classifiers to a folder; half a minute."""
    from safetensors.torch import save_file

    train, test = digits()
    np.savez(folder / "data.npz", x_train=train.x, y_train=train.y, x_test=test.x, y_test=test.y)
    # The folder is a project of its own, as its owner would have it.
    (folder / "model.py").write_text(Path(_networks.__file__).read_text())
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    for factory, file, epochs in ((_networks.build, "v1", 8), (_networks.lean, "v2", 20)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = factory()
            fit(net, x, y, epochs)
        save_file(net.state_dict(), folder / f"{file}.safetensors")
