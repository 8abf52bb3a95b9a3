"""What of the guard's cost is its own, and what any proxy of its kind would spend."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from guard import (
    CONNECTIONS,
    ROUNDS,
    Way,
    answering,
    cpu,
    free_port,
    load_script,
    on,
    served,
    tools,
    wrk,
)
from measure import Rows

STACKS = {
    "uvicorn, answers at once": ("uvicorn", "answers"),
    "uvicorn, passes the bytes on": ("uvicorn", "forwards"),
    "own protocol, passes the bytes on": ("own", "forwards"),
    "own protocol, reads and writes anew": ("own", "reads"),
}


def floor() -> Rows:
    """CPU time of a request of 28x28 JSON, from a mere proxy in C to the whole guard.

    As for `guard`: each is one process on a core of its own, the load and the model server share
    the other. The stacks have no keys, no checks and no evidence: uvicorn with a bare ASGI
    application, or the guard's own HTTP/1.1, before the guard's pool of connections. Microseconds:
    the lowest of 7 rounds in turn, and the median of the rounds' ratios to nginx.
    """
    if not tools():
        return []
    with served("28x28", reads=False) as ways:
        folder, key = ways["guard"].folder, ways["guard"].key
        script = load_script(folder, "28x28", raw=False, key=key)
        with _stacks(folder, ways["server"].port) as stacks:
            tried = {"nginx": ways["nginx"], **stacks, "the guard": ways["guard"]}
            for way in tried.values():
                wrk(way, script, CONNECTIONS)
            rounds = [
                {name: cpu(way, script) for name, way in tried.items()} for _ in range(ROUNDS)
            ]
    return [
        {
            "what": name,
            "us": f"{min(one[name] for one in rounds):.0f}",
            "times nginx": f"{median(one[name] / one['nginx'] for one in rounds):.1f}",
        }
        for name in tried
    ]


@contextmanager
def _stacks(folder: Path, server: int) -> Iterator[dict[str, Way]]:
    script = str(Path(__file__).with_name("guard_stack.py"))
    started: list[subprocess.Popen[bytes]] = []
    found = {}
    try:
        for name, words in STACKS.items():
            port, log = free_port(), folder / f"{'-'.join(words)}.log"
            command = [sys.executable, "-W", "ignore", script, *words, str(port), str(server)]
            with log.open("wb") as file:
                started.append(subprocess.Popen(on(0, command), stdout=file, stderr=file))
            answering(port, log)
            found[name] = Way(port=port, pid=started[-1].pid, folder=folder)
        yield found
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
