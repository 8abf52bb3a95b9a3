"""Reference: AutoAttack standard, kept in benchmarks/.cache by network, images, radius and seed."""

from __future__ import annotations

import hashlib
import json
import sys
import time

import torch
from networks import CACHE, mnist, network

CASES = (
    ("standard", 0.1),
    ("adversarial", 0.3),
    ("scaled", 0.1),
    ("fast", 0.3),
)
MASKED = (("scaled", 0.3), ("quantised", 0.3), ("quantised-scaled", 0.3))


def reference(name: str, eps: float, seed: int, n: int = 500) -> dict[str, float]:
    """Robust accuracy and CPU seconds of AutoAttack standard on the first n test images."""
    net = network(name)
    x, y = mnist("test", n)
    digest = hashlib.sha256(repr((name, eps, seed)).encode())
    for value in (*net.state_dict().values(), x, y):
        digest.update(value.numpy().tobytes())
    file = CACHE / f"autoattack-{name}-{eps}-{seed}-{digest.hexdigest()[:12]}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    from pyautoattack import AutoAttack

    began = time.process_time()
    attack = AutoAttack(net, norm="Linf", eps=eps, seed=seed, device="cpu")
    adversarial = attack.run_standard_evaluation(x, y)
    if isinstance(adversarial, tuple):
        adversarial = adversarial[0]
    seconds = time.process_time() - began
    with torch.no_grad():
        clean = (net(x).argmax(1) == y).float().mean().item()
        robust = (net(adversarial).argmax(1) == y).float().mean().item()
    found = {"clean": clean, "robust": robust, "cpu_seconds": seconds}
    file.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    seeds = [int(seed) for seed in sys.argv[1:]] or [0, 1, 2]
    for seed in seeds:
        for name, eps in (*CASES, *MASKED):
            print(name, eps, seed, reference(name, eps, seed), flush=True)
