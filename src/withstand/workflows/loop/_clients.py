"""Benign clients, and one that attacks; a program of its own.

python _clients.py benign PORT KEYS DATA RATE LOG, until SIGTERM: every client sends images of its
own order. python _clients.py attack PORT KEY DATA EPS RATE LOG: random search for images that fool
the model, one after the other, from the scores in the answers (as Andriushchenko et al. 2020).
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

_QUERIES = 300
_THREADS = 4
_stop = threading.Event()


class Client:
    """A connection with a key."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key
        self._connection: HTTPConnection | None = None

    def ask(self, x: Any) -> tuple[int, Any]:
        """Status and scores of an image; 0 where there was no answer."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1, 8, 8]}
        body = json.dumps({"inputs": [{**tensor, "data": x.ravel().tolist()}]})
        headers = {"x-api-key": self._key, "content-type": "application/json"}
        try:
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
            self._connection.request("POST", "/v2/models/digits/infer", body, headers)
            answer = self._connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return 0, None
        scores = np.asarray(told["outputs"][0]["data"]) if answer.status == 200 else None
        return answer.status, scores


def benign(port: int, keys: list[str], data: Path, rate: float, log: Path) -> None:
    """All clients together send `rate` images a second; the log counts what they were answered."""
    x = np.load(data)["x_train"]
    counts: dict[int, int] = {}
    lock = threading.Lock()

    def work(mine: list[tuple[int, str]]) -> None:
        clients = [Client(port, key) for _, key in mine]
        orders = [np.random.default_rng(number).permutation(len(x)) for number, _ in mine]
        began, sent = time.monotonic(), 0
        while not _stop.is_set():
            which, turn = sent % len(mine), sent // len(mine)
            status, _ = clients[which].ask(x[orders[which][turn % len(x)]])
            sent += 1
            with lock:
                counts[status] = counts.get(status, 0) + 1
            _stop.wait(max(0.0, began + sent * _THREADS / rate - time.monotonic()))

    numbered = list(enumerate(keys))
    threads = [
        threading.Thread(target=work, args=(numbered[place::_THREADS],))
        for place in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    while not _stop.wait(1.0):
        with lock:
            log.write_text(json.dumps(counts))
    for thread in threads:
        thread.join()
    log.write_text(json.dumps(counts))


def attack(port: int, key: str, data: Path, eps: float, rate: float, log: Path) -> None:
    """Attack one test image after the other, and log how each one ended."""
    images, labels = np.load(data)["x_test"], np.load(data)["y_test"]
    client, rng = Client(port, key), np.random.default_rng(1)
    with log.open("a") as file:
        for number, (x, y) in enumerate(zip(images, labels, strict=True)):
            ending, queries = _search(client, x, int(y), eps, rng, 1 / rate)
            told = {"input": number, "ending": ending, "queries": queries, "wall": time.time()}
            file.write(json.dumps(told) + "\n")
            file.flush()
            if _stop.is_set():
                return


def _search(
    client: Client, x: Any, y: int, eps: float, rng: np.random.Generator, pause: float
) -> tuple[str, int]:
    """How the search for one image ended, and after how many queries."""
    asked, best, least = x, x, np.inf
    for query in range(1, _QUERIES + 1):
        if query == 2:
            asked = np.clip(x + eps * rng.choice([-1.0, 1.0], (1, 1, 8)), 0, 1)
        elif query > 2:
            side = max(1, round(4 * (1 - query / _QUERIES)))
            row, column = rng.integers(0, 9 - side, 2)
            window = (..., slice(row, row + side), slice(column, column + side))
            asked = best.copy()
            asked[window] = np.clip(x[window] + eps * rng.choice([-1.0, 1.0]), 0, 1)
        status, scores = client.ask(asked)
        if status != 200:
            _stop.wait(1.0)
            return f"status {status}", query
        margin = scores[y] - np.delete(scores, y).max()
        if margin <= 0:
            return "already wrong" if query == 1 else "fooled", query
        if query > 1 and margin < least:
            best, least = asked, margin
        if _stop.wait(pause):
            break
    return "withstood", query


def main(what: str, port: str, keys: str, data: str, *more: str) -> None:
    """Run one of them; keys is a file with one on each line, readable by its owner alone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop.set())
    shown = Path(keys).read_text().split()
    if what == "benign":
        rate, log = more
        benign(int(port), shown, Path(data), float(rate), Path(log))
    else:
        eps, rate, log = more
        attack(int(port), shown[0], Path(data), float(eps), float(rate), Path(log))


if __name__ == "__main__":
    main(*sys.argv[1:])
