"""The guard inside a FastAPI application, and as a sidecar by the commands of its manifest."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import yaml
from guarding import served, v2_body

from withstand.guard import App, Guard, Line
from withstand.guard.upstream import FunctionUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SIDECAR = ROOT / "examples" / "sidecar.yaml"
X = np.linspace(0, 1, 8).reshape(2, 4)


def call(url: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Any:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, body, told, method=method), timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: list[Any], log: Path, answers: Callable[[], bool], **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, **more)
    try:
        until = time.monotonic() + 60
        while not answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_fastapi_application(environment: Callable[[str], Path], tmp_path: Path) -> None:
    python, port = environment("fastapi"), free_port()
    url, script = f"http://127.0.0.1:{port}", Path(__file__).with_name("start_fastapi.py")
    packages = [str(ROOT / "src"), sysconfig.get_path("purelib")]

    def answers() -> bool:
        try:
            return bool(call(url + "/openapi.json")[0] == 200)
        except URLError:
            return False

    with running(
        [python, script, str(port)], tmp_path / "log", answers,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(packages)},
    ) as process:  # fmt: skip
        body = json.dumps({"instances": X.tolist()}).encode()
        # FastAPI wants JSON to be called so; the guard's form is.
        status, _, found = call(url + "/predict", body, x_user="ann", Content_Type="text/odd")
        weights = np.random.default_rng(0).standard_normal((4, 3))
        told = json.loads(found)
        assert (status, told["user"], told["client"]) == (200, "ann", "127.0.0.1")
        np.testing.assert_allclose(told["predictions"], X @ weights, rtol=1e-6)
        assert call(url + "/predict", b'{"instances":[[1,2],[3]]}')[0] == 400
        assert call(url + "/predict", b'{"instances":[["a"]]}')[0] == 400
        # The model takes four numbers. What it raises is for the log, not for clients.
        failed = call(url + "/predict", b'{"instances":[[1,2]]}')
        assert (failed[0], json.loads(failed[2])) == (
            502,
            {"error": "the model server gave no answer"},
        )
        sloppy = v2_body(X).replace(b":", b" : ")
        status, _, found = call(url + "/v2/models/echo/infer", sloppy)
        (seen,) = json.loads(found)["outputs"][0]["data"]
        assert status == 200
        assert seen == json.dumps(json.loads(seen), separators=(",", ":"))
        (tensor,) = json.loads(seen)["inputs"]
        assert np.array_equal(np.float32(tensor["data"]), np.float32(X.ravel()))
        for path in ("/v2/models/echo/inf%65r", "/v2/models/other/infer", "//predict", "/predict/"):
            assert call(url + path, sloppy)[0] == 404
        assert json.loads(call(url + "/orders", b"\x00not json")[2]) == {"length": 9}
        asked = {"Origin": "https://shop.example", "Access_Control_Request_Method": "POST"}
        preflight = call(url + "/predict", None, "OPTIONS", **asked)
        assert preflight[0] == 200
        assert preflight[1]["access-control-allow-origin"] == "https://shop.example"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM), (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text().count("the application behind the guard failed") == 1


def test_the_manifest_is_valid(environment: Callable[[str], Path], tmp_path: Path) -> None:
    python = environment("kubernetes")
    command = [python.with_name("kubernetes-validate"), "--strict"]
    said = subprocess.run([*command, SIDECAR], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(SIDECAR.read_text().replace("readinessProbe", "readynessProbe"))
    assert subprocess.run([*command, broken], capture_output=True).returncode != 0


def test_its_commands_serve_and_end(tmp_path: Path) -> None:
    manifest = list(yaml.safe_load_all(SIDECAR.read_text()))
    (pod,) = [one["spec"]["template"]["spec"] for one in manifest if one["kind"] == "StatefulSet"]
    (sidecar,) = pod["initContainers"]
    (text,) = [one["data"]["withstand.yaml"] for one in manifest if one["kind"] == "ConfigMap"]
    pepper = "07" * 32
    environment = {**os.environ, "WITHSTAND_PEPPER": pepper}
    upstream = FunctionUpstream(lambda inputs: {"scores": inputs["x"] * 2})
    model = App(Guard({"": Line(mode="shadow", upstream=upstream)}))

    def command(words: list[str]) -> list[str]:
        here = [one.replace("/config", str(tmp_path)) for one in words]
        assert here[0] == "withstand"
        return [sys.executable, "-c", "from withstand.cli import main; main()", *here[1:]]

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(words), capture_output=True, text=True, env=environment)

    with served(model) as behind:
        port, admin = free_port(), free_port()
        for old, new in (
            ("0.0.0.0:8100", f"127.0.0.1:{port}\n  admin: 127.0.0.1:{admin}"),
            ("127.0.0.1:8000", f"127.0.0.1:{behind}"),
            ("/keys/", f"{tmp_path}/"), ("/state/", f"{tmp_path}/"),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "withstand.yaml").write_text(text)
        config = ["--config", "/config/withstand.yaml"]
        key = run(["withstand", "guard", "key", "add", "acme", *config]).stdout.strip()
        probes = [sidecar[name]["exec"]["command"] for name in ("livenessProbe", "readinessProbe")]
        assert run(probes[0]).returncode != 0
        with running(
            command(sidecar["command"]), tmp_path / "log",
            lambda: all(run(probe).returncode == 0 for probe in probes), env=environment,
        ) as guard:  # fmt: skip
            url = f"http://127.0.0.1:{port}/v2/models/digits/infer"
            assert call(url, v2_body(X))[0] == 401
            assert call(url, v2_body(X), X_API_Key=key)[0] == 200
            guard.send_signal(signal.SIGTERM)
            assert guard.wait(pod["terminationGracePeriodSeconds"]) == 0
    upstream.close()
    assert run(["withstand", "evidence", "verify", str(tmp_path / "evidence")]).returncode == 0
