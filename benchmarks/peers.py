"""Thin adapters around the peers' attacks: a network and images in, examples out."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

PACKAGES = (
    "adversarial-robustness-toolbox",
    "foolbox",
    "torchattacks",
    "adv-lib",
    "pyautoattack",
    "secml-torch",
    "pyod",
    "pymoo",
)
INF = float("inf")


def versions() -> dict[str, str]:
    """The installed versions of all peers."""
    return {name: version(name) for name in PACKAGES}


def _stub(*names: str) -> None:
    """Stand-ins for packages that a peer imports and these attacks never use."""
    for name in names:
        if name not in sys.modules:
            module: Any = types.ModuleType(name)
            module.__getattr__ = lambda _: None
            module.__path__ = []
            module.__spec__ = ModuleSpec(name, None)
            sys.modules[name] = module


@cache
def art_classifier(net: nn.Module) -> Any:
    """The network as ART sees it."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        net, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )


Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def pgd(eps: float, steps: int) -> dict[str, Attack]:
    """PGD with random start in Linf, step size 2.5 eps / steps."""
    alpha = 2.5 * eps / steps

    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        attack = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=alpha)
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return attack(model, x, y, epsilons=eps)[1]

    def by_torchattacks(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks

        return torchattacks.PGD(net, eps=eps, alpha=alpha, steps=steps)(x, y)

    def by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch

        attack = ProjectedGradientDescentPyTorch(
            art_classifier(net), eps=float(eps), eps_step=float(alpha), max_iter=steps,
            num_random_init=1, batch_size=len(x), verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    def by_adv_lib(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        _stub("torchvision", "torchvision.utils", "visdom")
        from adv_lib.attacks import pgd_linf

        return pgd_linf(net, x, y, eps, steps=steps, random_init=True, absolute_step_size=alpha)

    return {
        "foolbox": by_foolbox,
        "torchattacks": by_torchattacks,
        "art": by_art,
        "adv-lib": by_adv_lib,
    }


def fmn(norm: str, steps: int) -> dict[str, Attack]:
    """FMN in one of the four norms with each package's own defaults, at equal steps."""

    def by_adv_lib(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        _stub("torchvision", "torchvision.utils", "visdom")
        from adv_lib.attacks import fmn as attack

        p = {"linf": INF, "l2": 2, "l1": 1, "l0": 0}[norm]
        return attack(net, x, y, p, steps=steps)

    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        kind = {"linf": "LInf", "l2": "L2", "l1": "L1", "l0": "L0"}[norm]
        attack = getattr(foolbox.attacks, f"{kind}FMNAttack")(steps=steps)
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return attack(model, x, y, epsilons=None)[0]

    def by_secml(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        _stub("torchvision", "torchvision.transforms")
        from secmlt.adv.evasion.fmn import FMN
        from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
        from torch.utils.data import DataLoader, TensorDataset

        attack = FMN(perturbation_model=norm, num_steps=steps, step_size=1.0)
        batches = DataLoader(TensorDataset(x, y), batch_size=len(x))
        found = attack(BasePyTorchClassifier(net), batches)
        return torch.cat([batch for batch, _ in found])

    return {"adv-lib": by_adv_lib, "foolbox": by_foolbox, "secml-torch": by_secml}


def hopskipjump(norm: str, iterations: int, first: int) -> Attack:
    """ART's HopSkipJump: iterations, the first with `first` evaluations, and no query budget."""

    def by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import HopSkipJump

        attack = HopSkipJump(
            art_classifier(net), norm=2 if norm == "l2" else np.inf, max_iter=iterations,
            init_eval=first, verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return by_art


def smallest(method: str, norm: str, steps: int) -> dict[str, Attack]:
    """Minimum-norm attacks of the same name, at equal steps; searches as each package counts."""
    p = {"linf": INF, "l2": 2.0, "l1": 1.0, "l0": 0.0}[norm]

    def by_adv_lib(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        _stub("torchvision", "torchvision.utils", "visdom")
        from adv_lib import attacks as lib

        calls: dict[str, Callable[[], Tensor]] = {
            "DDN": lambda: lib.ddn(net, x, y, steps=steps, levels=None),
            "FAB": lambda: lib.fab(net, x, y, norm=p, n_iter=steps),
            "SuperDeepFool": lambda: lib.sdf(net, x, y, steps=steps),
            "DeepFool": lambda: lib.df(net, x, y, steps=50, norm=p),
            "CarliniWagner": lambda: lib.carlini_wagner_l2(
                net, x, y, binary_search_steps=9, max_iterations=steps // 9
            ),
            "SigmaZero": lambda: lib.sigma_zero(net, x, y, num_steps=steps),
            "ALMA": lambda: lib.alma(net, x, y, num_steps=steps, distance=norm),
            "PDPGD": lambda: (
                lib.pdgd(net, x, y, num_steps=steps)
                if norm == "l2"
                else lib.pdpgd(net, x, y, norm=p, num_steps=steps)
            ),
        }
        return calls[method]()

    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox

        kind = {"linf": "Linf", "l2": "L2"}.get(norm, "")
        attack = {
            "DDN": lambda: foolbox.attacks.DDNAttack(steps=steps),
            "DeepFool": lambda: getattr(foolbox.attacks, f"{kind}DeepFoolAttack")(steps=50),
            "CarliniWagner": lambda: foolbox.attacks.L2CarliniWagnerAttack(
                binary_search_steps=9, steps=steps // 9
            ),
        }[method]()
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return attack(model, x, y, epsilons=None)[0]

    def by_art(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import CarliniL2Method

        # Its line search asks some ten times an iteration.
        attack = CarliniL2Method(
            art_classifier(net), binary_search_steps=9, max_iter=steps // 90, batch_size=len(x),
            verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    found: dict[str, Attack] = {"adv-lib": by_adv_lib}
    if method == "CarliniWagner":
        found["art"] = by_art
    if method in ("DDN", "CarliniWagner") or (method == "DeepFool" and norm in ("linf", "l2")):
        found["foolbox"] = by_foolbox
    return found


def hopskipjump_on_rows(
    answer: Callable[[Any], Any], features: int, iterations: int, first: int
) -> Callable[[Any], Any]:
    """ART's HopSkipJump in L2 against labels (B,) of a function of rows (B, d) in [0, 1]."""
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import BlackBoxClassifier

    def one_hot(x: Any) -> Any:
        return np.eye(2)[answer(x)]

    victim = BlackBoxClassifier(one_hot, (features,), 2, clip_values=(0, 1))
    attack = HopSkipJump(victim, norm=2, max_iter=iterations, init_eval=first, verbose=False)
    return lambda x: attack.generate(x)


class Evolved(NamedTuple):
    """Whether a search succeeded, CPU seconds until then, or in all, and how often it asked."""

    success: bool
    cpu: float
    forwards: int


def rnsga3() -> Callable[[Any, Any, Any, Any, Any, int], Evolved]:
    """pymoo's R-NSGA-III in the setting of MOEVA (Simonetto et al. 2022), for one row (F,).

    Called with a row, its lower and upper ends (F,), which features are whole numbers, what judges
    rows (B, F): the true class's probability, the violation and which rows succeed, and a seed.
    """
    from pymoo.algorithms.moo.rnsga3 import RNSGA3
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.pm import PM
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    directions = get_reference_directions("energy", 3, 203, seed=1)

    def search(x: Any, low: Any, high: Any, whole: Any, judged: Any, seed: int) -> Evolved:
        began, free = time.process_time(), np.flatnonzero(high > low)
        width = (high - low)[free]
        found: dict[str, float] = {}
        asked = [0]

        class Rows(Problem):
            def _evaluate(self, points: Any, out: Any, *_: Any, **__: Any) -> None:
                rows = np.repeat(x[None], len(points), 0).astype(np.float64)
                rows[:, free] = points
                rows[:, whole] = np.rint(rows[:, whole])
                rows = np.clip(rows, low, high).astype(np.float32)
                asked[0] += len(rows)
                probability, violation, good = judged(rows)
                if good.any():
                    found.setdefault("at", time.process_time())
                apart = np.sqrt((((rows - x)[:, free] / width) ** 2).sum(1))
                out["F"] = np.stack([probability, apart, violation], 1)

        algorithm = RNSGA3(
            ref_points=directions, pop_per_ref_point=1, mu=0.05, n_offsprings=100,
            sampling=np.repeat(x[None, free].astype(np.float64), 203, 0),
            crossover=TwoPointCrossover(), mutation=PM(eta=20), eliminate_duplicates=False,
        )  # fmt: skip
        problem = Rows(n_var=len(free), n_obj=3, xl=low[free], xu=high[free])
        minimize(problem, algorithm, ("n_gen", 100), seed=seed, verbose=False)
        return Evolved(bool(found), found.get("at", time.process_time()) - began, asked[0])

    return search


def smoothing(net: nn.Module, sigma: float) -> Callable[[Any, int, int], Any]:
    """ART's randomised smoothing: images, draws and batch size in, radii (B,) out."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    smoothed = PyTorchRandomizedSmoothing(
        net, nn.CrossEntropyLoss(), (1, 28, 28), 10, device_type="cpu", sample_size=100,
        scale=sigma, alpha=0.001,
    )  # fmt: skip
    return lambda x, draws, batch: smoothed.certify(x, n=draws, batch_size=batch)[1]


def outliers(width: float) -> dict[str, Any]:
    """PyOD's detectors by name: `fit` rows (N, F), score them by `decision_function`."""
    from pyod.models.ecod import ECOD
    from pyod.models.iforest import IForest
    from pyod.models.kde import KDE
    from pyod.models.knn import KNN
    from pyod.models.lof import LOF
    from pyod.models.mcd import MCD
    from pyod.models.pca import PCA

    return {
        "KNN": KNN(n_neighbors=10),
        "KDE": KDE(bandwidth=width),
        "IForest": IForest(n_estimators=100, random_state=0),
        "PCA": PCA(),
        "ECOD": ECOD(),
        "LOF": LOF(n_neighbors=20),
        "MCD": MCD(random_state=0),
    }


def activation_detector(
    net: nn.Module, x: Tensor, layer: str, radii: tuple[float, ...], attacked: int, steps: int
) -> Callable[[Tensor], Any]:
    """ART's BinaryActivationDetector, trained against its own PGD: images in, logits (B,) out."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.defences.detector.evasion import BinaryActivationDetector
    from art.estimators.classification import PyTorchClassifier

    victim = PyTorchClassifier(
        net, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )
    parts = [x.numpy()]
    for eps in radii:
        attack = ProjectedGradientDescentPyTorch(
            victim, eps=eps, eps_step=2.5 * eps / steps, max_iter=steps, num_random_init=1,
            batch_size=256, verbose=False,
        )  # fmt: skip
        parts.append(attack.generate(x[:attacked].numpy()))
    place = next(n for n in victim.layer_names if n.split(".")[-1] == layer)
    shape = victim.get_activations(x[:1].numpy(), place, 1).shape[1:]
    torch.manual_seed(0)
    judge = nn.Sequential(
        nn.Flatten(), nn.Linear(int(np.prod(shape)), 32), nn.ReLU(), nn.Linear(32, 2)
    )
    trained = PyTorchClassifier(
        judge, nn.CrossEntropyLoss(), shape, 2, device_type="cpu",
        optimizer=torch.optim.Adam(judge.parameters(), 1e-3),
    )  # fmt: skip
    detector = BinaryActivationDetector(victim, trained, place)
    labels = np.repeat([0, 1], [len(x), len(radii) * attacked])
    detector.fit(np.concatenate(parts), np.eye(2)[labels], batch_size=128, nb_epochs=20)

    def logits(x: Tensor) -> Any:
        found = detector.detect(x.numpy())[0]["predictions"]
        return found[:, 1] - found[:, 0]

    return logits
