"""Attacks on random tables, judged from csv by a check that knows nothing of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from random_tables import random_table, read_csv, write_csv
from torch import nn

from withstand import attacks
from withstand.attacks import CAPGD, Donors, TableSearch, TableWalk
from withstand.data import columns_of, load_table
from withstand.models import TorchModel
from withstand.threat import Box, Threat


def attacked(seed: int, folder: Path) -> int:
    """How many rows fool a random model; all of them keep the rules, as csv and whatever batch."""
    plain = random_table(seed)
    told, data = plain.write(folder)
    table = load_table(told)
    x = table.encode(columns_of(data, table))
    draw, scale = np.random.default_rng(seed), np.abs(x).mean(0) + 1
    weight = draw.normal(size=x.shape[1]).astype(np.float32) / scale
    net = nn.Linear(x.shape[1], 2)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(np.stack([0 * weight, weight])))
        net.bias.copy_(torch.tensor([0.0, -float(np.median((x * weight).sum(1)))]))
    model, inputs = TorchModel(net, domain=Box(-1e30, 1e30)), torch.from_numpy(x)
    y = model.labels(inputs)
    others = Donors(x, y.numpy())
    count = 0
    for attack in (
        CAPGD(steps=4, restarts=2),
        TableSearch(generations=4, children=8, donors=others),
        TableWalk(rows=others, rounds=8, block=8),
    ):
        threat = Threat(region=table.capability, access=attack.needs)
        found = attacks.run(attack, model, inputs, y, threat)
        alone = attacks.run(attack, model, inputs, y, threat, batch_size=3)
        assert torch.equal(found.x_adv, alone.x_adv)
        assert torch.equal(found.ledger.forwards, alone.ledger.forwards)
        sides = []
        for rows in (x, found.x_adv.numpy()):
            columns = table.decode(rows)
            path = folder / "rows.csv"
            write_csv(path, [{n: str(c[i]) for n, c in columns.items()} for i in range(len(x))])
            sides.append(read_csv(path))
        for before, after, fooled in zip(*sides, found.success.tolist(), strict=True):
            assert not plain.wrong(before, after), (seed, type(attack).__name__)
            assert fooled or before == after
        count += int(found.success.sum())
    return count


def test_what_fools_keeps_every_rule_of_random_tables(tmp_path: Path) -> None:
    assert sum(attacked(seed, tmp_path) for seed in (3, 7)) >= 6


@pytest.mark.slow
def test_what_fools_keeps_every_rule_of_many_random_tables(tmp_path: Path) -> None:
    assert sum(attacked(seed, tmp_path) for seed in range(1000, 1400)) >= 3000
