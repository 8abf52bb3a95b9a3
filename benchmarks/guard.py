"""What the guard costs in front of a model server, beside nginx."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from measure import Rows
from networks import mnist

HERE = Path(__file__).parent
ROUNDS, SECONDS, CONNECTIONS = 7, 2, 16
WITHSTAND = [
    sys.executable, "-W", "ignore", "-c", "from withstand.cli import main; main()", "guard",
]  # fmt: skip
SHAPES = {"28x28": (1, 1, 28, 28), "3x224x224": (1, 3, 224, 224)}
LUA = """wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["x-api-key"] = "{key}"
{more}
local ready, turn = {{}}, 0
function init()
  for i = 0, {count} - 1 do
    local file = io.open("{folder}/load." .. i, "rb")
    ready[i] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end
function request()
  turn = (turn + 1) % {count}
  return ready[turn]
end
"""
NGINX = """daemon off; worker_processes 1; error_log /dev/null; pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 4m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server 127.0.0.1:{server}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
  }} }}
}}
"""


def passing() -> Rows:
    """CPU time of a request that passes through the guard, and of one that passes through nginx.

    Each is one process on a core of its own; the load (wrk, 16 connections) and a model server that
    answers at once share the other. The guard checks schema and range, keys, quota and, for 28x28,
    near copies, and keeps evidence of every decision. Microseconds: the lowest of 7 rounds in turn,
    and the median of the rounds' ratios. Added: median milliseconds of a request at one connection,
    less those without anything between.
    """
    return [
        _row(name, raw)
        for name, raw in (("28x28", False), ("28x28", True), ("3x224x224", True))
        if tools()
    ]


def upgrading() -> Rows:
    """Requests a second with a model server that reads 3x224x224 from JSON, with and without guard.

    The guard reads the JSON once and passes it on as raw bytes. One connection; the highest of 7
    rounds in turn, and the median of their ratios.
    """
    if not tools():
        return []
    with served("3x224x224", reads=True) as ways:
        load = load_script(ways["guard"].folder, "3x224x224", raw=False, key=ways["guard"].key)
        rounds = [
            {way: wrk(ways[way], load, 1).rate for way in ("server", "guard")}
            for _ in range(ROUNDS)
        ]
    return [
        {
            "server alone, requests/s": f"{max(one['server'] for one in rounds):.0f}",
            "through the guard": f"{max(one['guard'] for one in rounds):.0f}",
            "ratio": f"{median(one['guard'] / one['server'] for one in rounds):.2f}",
        }
    ]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to the model: its port, the process whose time counts, and what belongs to it."""

    port: int
    pid: int
    folder: Path
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What wrk saw: requests, those a second, median milliseconds."""

    requests: int
    rate: float
    p50: float


def _row(name: str, raw: bool) -> dict[str, str]:
    with served(name, reads=False) as ways:
        load = load_script(ways["guard"].folder, name, raw=raw, key=ways["guard"].key)
        tried = {way: ways[way] for way in ("guard", "nginx")}
        for way in tried.values():
            wrk(way, load, CONNECTIONS)
        rounds = [{way: cpu(one, load) for way, one in tried.items()} for _ in range(ROUNDS)]
        alone = {way: min(wrk(one, load, 1).p50 for _ in range(3)) for way, one in ways.items()}
    return {
        "request": f"{name}, {'raw' if raw else 'JSON'}",
        "guard, us": f"{min(one['guard'] for one in rounds):.0f}",
        "nginx, us": f"{min(one['nginx'] for one in rounds):.0f}",
        "ratio": f"{median(one['guard'] / one['nginx'] for one in rounds):.1f}",
        "guard adds, ms": f"{alone['guard'] - alone['server']:.2f}",
        "nginx adds, ms": f"{alone['nginx'] - alone['server']:.2f}",
    }


def tools() -> bool:
    """Whether wrk and nginx are there."""
    missing = [name for name in ("wrk", "nginx") if not shutil.which(name)]
    if missing:
        print(f"skipped: {' and '.join(missing)} not found; install them")
    return not missing


def cpu(way: Way, load: Path) -> float:
    """Microseconds of the process for each request."""
    before = _spent(way.pid)
    found = wrk(way, load, CONNECTIONS)
    return 1e6 * (_spent(way.pid) - before) / found.requests


def _spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(way: Way, load: Path, connections: int) -> Load:
    """One run of the load."""
    url = f"http://127.0.0.1:{way.port}/v2/models/m/infer"
    words = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(load), url]
    told = subprocess.run(on(1, words), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"not all requests were answered:\n{told}")
    words = told.split()
    p50 = words[words.index("50%") + 1]
    unit = {"us": 1e-3, "ms": 1.0}.get(p50[-2:], 1e3)
    return Load(
        requests=int(words[words.index("requests") - 1]),
        rate=float(words[words.index("Requests/sec:") + 1]),
        p50=float(p50.rstrip("mus")) * unit,
    )


def load_script(folder: Path, name: str, *, raw: bool, key: str) -> Path:
    """A script for wrk that posts images in turn, 1,000 of MNIST or 4 at random."""
    shape = SHAPES[name]
    if name == "28x28":
        images = mnist("test", 1000)[0].numpy()[:, None]
    else:
        images = (np.random.default_rng(0).integers(0, 256, (4, *shape)) / 255).astype(np.float32)
    for i, x in enumerate(images):
        tensor: dict[str, object] = {"name": "x", "datatype": "FP32", "shape": list(shape)}
        tail = x.tobytes() if raw else b""
        sized = {"parameters": {"binary_data_size": x.nbytes}}
        tensor |= sized if raw else {"data": x.ravel().tolist()}
        head = json.dumps({"inputs": [tensor]}).encode()
        (folder / f"load.{i}").write_bytes(head + tail)
    more = f'wrk.headers["inference-header-content-length"] = "{len(head)}"' if raw else ""
    script = folder / "load.lua"
    script.write_text(LUA.format(folder=folder, count=len(images), key=key, more=more))
    return script


@contextmanager
def served(name: str, *, reads: bool) -> Iterator[dict[str, Way]]:
    """The model server, alone, behind nginx and behind the guard."""
    ports = {way: free_port() for way in ("server", "nginx", "guard", "admin")}
    with tempfile.TemporaryDirectory() as made:
        folder, started = Path(made), []
        key = _configured(folder, name, ports)
        (folder / "nginx.conf").write_text(
            NGINX.format(folder=folder, port=ports["nginx"], server=ports["server"])
        )
        python = [sys.executable, "-W", "ignore"]
        upstream = [str(HERE / "guard_upstream.py"), str(ports["server"])]
        commands = {
            "server": on(1, [*python, *upstream, "reads" if reads else "at-once"]),
            "nginx": on(0, ["nginx", "-p", made, "-c", str(folder / "nginx.conf")]),
            "guard": on(0, [*WITHSTAND, "serve"]),
        }
        try:
            for way, words in commands.items():
                log = (folder / f"{way}.log").open("wb")
                started.append(subprocess.Popen(words, cwd=folder, stdout=log, stderr=log))
                log.close()
                answering(ports[way], folder / f"{way}.log")
            pids = dict(zip(commands, [process.pid for process in started], strict=True))
            pids["nginx"] = _child(pids["nginx"])
            yield {
                way: Way(port=ports[way], pid=pids[way], folder=folder, key=key) for way in commands
            }
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def _configured(folder: Path, name: str, ports: dict[str, int]) -> str:
    """Write withstand.yaml and what it names; returns a key."""
    from withstand.guard.queries import calibrate

    shape = list(SHAPES[name])
    line: dict[str, object] = {
        "listen": f"127.0.0.1:{ports['guard']}",
        "admin": f"127.0.0.1:{ports['admin']}",
        "upstream": f"http://127.0.0.1:{ports['server']}",
        "mode": "enforce",
        "keys": "keys.json",
        "quota": {"requests": 10**9},
        "evidence": {"folder": "evidence"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, *shape[1:]], "range": [0, 1]}],
    }
    if name == "28x28":
        calibrate(mnist("train", 8000)[0].numpy()).save(folder / "queries")
        line["queries"] = {"calibration": "queries"}
    (folder / "withstand.yaml").write_text(yaml.safe_dump({"guard": line}))
    # The load is the same images again and again, which is not what is measured.
    words = [*WITHSTAND, "key", "add", "bench", "--benign-optimiser"]
    made = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return made.stdout.split()[-1]


def on(core: int, words: list[str]) -> list[str]:
    """A command that stays on a core."""
    return ["taskset", "-c", str(core), *words]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answering(port: int, log: Path) -> None:
    """Wait until somebody listens; raises SystemExit with the log where nobody does."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"it did not start:\n{log.read_text()}")


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
