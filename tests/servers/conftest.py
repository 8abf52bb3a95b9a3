"""Real model servers, each in an environment of its own that is built once."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from withstand.data import load_sklearn

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
NAMES = ("mlserver", "kserve", "triton")


def write_onnx(classifier: LogisticRegression, path: Path) -> None:
    """The classifier as an ONNX graph."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weights = {"w": classifier.coef_.T, "b": classifier.intercept_}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["pixels", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("pixels", floats, ["rows", 64])],
        [
            helper.make_tensor_value_info("scores", floats, ["rows", 10]),
            helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["rows"]),
        ],
        [onnx.numpy_helper.from_array(np.float32(told), name) for name, told in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)


@pytest.fixture(scope="session")
def classifier() -> LogisticRegression:
    """What every server serves: digits (N, 64), learned from the first 1,500."""
    data = load_sklearn("digits", limit=1500)
    return LogisticRegression(max_iter=200).fit(data.x.reshape(1500, 64), data.y)


class Server:
    """One server's process; its environment, address and files."""

    def __init__(self, name: str, python: Path, weights: Path, folder: Path) -> None:
        self.name, self.python, self.weights, self.folder = name, python, weights, folder
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, most: float = 120.0) -> None:
        """Start it and wait until the model is ready; fails with the end of its log."""
        script = HERE / f"start_{self.name}.py"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, script, str(self.port), self.weights, self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Triton looks for libpython there, and leaves its files where it was killed.
                env={
                    **os.environ,
                    "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
                    "PYTRITON_HOME": str(self.folder),
                    "TMPDIR": str(self.folder),
                },
                start_new_session=True,
            )
        until = time.monotonic() + most
        while time.monotonic() < until and self.process.poll() is None:
            if self._ready():
                return
            time.sleep(0.2)
        self.kill()
        pytest.fail(f"{self.name} was not ready within {most:g} s: {self._last_words()}")

    def kill(self) -> None:
        """End it and what it has started at once, as a power cut would."""
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _ready(self) -> bool:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/v2/models/digits/ready")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def _environment(name: str) -> Path:
    """The Python of an environment with a server; skips the test where it cannot be built."""
    folder, wanted = ROOT / f".venv-{name}", (HERE / f"{name}.txt").read_text()
    stamp, python = folder / ".stamp", folder / "bin" / "python"
    # Two test processes may want it at the same time.
    with (ROOT / f".venv-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = ["-q", "--no-compile", "--prefer-binary", "-r", str(HERE / f"{name}.txt")]
        done = subprocess.run(
            [python, "-m", "pip", "install", *packages], capture_output=True, text=True
        )
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            said = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
            pytest.skip(f"the environment of {name} cannot be built: {said[-1]}")
        stamp.write_text(wanted)
    return python


@pytest.fixture(scope="session")
def ministack() -> Path:
    """The Python of an environment with a server of buckets."""
    return _environment("ministack")


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """Gives the Python of an environment by its name; skips where it cannot be built."""
    return _environment


@pytest.fixture(scope="session", params=NAMES)
def server(
    request: pytest.FixtureRequest,
    classifier: LogisticRegression,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A running server of each kind."""
    folder = tmp_path_factory.mktemp(request.param)
    np.savez(folder / "weights.npz", coef=classifier.coef_, intercept=classifier.intercept_)
    write_onnx(classifier, folder / "model.onnx")
    made = Server(request.param, _environment(request.param), folder / "weights.npz", folder)
    try:
        made.start()
        yield made
    finally:
        made.kill()
