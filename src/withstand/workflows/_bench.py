"""Which attack comes nearest to the smallest change on this model and data, at what cost."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._errors import BudgetError, ConfigError, DataError, ThreatError, did_you_mean, listed
from .._version import __version__
from ..attacks import Attack, Checkpoint, Spatial, registry, sample_keys
from ..data import Dataset
from ..evaluate import PRESETS, Cost, Progress, check_clean, check_domain, sweep, weakest
from ..models import Model, adapt, counted, describe
from ..stats import wilson
from ..threat import ACCESS, Access, MultiLabel, Regression, Targeted, Threat
from ..threat.tabular import Capability
from ._bench_result import AttackBench, judged
from ._bench_search import Search, in_norm, sized
from ._bench_trail import Trail

PRESET = "evaluate's sweep"


def bench_attacks(
    model: Model,
    data: Dataset,
    threat: Threat,
    *,
    attacks: Sequence[str] | Mapping[str, Attack] | None = None,
    calls: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> AttackBench:
    """AttackBench's protocol (Cina et al. 2025) in the threat's norm; its radius plays no part.

    attacks: names, each sized to the budget, or attacks by any name, run as they are; if not given
    all registered ones that know the norm and fit the access: those that need gradients where
    there are any, else all. calls: forwards and backwards together for each sample, never exceeded.
    The sweep of the standard preset is measured beside them. checkpoint: a file from which the same
    call goes on behind the attacks that were done; deleted at the end. Raises ConfigError for an
    unknown name and another WithstandError for what cannot be attacked.
    """
    with counted(model, checkpoint):
        if calls < 2:
            raise BudgetError(f"calls is {calls}; give at least 2, a forward and a backward")
        threat = in_norm(threat, threat.norm)
        access = weakest(model.access, threat.access)
        entries = _entries(attacks, threat, access, calls)
        device = getattr(model, "device", torch.device("cpu"))
        x = torch.from_numpy(np.ascontiguousarray(data.x)).to(device)
        y = torch.from_numpy(np.ascontiguousarray(data.y)).to(device)
        asked, right, classes = _clean(model, x, y, threat, batch_size)
        own = sweep(PRESETS["standard"], threat, access, classes)
        if own is not None:
            entries[PRESET] = own
        rows = right.nonzero()[:, 0]
        if not len(rows):
            raise DataError(
                "the model gets no input right, so there is nothing to attack; check both"
            )
        search = Search(
            model=asked,
            x=x[rows],
            y=y[rows],
            keys=sample_keys(x, y)[rows.cpu()],
            threat=replace(threat, access=access).take(rows.cpu().numpy()),
            calls=calls,
            seed=seed,
            batch_size=batch_size,
        )
        kept = None if checkpoint is None else Checkpoint(checkpoint, _fingerprint(model, search))
        trails: dict[str, Trail] = {}
        costs: dict[str, Cost] = {}
        known = registry()
        left_out = {
            name: f"it is for {', '.join(known[name].norms)}, given {known[name].needs}"
            for name in (attacks or ())
            if name not in entries
        }
        for name, attack in entries.items():
            try:
                trails[name], costs[name] = _one(search, name, attack, kept, progress)
            except (DataError, ThreatError) as error:
                # What nobody asked for may not fit the data or the goal after all.
                if attacks is not None:
                    raise
                left_out[name] = str(error)
        if not trails:
            raise ThreatError(next(iter(left_out.values())))
        if kept is not None:
            kept.remove()
        return AttackBench(
            norm=threat.norm,
            attacks=judged(
                {name: entries[name] for name in trails}, trails, costs, right.cpu().numpy(), calls
            ),
            clean_accuracy=wilson(len(rows), len(x)),
            threat={**threat.describe(), "access": access},
            calls=calls,
            seed=seed,
            left_out=left_out,
            provenance={
                "model": describe(model),
                "data": {**vars(data.provenance), "shape": list(data.provenance.shape)},
                "samples": len(x),
                "batch_size": batch_size,
                "versions": {
                    "withstand": __version__,
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
                "threads": torch.get_num_threads(),
                "device": str(device),
            },
        )


def _fingerprint(model: Model, search: Search) -> str:
    """Names a bench: model, samples, what can be reached from them, and settings."""
    told = (
        __version__, describe(model), search.threat.describe(), search.calls, search.seed,
        search.batch_size,
    )  # fmt: skip
    digest = hashlib.blake2b(repr(told).encode(), digest_size=16)
    digest.update(search.keys.cpu().numpy().tobytes())
    for part in search.threat.region:
        digest.update(part.content())
    return digest.hexdigest()


def _entries(
    attacks: Sequence[str] | Mapping[str, Attack] | None,
    threat: Threat,
    access: Access,
    calls: int,
) -> dict[str, Attack]:
    """What runs, by name."""
    if isinstance(attacks, Mapping):
        entries = dict(attacks)
    else:
        known = registry()
        for name in attacks or ():
            if name not in known:
                raise ConfigError(
                    f"attack {name!r} is not known{did_you_mean(name, known) or ';'} "
                    f"they are {listed(known, 40)}"
                )
        table = any(isinstance(part, Capability) for part in threat.region)
        # A turned picture is far away in every norm.
        chosen = attacks or [name for name, kind in known.items() if kind is not Spatial]
        fitting = [
            name
            for name in chosen
            if threat.norm in known[name].norms
            and (attacks or known[name].tables == table)
            and ACCESS.index(access) <= ACCESS.index(known[name].needs)
            and (attacks or access != "gradients" or known[name].needs == "gradients")
        ]
        entries = {name: sized(known[name], calls) for name in fitting}
    if not entries:
        raise ThreatError(
            f"none of {listed(attacks) if attacks else 'the attacks'} fits norm {threat.norm} and "
            f"access {access}; choose others, another norm, or more access"
        )
    return entries


def _clean(
    model: Model, x: Tensor, y: Tensor, threat: Threat, batch: int
) -> tuple[Model, Tensor, int]:
    """The model with logits, which samples (N,) it answers rightly, and its classes."""
    check_domain(model, x)
    goal = threat.goal
    with model.held():
        if model.access == "labels":
            answers = clean = torch.cat([model.labels(part) for part in torch.split(x, batch)])
        else:
            if not isinstance(goal, Regression | MultiLabel):
                model, _ = adapt(model, model.scores(x[:batch]))
            clean = torch.cat([model.scores(part) for part in torch.split(x, batch)])
            answers = goal.decide(clean)
    classes = clean.shape[1] if clean.ndim == 2 else int(clean.max()) + 1
    check_clean(goal, clean, answers, y, classes)
    right = ~goal.hit(answers, y)
    # Another wrong answer than the wanted one is no right one either.
    if isinstance(goal, Targeted):
        right &= answers == y
    return model, right, classes


def _one(
    search: Search,
    name: str,
    attack: Attack,
    kept: Checkpoint | None,
    progress: Callable[[Progress], None] | None,
) -> tuple[Trail, Cost]:
    """One attack on all samples, or what the checkpoint says of it."""
    key = f"{name}: {attack!r}"
    if kept is not None and key in kept.content:
        saved = kept.content[key]
        return Trail.restored(saved["trail"]), Cost(**saved["cost"])

    def tell(done: int, total: int, fooled: int) -> None:
        if progress is not None:
            progress(Progress(stage=name, done=done, total=total, fooled=fooled))

    tell(0, len(search.x), 0)
    began, cpu = time.monotonic(), time.process_time()
    trail = search.run(attack, tell)
    cost = Cost(
        forwards=int(trail.forwards.sum()),
        backwards=int(trail.backwards.sum()),
        cpu_seconds=time.process_time() - cpu,
        wall_seconds=time.monotonic() - began,
    )
    if kept is not None:
        kept.save({key: {"trail": trail.content(), "cost": asdict(cost)}})
    return trail, cost
