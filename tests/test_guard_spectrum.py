"""Patterns that no benign picture has are seen in a single query."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guarding import Model, Named
from scipy.fft import dctn

from withstand import attacks
from withstand._errors import DataError
from withstand.guard import Guard, Key, Line, Request
from withstand.guard.queries import (
    Calibration,
    Spectrum,
    SpectrumSensor,
    calibrate,
    query_sensors,
)
from withstand.models import FunctionModel
from withstand.stats import upper_bound
from withstand.threat import Linf, Threat

SIDE = 12


def pictures(count: int, seed: int, size: int = SIDE) -> Any:
    """Smooth random pictures (count, 3, size, size) whose colours go together."""
    rng = np.random.default_rng(seed)
    waves = np.add.outer(np.arange(size) ** 2, np.arange(size) ** 2)
    noise = rng.standard_normal((count, 3, size, size)) / (1 + waves)
    noise += 4 * noise[:, :1]
    contrast = rng.lognormal(0, 0.3, (count, 1, 1, 1))
    smooth = dctn(noise * contrast, type=3, axes=(2, 3), norm="ortho")
    grain = 0.01 * rng.standard_normal(smooth.shape)
    return np.clip(0.5 + 0.1 * smooth + grain, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(pictures(1600, 0), rate=4e-3, seed=3)


def flat(x: Any) -> Any:
    return x.reshape(len(x), -1)


def scored(calibration: Calibration, x: Any) -> Any:
    assert calibration.spectrum is not None
    return calibration.spectrum.score(flat(x), np.random.default_rng(0))


def test_what_square_asks_is_seen_from_the_first_query_on(calibration: Calibration) -> None:
    x = pictures(12, 1)
    log: list[Any] = []

    def answer(asked: Any) -> Any:
        log.append(asked)
        return np.tile(np.float32([0.9, 0.1]), (len(asked), 1))

    model = FunctionModel(answer, returns="scores")
    threat = Threat(region=Linf(8 / 255), access="scores", queries=12)
    y = torch.zeros(len(x), dtype=torch.long)
    attacks.run(attacks.Square(queries=12), model, torch.from_numpy(x), y, threat)
    asked = np.concatenate(log)
    near = np.abs(asked[:, None] - x).max((2, 3, 4))
    changed = asked[near.min(1) > 1 / 255]
    assert len(changed) > 100
    assert (scored(calibration, changed) > 1.1 * calibration.spectrum_threshold).mean() > 0.99


def test_benign_pictures_raise_no_more_alarms_than_promised(calibration: Calibration) -> None:
    found = scored(calibration, pictures(2000, 2))
    alarms = int((found > calibration.spectrum_threshold).sum())
    # Half the rate is what the spectrum may add.
    assert float(upper_bound(alarms, 2000, 0.5)) < 2e-3
    assert calibration.spectrum_bound < 4e-3
    # Nor fewer than it must.
    assert calibration.spectrum_threshold < found.max()


def test_bands_hold_the_mean_energies_of_the_cosine_transform() -> None:
    x = pictures(200, 3)
    spectrum = Spectrum.fit(x, seed=0)
    assert spectrum is not None
    waves = dctn(x, axes=(2, 3), norm="ortho")
    mixed = np.einsum("bchw,cd->bdhw", waves, spectrum.mixing) ** 2
    edges = [0, 1, 2, 3, 4, 6, 8, SIDE]
    wanted = np.empty((200, 3, 7, 7))
    for i in range(7):
        for j in range(7):
            part = mixed[:, :, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
            wanted[:, :, i, j] = part.mean((2, 3))
    found = spectrum._bands(flat(x), np.random.default_rng(0))
    assert np.allclose(found, np.log(flat(wanted) + spectrum.floor), atol=1e-3)
    assert spectrum.floor == pytest.approx(0.002 * x.var())
    one = spectrum._bands(flat(x)[:1], np.random.default_rng(0))
    assert np.allclose(one, found[:1], atol=1e-4)


def test_only_energy_that_other_bands_do_not_tell_counts() -> None:
    """Bands of known covariance: what is left of one, given the others, by regression."""
    x = pictures(400, 4)
    spectrum = Spectrum.fit(x, seed=0)
    assert spectrum is not None
    bands = spectrum._bands(flat(x), np.random.default_rng(0)).astype(float)
    spread = np.cov(bands, rowvar=False)
    spread += 0.03 * np.eye(len(spread)) * np.trace(spread) / len(spread)
    apart = bands - bands.mean(0)
    left = np.empty((5, len(spread)))
    for band in range(len(spread)):
        others = np.arange(len(spread)) != band
        slopes = np.linalg.solve(spread[np.ix_(others, others)], spread[others, band])
        variance = spread[band, band] - slopes @ spread[others, band]
        left[:, band] = (apart[:5, band] - apart[:5][:, others] @ slopes) / np.sqrt(variance)
    wanted = np.sort(left, 1)[:, -4:].sum(1)
    assert np.allclose(scored_by(spectrum, x[:5]), wanted, rtol=1e-2, atol=1e-2)


def scored_by(spectrum: Spectrum, x: Any) -> Any:
    return spectrum.score(flat(x), np.random.default_rng(0))


@pytest.mark.parametrize("last", [False, True])
def test_channels_may_come_first_or_last_and_one_may_be_left_out(last: bool) -> None:
    x = pictures(300, 5)
    other = np.moveaxis(x, 1, -1) if last else x[:, 0]
    first = x if last else x[:, :1]
    one, two = Spectrum.fit(first, seed=0), Spectrum.fit(np.ascontiguousarray(other), seed=0)
    assert one is not None
    assert two is not None
    assert np.allclose(scored_by(one, first[:9]), scored_by(two, other[:9]), atol=1e-2)


def test_of_large_pictures_a_window_is_looked_at_wherever_it_is() -> None:
    x = pictures(400, 6, size=40)
    spectrum = Spectrum.fit(x, seed=0)
    assert spectrum is not None
    assert len(spectrum.mean) == 300
    signs = np.random.default_rng(0).choice([-1, 1], (50, 3, 1, 40))
    striped = (x[:50] + 8 / 255 * signs).astype(np.float32)
    usual = scored_by(spectrum, x)
    assert (scored_by(spectrum, striped) > usual.max()).mean() > 0.9
    for part in (x[:, :, :12], x[..., :12]):
        spectrum = Spectrum.fit(part, seed=0)
        assert spectrum is not None
        rng = np.random.default_rng(0)
        found = {float(spectrum.score(flat(part[:1]), rng)[0]) for _ in range(9)}
        assert len(found) > 3


@pytest.mark.parametrize("form", ["first", "last", "one", "large", "large and last", "wide"])
def test_one_query_by_itself_scores_as_it_does_among_others(form: str) -> None:
    x = pictures(150, 10, size=40 if form.startswith("large") else SIDE)
    if form.endswith("last"):
        x = np.moveaxis(x, 1, -1)
    elif form == "one":
        x = x[:, 0]
    elif form == "wide":
        x = np.repeat(x, 4, -1)
    x = np.ascontiguousarray(x)
    spectrum = Spectrum.fit(x, seed=0)
    assert spectrum is not None
    for row in flat(x)[:5]:
        one = spectrum.score_one(row[None], np.random.default_rng(1))
        among = spectrum.score(np.stack((row, row)), np.random.default_rng(1))
        assert one == pytest.approx(among[0], abs=1e-2)


def test_what_is_no_picture_has_no_spectrum(calibration: Calibration, tmp_path: Path) -> None:
    for shape in ((64,), (5, 16, 16), (3, 7, 16), (2, 2, 9, 9)):
        assert Spectrum.fit(np.random.default_rng(0).random((20, *shape)), seed=0) is None
    assert Spectrum.fit(np.ones((20, 9, 9)), seed=0) is None
    table = replace(calibration, spectrum=None)
    table.save(tmp_path)
    assert len(query_sensors(tmp_path)) == 2
    with pytest.raises(DataError, match="are no pictures"):
        SpectrumSensor(table)


def test_numbers_that_overflow_are_like_nothing(calibration: Calibration) -> None:
    x = pictures(3, 7)
    x[1] *= 1e30
    found = scored(calibration, x)
    assert np.isfinite(found).all()
    assert found[1] > calibration.spectrum_threshold > max(found[0], found[2])


class Signals:
    """A journal that keeps the signals of the last request."""

    required = failing = False
    last: list[Any]

    def note(self, content: dict[str, Any], **_: Any) -> bool:
        self.last = content["signals"]
        return True

    def close(self) -> None:
        pass


def test_the_sensor_flags_what_was_calibrated_and_comes_back_from_its_files(
    calibration: Calibration, tmp_path: Path
) -> None:
    calibration.save(tmp_path)
    sensors = query_sensors(tmp_path, action="block")
    assert [one.name for one in sensors] == ["queries", "search", "spectrum"]
    assert [one.action for one in sensors] == ["block", "block", "block"]
    assert len({one.version for one in sensors}) == 1
    access, journal = Named(), Signals()
    line = Line(mode="enforce", upstream=Model(), sensors=sensors[2:])
    guard = Guard({"m": line}, access=access, journal=journal)

    def ask(x: Any) -> int:
        tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]}).encode()
        return asyncio.run(guard.answer(Request("POST", "/v2/models/m/infer", [], body))).status

    x = pictures(40, 8)
    striped = x + np.float32(8 / 255) * np.random.default_rng(0).choice([-1, 1], (40, 3, 1, SIDE))
    striped = striped.astype(np.float32)
    assert ask(x[:1]) == 200
    assert journal.last[0][1] == pytest.approx(float(scored(calibration, x[:1])[0]), abs=1e-3)
    limit = calibration.spectrum_threshold
    assert limit <= journal.last[0][2] <= 1.1 * limit
    # One pattern among many rows, beyond those that are looked at together, too.
    assert ask(flat(x)) == 200
    assert [ask(striped[:1]), ask(np.concatenate((x, striped[:1])))] == [403, 403]
    assert ask(np.concatenate((striped[:1], x))) == 403
    assert ask(np.full((1, 3, SIDE, SIDE), 1e30)) == 403
    access.key = Key(id="k", tenant="t", benign_optimiser=True)
    assert ask(striped[:1]) == 200
    assert journal.last[0][1] > 1.1 * limit
