"""Side by side with the peers: same network, same images, one process, interleaved, ratios."""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from autoattack import CASES, MASKED, reference
from measure import Counting, Rows, distances, right, table, timed
from networks import DATA, mnist, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand import __version__, attacks
from withstand.data import from_arrays
from withstand.evaluate import evaluate
from withstand.models import FunctionModel, TorchModel
from withstand.threat import L0, L1, L2, Linf, Threat

RESULTS = Path(__file__).parent / "results"
BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
PAIRS = 15


def against_autoattack() -> Rows:
    """The standard preset against AutoAttack standard: 500 images, three seeds."""
    x, y = mnist("test", 500)
    data = from_arrays(x.numpy(), y.numpy(), name="mnist test")
    rows: Rows = []
    for name, eps in CASES:
        model, threat = TorchModel(network(name)), Threat(region=Linf(eps))
        theirs = [reference(name, eps, seed) for seed in range(3)]
        ours = [evaluate(model, data, threat, seed=seed) for seed in range(3)]
        mine = np.mean([report.robust_accuracy.value for report in ours])
        other = np.mean([found["robust"] for found in theirs])
        spent = np.mean([report.cost.cpu_seconds for report in ours])
        their_spent = np.mean([found["cpu_seconds"] for found in theirs])
        rows.append(
            {
                "network": name,
                "eps": eps,
                "clean %": 100 * ours[0].clean_accuracy.value,
                "robust %, withstand": round(100 * mine, 2),
                "robust %, AutoAttack": round(100 * other, 2),
                "difference, points": round(100 * (mine - other), 2),
                "CPU s, withstand": round(spent, 1),
                "CPU s, AutoAttack": round(their_spent, 1),
                "CPU ratio": round(spent / their_spent, 3),
                "trust": "/".join(report.trust.verdict for report in ours),
            }
        )
    return rows


def masked() -> Rows:
    """Radius 0.3: logits times 100, and 16 input levels, 500 images, AutoAttack of three seeds."""
    x, y = mnist("test", 500)
    data = from_arrays(x.numpy(), y.numpy(), name="mnist test")
    rows: Rows = []
    for name, eps in MASKED:
        model, threat = TorchModel(network(name)), Threat(region=Linf(eps))
        theirs = [reference(name, eps, seed) for seed in range(3)]
        naive = attacks.run(attacks.PGD(steps=40), model, x, y, threat)
        report = evaluate(model, data, threat)
        rows.append(
            {
                "network": name,
                "robust %, PGD-40 alone": round(100 * float((~naive.success).float().mean()), 1),
                "robust %, withstand": round(100 * report.robust_accuracy.value, 1),
                "robust %, AutoAttack": round(100 * np.mean([r["robust"] for r in theirs]), 1),
                "CPU s, withstand": round(report.cost.cpu_seconds, 1),
                "CPU s, AutoAttack": round(np.mean([r["cpu_seconds"] for r in theirs]), 1),
                "trust": report.trust.verdict,
            }
        )
    return rows


def _bare(net: nn.Module, passes: list[Tensor], y: Tensor) -> None:
    for points in passes:
        points = points.detach().requires_grad_()
        torch.autograd.grad(cross_entropy(net(points), y, reduction="sum"), points)


def _whole(attack: attacks.Attack, models: dict[nn.Module, TorchModel], eps: float) -> peers.Attack:
    """Our attack with every row kept to the end, the model wrapped once."""
    threat = Threat(region=Linf(eps))
    return lambda net, x, y: attacks.run(attack, models[net], x, y, threat, compact=False).x_adv


