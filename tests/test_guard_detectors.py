"""A fitted detector in the path of requests: in time, together, and whatever becomes of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.request import Request as Asking
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from guarding import Model, as_file, pictures, served, v2_body
from PIL import Image, UnidentifiedImageError

from withstand import detect
from withstand._errors import DataError, DetectorError, WithstandError
from withstand.guard import Answer, App, Call, Guard, Key, Line, Request, Signal
from withstand.guard._reading import Reading
from withstand.guard._routes import Route
from withstand.guard.detectors import DetectorSensor
from withstand.guard.wire import Inference, Named

PATIENT = 30.0


class Doubtful:
    """In the place of a detector: the suspicion of a row is its first number, less a half."""

    def __init__(self, work: Callable[[Any], None] = lambda x: None) -> None:
        self.threshold, self.state, self.seen = 0.5, {}, []
        self.work = work

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        self.work(x)
        return x.flatten(1)[:, 0] - 0.5

    def to_dict(self) -> dict[str, Any]:
        return {"method": "doubtful"}


def asked(*firsts: float, name: str = "x") -> Inference:
    values = np.zeros((len(firsts), 4), np.float32)
    values[:, 0] = firsts
    return Inference(
        id="", parameters={},
        inputs=(Named(name=name, datatype="FP32", values=values, parameters={}),),
    )  # fmt: skip


def call(request: Inference) -> Call:
    route = Route(kind="infer", form="v2", path="/v2/models/m/infer", model="m")
    return Call(route=route, key=Key(id="k", tenant="t"), started=0.0, asked=request)


@contextmanager
def sensor(detector: Any, **how: Any) -> Iterator[DetectorSensor]:
    source = detector if isinstance(detector, Callable) else lambda: detector  # type: ignore[arg-type]
    found = DetectorSensor(source, **{"deadline": PATIENT, "reading": Reading(shape=(4,)), **how})
    try:
        yield found
    finally:
        found.close()


def said(found: DetectorSensor, *requests: Inference) -> list[Signal]:
    async def main() -> list[Signal]:
        waiting = [found.look(call(request)) for request in requests]
        return [one if isinstance(one, Signal) else await one for one in waiting]

    return asyncio.run(main())


def counted(guard: Guard, why: str) -> float:
    found = guard.metrics.registry.get_sample_value(
        "withstand_sensor_failures_total", {"sensor": "detector", "why": why}
    )
    return found or 0.0


def ask(guard: Guard, *requests: list[list[float]]) -> list[Answer]:
    async def main() -> list[Answer]:
        bodies = [
            json.dumps({
                "inputs": [{
                    "name": "x", "datatype": "FP32", "shape": list(np.shape(x)),
                    "data": np.ravel(x).tolist(),
                }]
            }).encode()
            for x in requests
        ]  # fmt: skip
        path = "/v2/models/m/infer"
        return await asyncio.gather(
            *(guard.answer(Request("POST", path, [], body)) for body in bodies)
        )

    return asyncio.run(main())


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.005)
    assert true()


def test_the_most_suspicious_row_counts() -> None:
    with sensor(Doubtful()) as found:
        low, high, mixed = said(found, asked(0.25), asked(0.75), asked(0.25, 1.0, 0.5))
    assert (low.score, low.flagged) == (-0.25, False)
    assert (high.score, high.flagged) == (0.25, True)
    assert (mixed.score, mixed.threshold, mixed.flagged) == (0.5, 0.0, True)


def test_requests_are_scored_together_and_apart_again() -> None:
    detector = Doubtful()
    with sensor(detector, gather=0.5, rows=8) as found:
        detector.seen.clear()
        signals = said(found, *(asked(i / 8, 0.0) for i in range(8)))
    assert [one.score for one in signals] == pytest.approx([i / 8 - 0.5 for i in range(8)])
    # Of 2 rows each, 4 requests make 8; nothing waits for the half second.
    assert detector.seen == [8, 8]


def test_a_large_request_is_scored_alone_and_in_full() -> None:
    detector = Doubtful()
    with sensor(detector, rows=2, queue=2) as found:
        detector.seen.clear()
        (one,) = said(found, asked(*[0.0] * 9, 1.0))
    assert one.flagged
    assert detector.seen == [10]


def test_real_detectors_say_the_same_in_line(digits: Any, tmp_path: Path) -> None:
    x = torch.from_numpy(digits.data.x)
    # Benign ones with a little noise, since 60 do not make a threshold.
    noise = torch.randn(1000, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    benign = (x[torch.arange(1000) % 30] + 0.05 * noise).clamp(0, 1)
    detector = detect.fit(detect.Mahalanobis(), digits.model, benign[:500])
    detector.calibrate(benign[500:]).save(tmp_path)
    source = partial(detect.load, tmp_path, digits.model)
    wanted = source().suspicion(x[:6])
    request = Inference(
        id="", parameters={},
        inputs=tuple(
            Named(name=name, datatype="UINT8", values=values, parameters={})
            for name, values in {
                "other": np.zeros((6, 1), np.uint8),
                "image": np.moveaxis((16 * digits.data.x[:6]).astype(np.uint8), 1, -1),
            }.items()
        ),
    )  # fmt: skip
    reading = Reading(name="image", shape=(1, 8, 8), scale=16, channels_last=True)
    with sensor(source, reading=reading) as found:
        (one,) = said(found, request)
        version = found.version
        found.reload()
        assert found.version == version
    assert one.score == pytest.approx(float(wanted.max()), abs=1e-4)
    assert one.flagged == bool((wanted > 0).any())


def test_pictures_are_read_as_the_rule_leaves_them() -> None:
    content = io.BytesIO()
    Image.fromarray(np.full((2, 2), 204, np.uint8)).save(content, "PNG")
    values = np.empty(1, object)
    values[0] = content.getvalue()
    request = Inference(
        id="", parameters={},
        inputs=(Named(name="x", datatype="BYTES", values=values, parameters={}),),
    )  # fmt: skip
    with sensor(Doubtful(), reading=Reading(shape=(4,), scale=255)) as found:
        (one,) = said(found, request)
    assert one.score == pytest.approx(0.3)


def test_late_scores_are_counted_and_the_policy_decides() -> None:
    go = threading.Event()
    for policy, status in {"open": 200, "closed": 503}.items():
        detector = Doubtful()
        with sensor(detector, deadline=0.02, on_failure=policy, patience=PATIENT) as found:
            detector.work = lambda x: go.wait(PATIENT) and None
            line = Line(mode="enforce", upstream=Model(), sensors=(found,))
            guard = Guard({"m": line})
            assert [one.status for one in ask(guard, [[0, 0, 0, 0]], [[0, 0, 0, 0]])] == [
                status
            ] * 2
            assert counted(guard, "timeout") == 2
            go.set()
            detector.work = lambda x: None
            wait_for(lambda: not found._worker.busy_for())
            found.deadline = PATIENT
            assert ask(guard, [[0, 0, 0, 0]])[0].status == 200
            go.clear()


def test_what_came_too_late_is_not_worked_on() -> None:
    go, detector = threading.Event(), Doubtful()
    with sensor(detector, deadline=0.02, patience=PATIENT, gather=0.0) as found:
        detector.work = lambda x: go.wait(PATIENT) and None
        detector.seen.clear()

        async def main() -> list[Signal]:
            first = found.look(call(asked(0.0)))
            while not found._worker.busy_for():
                await asyncio.sleep(0.001)
            others = [found.look(call(asked(0.0))) for _ in range(4)]
            return [await one for one in (first, *others)]  # type: ignore[misc]

        assert {one.failed for one in asyncio.run(main())} == {"timeout"}
        go.set()
        wait_for(lambda: not found._worker.busy_for())
        found.deadline = PATIENT
        assert said(found, asked(1.0))[0].flagged
    assert detector.seen == [1, 1]


def test_pictures_of_any_order_become_what_the_model_takes() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    named = Named(name="x", datatype="UINT8", values=values, parameters={})
    request = Inference(id="", inputs=(named,), parameters={})
    found = Reading(shape=(3, 2, 2), scale=2, channels_last=True)(request)
    assert (found == values.transpose(0, 3, 1, 2) / 2).all()
    assert (Reading(shape=(12,))(request) == values.reshape(2, 12)).all()


def test_pictures_are_read_as_files_and_in_base64() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    file = as_file(picture, "PNG")
    found = Reading()(pictures(file, base64.b64encode(file)))
    assert (found == [picture, picture]).all()


def test_pictures_that_are_large_once_decoded_or_of_other_formats_are_not_decoded() -> None:
    flat = np.zeros((2**12, 2**11), np.uint8)
    with patch("PIL.ImageFile.ImageFile.load", side_effect=AssertionError):
        script = as_file(np.zeros((2, 2, 3), np.uint8), "EPS")
        with pytest.raises(UnidentifiedImageError):
            Reading()(pictures(base64.b64encode(script)))
        with pytest.raises(binascii.Error):
            Reading()(pictures(script))
        with pytest.raises(DataError, match="16777216 pixels"):
            Reading()(pictures(as_file(np.zeros((2**12, 2**12 + 1), np.uint8), "PNG")))
    assert Reading()(pictures(*[as_file(flat, "PNG")] * 2)).shape == (2, 2**12, 2**11)
    with pytest.raises(DataError, match="16777216 pixels"):
        Reading()(pictures(*[as_file(flat, "PNG")] * 3))


def test_a_full_queue_is_told_at_once() -> None:
    go, detector = threading.Event(), Doubtful()
    with sensor(detector, queue=3, rows=1, gather=0.0, patience=PATIENT) as found:
        detector.work = lambda x: go.wait(PATIENT) and None

        async def main() -> list[str]:
            under_way = asyncio.ensure_future(found.look(call(asked(0.0))))  # type: ignore[arg-type]
            while not found._worker.busy_for():
                await asyncio.sleep(0.001)
            waiting = [found.look(call(asked(0.0))) for _ in range(5)]
            go.set()
            await under_way
            return [
                one.failed if isinstance(one, Signal) else (await one).failed for one in waiting
            ]

        assert asyncio.run(main()) == ["", "", "", "busy", "busy"]


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), SystemExit(1)])
def test_a_crash_is_told_and_the_next_request_is_scored(error: BaseException) -> None:
    detector = Doubtful()

    def crash(x: torch.Tensor) -> None:
        if (x[:, 0] == 9).any():
            raise error

    with sensor(detector, gather=0.05) as found:
        detector.work = crash
        guard = Guard({"m": Line(mode="enforce", upstream=Model(), sensors=(found,))})
        crashed = [[9.0, 0, 0, 0]]
        assert ask(guard, crashed)[0].status == 200
        assert counted(guard, "error") == 1
        # One request does not make the detector blind to those beside it.
        signals = said(found, asked(1.0), asked(9.0), asked(0.0))
        assert [(one.flagged, one.failed) for one in signals] == [
            (True, ""), (False, "error"), (False, ""),
        ]  # fmt: skip


def test_what_is_no_number_is_no_score_but_hides_no_flag() -> None:
    with sensor(Doubtful()) as found:
        only, beside, unlimited = said(
            found, asked(0.0, np.nan), asked(1.0, np.nan), asked(0.0, np.inf)
        )
    assert (only.failed, only.flagged) == ("nan", False)
    assert (beside.failed, beside.flagged, beside.score) == ("", True, 0.5)
    assert unlimited.flagged
    assert np.isfinite(unlimited.score)


@pytest.mark.parametrize("request_", [asked(0.0, name="y"), asked()])
def test_what_cannot_be_read_is_an_error(request_: Inference) -> None:
    with sensor(Doubtful(), reading=Reading(name="x", shape=(4,))) as found:
        assert said(found, request_)[0].failed == "error"
        assert not said(found, asked(0.0))[0].failed


def test_a_detector_that_hangs_is_started_anew() -> None:
    go, made = threading.Event(), []

    def source() -> Doubtful:
        made.append(Doubtful())
        return made[-1]

    with sensor(source, deadline=0.02, patience=0.3, gather=0.0) as found:
        for number in range(3):
            made[-1].work = lambda x: go.wait(PATIENT) and None
            assert said(found, asked(0.0))[0].failed == "timeout"
            time.sleep(0.35)
            said(found, asked(0.0))
            wait_for(lambda number=number: len(made) == number + 2)  # type: ignore[misc]
            assert found.restarts == number + 1
            found.deadline = PATIENT
            assert said(found, asked(1.0))[0].flagged
            found.deadline = 0.02
        # A fourth thread would only hang as well.
        made[-1].work = lambda x: go.wait(PATIENT) and None
        said(found, asked(0.0))
        time.sleep(0.35)
        assert said(found, asked(0.0))[0].failed == "stuck"
        go.set()
        wait_for(lambda: not found._worker.busy_for())
        made[-1].work = lambda x: None
        found.deadline = PATIENT
        assert said(found, asked(1.0))[0].flagged


def test_a_bad_file_on_reload_leaves_the_last_good_one(digits: Any, tmp_path: Path) -> None:
    benign = torch.rand(1000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    good = detect.fit(detect.Confidence(), digits.model, benign[:500])
    good.calibrate(benign[500:]).save(tmp_path)
    source = partial(detect.load, tmp_path, digits.model)
    with sensor(source, reading=Reading(shape=(1, 8, 8))) as found:
        version, told = found.version, (tmp_path / "detector.json").read_text()
        request = Inference(
            id="", parameters={},
            inputs=(
                Named(
                    name="x", datatype="FP32", values=np.zeros((1, 64), np.float32), parameters={}
                ),
            ),
        )  # fmt: skip
        before = said(found, request)[0]
        for damaged in ("{", told.replace("Confidence", "Unknown"), ""):
            (tmp_path / "detector.json").write_text(damaged)
            with pytest.raises(WithstandError):
                found.reload()
        good.save(tmp_path)
        with pytest.raises(DataError, match="has no threshold"):
            found.reload()
        assert found.version == version
        assert said(found, request)[0] == before
        good.calibrate(benign[500:], fpr=0.05).save(tmp_path)
        found.reload()
        assert found.version != version
        assert said(found, request)[0].score > before.score


def test_a_detector_that_cannot_work_is_told_before_it_is_used() -> None:
    def crash(x: torch.Tensor) -> None:
        raise ValueError("mat1 and mat2")

    with pytest.raises(DetectorError, match=r"failed on an input of shape \(4,\) with ValueError"):
        DetectorSensor(lambda: Doubtful(crash), reading=Reading(shape=(4,)))  # type: ignore[arg-type, return-value]
    broken = SimpleNamespace(
        threshold=1, suspicion=lambda x: torch.full((len(x),), torch.nan), to_dict=dict, state={}
    )
    with pytest.raises(DetectorError, match="gives no number"):
        DetectorSensor(lambda: broken, reading=Reading(shape=(4,)))  # type: ignore[arg-type, return-value]


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    with sensor(Doubtful()) as found:
        said(found, asked(0.0))
    wait_for(lambda: threading.active_count() == before)


def test_a_hung_detector_holds_up_nobody_on_a_socket() -> None:
    go, detector = threading.Event(), Doubtful()

    def post(port: int) -> int:
        url = f"http://127.0.0.1:{port}/v2/models/m/infer"
        with urlopen(Asking(url, v2_body([[0, 0, 0, 0]])), timeout=PATIENT) as answer:
            answer.read()
            return int(answer.status)

    with sensor(detector, deadline=0.05, patience=PATIENT, queue=4) as found:
        detector.work = lambda x: go.wait(PATIENT) and None
        guard = Guard({"m": Line(mode="enforce", upstream=Model(), sensors=(found,))})
        with served(App(guard)) as port, ThreadPoolExecutor(16) as clients:
            assert set(clients.map(post, [port] * 16)) == {200}
            assert counted(guard, "timeout") + counted(guard, "busy") == 16
            go.set()
