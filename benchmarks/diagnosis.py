"""What the diagnosis adds to an evaluation."""

from __future__ import annotations

from detectors import parts
from measure import Rows

from withstand.data import from_arrays
from withstand.evaluate import evaluate
from withstand.models import TorchModel
from withstand.threat import Linf, Threat

IMAGES = 200


def diagnosis() -> Rows:
    """The share that the checks add to the preset standard: 200 images of CIFAR-10, Linf.

    Within one run: what the checks ask for and take, over all the rest. At the small radius nearly
    all images go through every attack, at the large one hardly any.
    """
    found = parts("cifar10", "standard")
    model = TorchModel(found.net)
    x, y = (part[:IMAGES].numpy() for part in found.tested)
    rows: Rows = []
    for pixels in (1, 2, 8):
        report = evaluate(model, from_arrays(x, y), Threat(region=Linf(pixels / 255)))
        whole, checks = report.cost, report.trust.cost
        rest = whole - checks
        rows.append(
            {
                "eps": f"{pixels}/255",
                "robust": str(report.robust_accuracy),
                "trust": report.trust.verdict,
                "CPU s": round(whole.cpu_seconds, 1),
                "adds CPU": f"{100 * checks.cpu_seconds / rest.cpu_seconds:.1f} %",
                "adds forwards": f"{100 * checks.forwards / rest.forwards:.1f} %",
                "adds backwards": f"{100 * checks.backwards / rest.backwards:.1f} %",
            }
        )
    return rows