def overhead() -> Rows:
    """CPU time over a bare loop of the same forward + input-gradient passes: 64 images, eps 0.1."""
    eps = 0.1
    rows: Rows = []
    for name in ("standard", "larger"):
        net = network(name).requires_grad_(False)
        counted = Counting(net, keep=True).eval()
        models = {net: TorchModel(net), counted: TorchModel(counted)}
        # A wrong image leaves at once even without compaction: the bare loop would do more work.
        x, y = right(net, *mnist("test", 128), 64)
        candidates = {
            "withstand PGD-40": _whole(attacks.PGD(steps=40), models, eps),
            "withstand APGD-CE-100": _whole(attacks.APGD(loss="ce"), models, eps),
            "withstand APGD-PMA-100": _whole(attacks.APGD(), models, eps),
        }
        # The larger network takes minutes, and shows the same of the peers.
        if name == "standard":
            candidates |= {f"{p} PGD-40": attack for p, attack in peers.pgd(eps, 40).items()}
        asked: dict[str, float] = {}
        passes: dict[str, list[Tensor]] = {}
        for label, attack in candidates.items():
            attack(counted, x, y)
            counted.clear()
            attack(counted, x, y)
            asked[label] = counted.asked / len(x)
            # What a pass costs depends on the pixels: the bare loop goes over the same ones.
            passes[label] = [points for points in counted.graded if len(points) == len(x)]
            counted.clear()
            attack(net, x, y)
        ratios: dict[str, list[float]] = {label: [] for label in candidates}
        for _ in range(PAIRS if name == "standard" else 5):
            for label, attack in candidates.items():
                before = timed(partial(_bare, net, passes[label], y)).cpu
                spent = timed(partial(attack, net, x, y)).cpu
                after = timed(partial(_bare, net, passes[label], y)).cpu
                ratios[label].append(2 * spent / (before + after))
        for label, found in ratios.items():
            low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
            rows.append(
                {
                    "network": name,
                    "attack": label,
                    "forwards": round(asked[label], 2),
                    "gradients": len(passes[label]),
                    "ratio, median": round(float(middle), 3),
                    "ratio, quartiles": f"{low:.3f} to {high:.3f}",
                }
            )
    return rows


def minimum_norm() -> Rows:
    """FMN at equal steps on the images that the network gets right among the first 500."""
    rows: Rows = []
    for name, norms in (("standard", ("l2", "linf", "l1", "l0")), ("adversarial", ("l2",))):
        net = network(name)
        x, y = right(net, *mnist("test", 500))
        for norm in norms:
            for steps in (100, 300):

                def ours(
                    net: nn.Module, x: Tensor, y: Tensor, norm: str = norm, steps: int = steps
                ) -> Tensor:
                    threat = Threat(region=BALLS[norm](np.inf))
                    return attacks.run(
                        attacks.FMN(steps=steps), TorchModel(net), x, y, threat
                    ).x_adv

                for label, attack in {"withstand": ours, **peers.fmn(norm, steps)}.items():
                    spent = timed(partial(attack, net, x, y))
                    found = distances(net, x, y, spent.found.detach(), norm)
                    rows.append(
                        {
                            "network": name,
                            "norm": norm,
                            "steps": steps,
                            "package": label,
                            "median distance": round(float(np.median(found)), 4),
                            "success %": round(100 * float(found.isfinite().float().mean()), 1),
                            "CPU s": round(spent.cpu, 1),
                        }
                    )
    return rows


def smallest() -> Rows:
    """The other minimum-norm attacks, each against its namesakes: 200 images, about equal steps."""
    cases: list[tuple[attacks.Attack, str, int]] = [
        *((attacks.FAB(steps=100, targets=3), norm, 100) for norm in ("linf", "l2", "l1")),
        (attacks.DDN(steps=100), "l2", 100),
        (attacks.SuperDeepFool(), "l2", 100),
        *((attacks.DeepFool(), norm, 50) for norm in ("linf", "l2")),
        (attacks.CarliniWagner(steps=100, searches=9), "l2", 900),
        (attacks.SigmaZero(steps=100), "l0", 100),
        *((attacks.PDPGD(steps=300), norm, 300) for norm in ("linf", "l2", "l1", "l0")),
    ]
    rows: Rows = []
    for name in ("standard", "adversarial"):
        net = network(name)
        x, y = right(net, *mnist("test", 220), 200)
        for attack, norm, steps in cases:
            method = type(attack).__name__

            def ours(
                net: nn.Module,
                x: Tensor,
                y: Tensor,
                attack: attacks.Attack = attack,
                norm: str = norm,
            ) -> Tensor:
                threat = Threat(region=BALLS[norm](np.inf))
                return attacks.run(attack, TorchModel(net), x, y, threat).x_adv

            theirs = peers.smallest(method, norm, steps)
            if method == "SuperDeepFool" and name == "adversarial":
                # adv-lib's does not end on this network.
                theirs = {}
            for label, peer in {"withstand": ours, **theirs}.items():
                counted = Counting(net).eval()
                spent = timed(partial(peer, counted, x, y))
                found = distances(net, x, y, spent.found.detach(), norm)
                print(f"{name} {method} {norm} {label}", flush=True)
                rows.append(
                    {
                        "network": name,
                        "attack": method,
                        "norm": norm,
                        "package": label,
                        "median distance": round(float(np.median(found)), 4),
                        "success %": round(100 * float(found.isfinite().float().mean()), 1),
                        "forwards": round(counted.asked / len(x)),
                        "CPU s": round(spent.cpu, 1),
                    }
                )
    return rows


