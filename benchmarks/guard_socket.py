"""Our attacks on an HTTP target, unchanged, with the guard between them and the model."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import uvicorn
from guard_queries import QUERIES, attack_of
from guarded import Flags, Guarded, calibrated, victim
from measure import Rows

from withstand import attacks
from withstand.guard import App
from withstand.models import HttpModel, HttpSettings
from withstand.stats import clopper_pearson
from withstand.threat import Linf, Threat

ATTACKED = 20


class First(Flags):
    """At which row of a client each sensor flagged first; a request may hold several rows."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """A new client."""
        self.rows, self.first = 0, dict[str, int]()

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Any) -> bool:
        """Count the rows, and keep the flags."""
        self.rows += content["tensors"][0][2][0]
        for one in content["signals"]:
            if one[3]:
                self.first.setdefault(one[0], self.rows)
        return True


def over_socket() -> Rows:
    """The same attacks on the HTTP target, v2 with binary tensors, over loopback: 500 queries each.

    MNIST, Linf 0.1, the first 20 test images from number 500 on that the network gets right; the
    guard is served by uvicorn, in shadow mode. Rows are counted up to the end of the request that
    was flagged first: NES sends 32 at once.
    """
    net, x, y = victim("mnist", "standard")
    rows: Rows = []
    for name in ("Square", "NES"):
        guarded = Guarded(net, calibrated("mnist"))
        guarded.guard.journal = journal = First()
        found, sent = [], 0
        with _served(guarded) as url:
            for i in range(ATTACKED):
                journal.clear()
                os.environ["GUARD_KEY"] = f"t{i}/k/0"
                settings = HttpSettings(
                    format="v2-binary", name="m", headers={"x-api-key": "$GUARD_KEY"}
                )
                model = HttpModel(url, settings)
                threat = Threat(region=Linf(0.1), access="scores", queries=QUERIES)
                attacks.run(
                    attack_of(name), model, x[i : i + 1], y[i : i + 1], threat, batch_size=1
                )
                sent += model.sent
                model.close()
                found.append(journal.first)
        guarded.close()
        row: dict[str, object] = {"attack": name, "inputs": len(found), "queries sent": sent}
        for sensor in ("queries", "search"):
            seen = [one[sensor] for one in found if sensor in one]
            row[sensor] = f"{clopper_pearson(len(seen), len(found))}, query {np.median(seen):.0f}"
        rows.append(row)
        print(row, flush=True)
    return rows


@contextmanager
def _served(guarded: Guarded) -> Iterator[str]:
    torch.set_num_threads(1)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(App(guarded.guard), log_level="error", lifespan="off", access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
