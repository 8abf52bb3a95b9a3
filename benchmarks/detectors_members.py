"""Which methods a fused detector is made of, chosen on images that its figures are not of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from detectors import CASES, parts
from detectors_peers import attacked
from measure import Rows
from torch import Tensor

from withstand.attacks import FMN, Attack, CarliniWagner, Square, run
from withstand.detect import Confidence, Detector, Fused, fit
from withstand.models import TorchModel
from withstand.stats import clopper_pearson
from withstand.threat import L2, Linf, Threat

FIRST, ATTACKED, BENIGN = 2000, 100, 1000


def members() -> Rows:
    """What each choice of methods flags: of PGD at its end, FMN, C&W (L2), Square, benign images.

    100 test images from the 2,000th on (the second half where there are fewer than 4,000), up to
    1,000 benign ones after these; the figures of `detectors` are of attacks on the first 200. In
    brackets the exact 95 % interval.
    The choice is the one that flags most of C&W among those that flag at least 99 % of PGD.
    """
    rows: Rows = []
    for name, case in CASES.items():
        found = parts(case.data, case.network)
        model = TorchModel(found.net)
        first = min(FIRST, len(found.tested[0]) // 2)
        x, y = (part[first : first + ATTACKED] for part in found.tested)
        benign = found.tested[0][first + ATTACKED : first + ATTACKED + BENIGN]
        made = dict(_made(model, x, y, case.eps))
        assert isinstance(case.method, Fused)
        for told, method in _choices(case.method):
            detector = fit(method, model, *found.fitted).calibrate(found.held_out)
            flagged = {attack: _flagged(detector, adv) for attack, adv in made.items()}
            rows.append(
                {"case": name, "fused": told, **flagged, "benign": _flagged(detector, benign)}
            )
            print(rows[-1], flush=True)
    return rows


def _choices(method: Fused) -> Iterator[tuple[str, Fused]]:
    looked = tuple(p for p in method.parts if not isinstance(p, Confidence))
    for by in ("max", "harmonic", "fisher"):
        yield f"no confidence, {by}", replace(method, parts=looked, by=by)
        for of in ("margin", "probability"):
            parts_ = (*looked, Confidence(of=of))
            yield f"{of}, {by}", replace(method, parts=parts_, by=by)


def _made(model: TorchModel, x: Tensor, y: Tensor, eps: float) -> Iterator[tuple[str, Tensor]]:
    yield "PGD", attacked(model.net, x, y, eps)
    ball, anywhere = Threat(region=Linf(eps)), Threat(region=L2(torch.inf))
    tried: dict[str, tuple[Attack, Threat]] = {
        "FMN": (FMN(steps=100), ball),
        "C&W (L2)": (CarliniWagner(steps=100, searches=4, constant=1.0), anywhere),
        "Square": (Square(queries=1000), ball),
    }
    right = model.labels(x) == y
    for name, (attack, threat) in tried.items():
        result = run(attack, model, x, y, threat, seed=0)
        yield name, result.x_adv[result.success & right]


def _flagged(detector: Detector, x: Tensor) -> str:
    return str(clopper_pearson(int(detector.flags(x).sum()), len(x))) if len(x) else "none"