def decisions() -> Rows:
    """HopSkipJump on 50 images at about 1,000 and 5,000 queries each; ART's cannot be seeded."""
    rows: Rows = []
    for name in ("standard", "larger"):
        net = network(name)
        x, y = right(net, *mnist("test", 70), 50)
        # ART has no budget: these iterations and first evaluations come to about the queries.
        for queries, iterations, first in ((1000, 5, 110), (5000, 17, 98)):
            counted = Counting(net).eval()
            theirs = timed(partial(peers.hopskipjump("l2", iterations, first), counted, x, y))
            other = distances(net, x, y, theirs.found, "l2")
            threat = Threat(region=L2(np.inf), access="labels")
            attack = attacks.HopSkipJump(queries=queries)
            mine = timed(partial(attacks.run, attack, TorchModel(net), x, y, threat))
            found = distances(net, x, y, mine.found.x_adv, "l2")
            said = [status == attacks.Status.FOOLED for status in mine.found.status]
            rows.append(
                {
                    "network": name,
                    "queries, withstand": round(float(mine.found.ledger.forwards.float().mean())),
                    "queries, ART": round(counted.asked / len(x)),
                    "median L2, withstand": round(float(np.median(found)), 4),
                    "median L2, ART": round(float(np.median(other)), 4),
                    "CPU s, withstand": round(mine.cpu, 1),
                    "CPU s, ART": round(theirs.cpu, 1),
                    "CPU ratio": round(mine.cpu / theirs.cpu, 3),
                    "wall ratio": round(mine.wall / theirs.wall, 3),
                    "not fooled, withstand": int((~found.isfinite()).sum()),
                    "not fooled, ART": int((~other.isfinite()).sum()),
                    "said to be fooled and not": int(
                        (torch.tensor(said) & ~found.isfinite()).sum()
                    ),
                }
            )
    return rows


