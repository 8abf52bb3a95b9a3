"""Training for proofs on MNIST: what is proven, and what the training took."""

from __future__ import annotations

import torch
from measure import Rows
from networks import DATA, small

from withstand.certify.bounds import prove
from withstand.data import load_npz
from withstand.harden import IBP, adam, flat, harden, ibp_weights
from withstand.stats import wilson
from withstand.threat import Linf, Threat

# Radius to be proven: epochs, and the radius that is trained at.
RUNS = {0.1: (7, 0.15), 0.3: (8, 0.34)}


def certified() -> Rows:
    """Interval bound propagation at Linf 0.1 and 0.3: at least so many are proven.

    The first 8,000 test images, proven by CROWN over interval bounds; seed 0. The factor is over
    the seconds of standard training for as many epochs.
    """
    train = load_npz(DATA / "mnist.npz", "x_train", "y_train", scale=255)
    test = load_npz(DATA / "mnist.npz", "x_test", "y_test", scale=255, limit=8000)
    rows: Rows = []
    for eps, (epochs, radius) in RUNS.items():
        torch.manual_seed(0)
        net = small()
        ibp_weights(net)
        made = harden(
            net,
            train,
            IBP(region=Linf(radius), clean=0.0),
            epochs=epochs,
            growth=0.5,
            ema=0.0,
            guard=False,
            optimizer=adam(3e-3),
            schedule=flat(0.6),
        )
        threat = Threat(region=Linf(eps))
        found = prove(made.model, test.x, test.y, threat, method="crown-ibp")
        scores = made.model.scores(torch.from_numpy(test.x))
        right = int((scores.argmax(1).numpy() == test.y).sum())
        rows.append(
            {
                "eps": eps,
                "trained at": radius,
                "epochs": epochs,
                "clean": str(wilson(right, len(test))),
                "certified, at least": str(wilson(int(found.proven.sum()), len(test))),
                "CPU s": round(made.cost.seconds),
                "factor": round(made.cost.factor, 2),
            }
        )
        print(rows[-1], flush=True)
    return rows
