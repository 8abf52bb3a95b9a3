"""The files for other systems, each wholly or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..._errors import OutputError
from ..slo import Slo
from ._dashboard import dashboard
from ._rules import alertmanager_config, rules_text


def written(slos: list[Slo], folder: Path) -> list[Path]:
    """Write rules, routes and dashboard to a folder; raises OutputError where that fails."""
    texts = {
        "withstand.rules.yml": rules_text(slos),
        "alertmanager.yml": alertmanager_config(),
        "grafana.json": json.dumps(dashboard(slos), indent=2) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            part = folder / f".{name}.{os.getpid()}"
            with part.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(folder / name)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; free space") from None
    return [folder / name for name in texts]