def trees() -> Rows:
    """Labels of boosted trees on breast cancer, 150 rows at about 1,000 queries each, L2."""
    from lightgbm import LGBMClassifier
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier
    from xgboost import XGBClassifier

    raw, y = load_breast_cancer(return_X_y=True)
    x = ((raw - raw.min(0)) / np.ptp(raw, axis=0)).astype(np.float32)
    rows: Rows = []
    for estimator in (
        GradientBoostingClassifier(random_state=0),
        XGBClassifier(n_jobs=1),
        LGBMClassifier(n_jobs=1, verbose=-1),
    ):
        estimator.fit(x[:400], y[:400])
        chosen = 400 + (estimator.predict(x[400:]) == y[400:]).nonzero()[0][:150]
        rest, labels = x[chosen], y[chosen]
        asked = [0]

        def answer(batch: Any, estimator: Any = estimator, asked: list[int] = asked) -> Any:
            asked[0] += len(batch)
            return estimator.predict(np.asarray(batch, np.float32)).astype(int)

        theirs = peers.hopskipjump_on_rows(answer, x.shape[1], 5, 110)
        spent = timed(partial(theirs, rest))
        their_queries = asked[0] / len(rest)
        gone = np.where(
            answer(spent.found) != labels, np.linalg.norm(spent.found - rest, axis=1), np.inf
        )
        model = FunctionModel(answer, returns="labels", domain=(0, 1))
        threat = Threat(region=L2(np.inf), access="labels")
        for attack in (attacks.HopSkipJump(queries=1000), attacks.CGBA(queries=1000)):
            mine = timed(
                partial(
                    attacks.run, attack, model, torch.from_numpy(rest), torch.from_numpy(labels),
                    threat, batch_size=150,
                )
            )  # fmt: skip
            rows.append(
                {
                    "model": type(estimator).__name__,
                    "attack": type(attack).__name__,
                    "queries, withstand": round(float(mine.found.ledger.forwards.float().mean())),
                    "queries, ART HopSkipJump": round(their_queries),
                    "median L2, withstand": round(float(mine.found.distance.median()), 4),
                    "median L2, ART": round(float(np.median(gone)), 4),
                    "wall s, withstand": round(mine.wall, 2),
                    "wall s, ART": round(spent.wall, 2),
                    "ART's time over ours": round(spent.wall / mine.wall, 1),
                }
            )
    return rows


def square() -> Rows:
    """Square at 5,000 queries on 100 images that the network gets right."""
    rows: Rows = []
    for name, eps in (("standard", 0.1), ("adversarial", 0.3)):
        net = network(name)
        x, y = right(net, *mnist("test", 120), 100)
        threat = Threat(region=Linf(eps), access="scores")

        def ours(net: nn.Module, x: Tensor, y: Tensor, threat: Threat = threat) -> Tensor:
            return attacks.run(attacks.Square(), TorchModel(net), x, y, threat).x_adv

        for label, attack in {"withstand": ours, **peers.square(eps, 5000)}.items():
            counted = Counting(net).eval()
            spent = timed(partial(attack, counted, x, y))
            found = distances(net, x, y, spent.found, "linf")
            rows.append(
                {
                    "network": name,
                    "eps": eps,
                    "package": label,
                    # Peers round outward: a change may be a float32 step longer than eps.
                    "robust %": round(100 * float((found > eps + 1e-6).float().mean()), 1),
                    "images asked, mean": round(counted.asked / len(x)),
                    "CPU s": round(spent.cpu, 1),
                }
            )
    return rows


PARTS = {
    "autoattack": against_autoattack,
    "masked": masked,
    "overhead": overhead,
    "minimum-norm": minimum_norm,
    "smallest": smallest,
    "decisions": decisions,
    "square": square,
    "trees": trees,
}


def conditions() -> dict[str, Any]:
    """Under which the figures hold."""
    return {
        "withstand": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, CPU, {torch.get_num_threads()} thread",
        "data": "MNIST test images in order",
        "seeds": "0 where nothing else is said; 0, 1, 2 against AutoAttack",
        **peers.versions(),
    }


def main() -> None:
    """Run the named parts, or all, and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="part")
    names = parser.parse_args().parts or list(PARTS)
    if not (DATA / "mnist.npz").exists():
        print(f"skipped: no {DATA / 'mnist.npz'}; set WITHSTAND_DATA to the folder that has it")
        return
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        rows = PARTS[name]()
        told = {"what": (PARTS[name].__doc__ or "").strip(), "conditions": conditions()}
        file = RESULTS / f"{name}.json"
        file.write_text(json.dumps({**told, "rows": rows}, indent=2) + "\n")
        print(f"\n{told['what']}\n\n{table(rows)}", flush=True)
    parts = [json.loads((RESULTS / f"{name}.json").read_text()) for name in PARTS
             if (RESULTS / f"{name}.json").exists()]  # fmt: skip
    shown = "".join(f"## {part['what']}\n\n{table(part['rows'])}\n" for part in parts)
    told = "\n".join(f"- {key}: {value}" for key, value in conditions().items())
    (RESULTS / "README.md").write_text(f"# Results\n\n{told}\n\n{shown.rstrip()}\n")


if __name__ == "__main__":
    main()
