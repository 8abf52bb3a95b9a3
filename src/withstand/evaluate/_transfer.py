"""Examples that are made on the attacker's own model and shown to the attacked one, once each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._errors import BudgetError, ModelError
from ..attacks import Attack, Checkpoint, Ledger, Result, Status, craft
from ..models import Model
from ..threat import Threat
from ._answers import Answers


class Shown(NamedTuple):
    """What an attack found, and the model's answers (N, ...) to its examples if they were kept."""

    result: Result
    answer: Tensor | None


def transfer(
    attack: Attack,
    source: Model,
    victim: Answers,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    clean: Tensor,
    seed: int,
    keys: Tensor,
    known: Ledger,
    limit: int | None,
    seconds: float | None,
    checkpoint: Checkpoint | None,
    spent: Callable[[], list[list[int]]],
    progress: Callable[[int, int, int], None] | None,
) -> Shown:
    """Make an example of each sample x (N, ...) on `source` and ask the victim about it: 1 forward.

    clean: its answers to x. known, limit: forwards of each sample so far, and the most it may have.
    seconds: when time is up, the samples that are left are not shown. spent: what the surrogates
    were asked, kept in the checkpoint with what was answered. Raises what `craft` raises, and
    ModelError.
    """
    device = getattr(source, "device", x.device)
    until = time.monotonic() + (torch.inf if seconds is None else seconds)
    made, answer, done = x.clone(), clean.clone(), 0
    hit = torch.zeros(len(x), dtype=torch.bool)
    shown = hit.clone()
    saved = None if checkpoint is None else checkpoint.content.get("run")
    if saved is not None:
        made, done = saved["made"].to(x.device), int(saved["done"])
        hit, shown, answer = saved["hit"], saved["shown"], saved["answer"]

    def keep(so_far: list[list[int]]) -> None:
        if checkpoint is not None:
            run = {"made": made, "hit": hit, "shown": shown, "answer": answer, "done": done}
            checkpoint.save({"run": run, "surrogates": so_far})

    affordable = known.forwards < (torch.inf if limit is None else limit)
    while done < len(x) and time.monotonic() < until:
        rows = torch.arange(done, min(done + victim.batch, len(x)))
        following, rows = int(rows[-1]) + 1, rows[affordable[rows]]
        if len(rows):
            before = spent()
            made[rows] = craft(
                attack,
                source,
                x[rows].to(device),
                y[rows].to(device),
                threat.take(rows.numpy()),
                seed=seed,
                batch_size=victim.batch,
                keys=keys[rows],
            ).to(x.device)
            try:
                given, reached = victim.judged(made[rows], y[rows])
            except (ModelError, BudgetError):
                # What a served model has answered is dear; only the failing part is asked again.
                keep(before)
                raise
            answer[rows] = given.cpu().to(answer.dtype)
            hit[rows], shown[rows] = reached.cpu(), True
        done = following
        if checkpoint is not None and checkpoint.due:
            keep(spent())
        if progress is not None:
            progress(done, len(x), int(hit.sum()))
    return Shown(result(x, made, hit, shown, shown, threat, known), answer)


def result(
    x: Tensor,
    made: Tensor,
    hit: Tensor,
    shown: Tensor,
    ended: Tensor,
    threat: Threat,
    known: Ledger,
) -> Result:
    """The result for samples x (N, ...) of which some were shown examples, so many times each."""
    ball = next(part for part in threat.region if hasattr(part, "distance"))
    distance = torch.from_numpy(ball.distance(x.cpu().numpy(), made.cpu().numpy()))
    column = hit.reshape(-1, *(1,) * (x.ndim - 1)).to(x.device)
    forwards, no = known.forwards + shown, [False] * len(x)
    return Result(
        x_adv=torch.where(column, made, x),
        success=hit,
        distance=torch.where(hit, distance, torch.inf),
        status=tuple(
            Status.of(False, *flags) for flags in zip(hit.tolist(), no, ended.tolist(), strict=True)
        ),
        ledger=replace(known, forwards=forwards, first_success=torch.where(hit, forwards, -1)),
        batch_invariant=True,
    )
