"""The files for other systems, each wholly or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from ..._errors import OutputError
from ..._whole import whole
from ..slo import Slo
from ._dashboard import dashboard
from ._rules import alertmanager_config, rules_text
from ._sloth import sloth_text


def written(slos: list[Slo], folder: Path) -> list[Path]:
    """Write rules, routes, dashboard, promises to a folder; raises OutputError where that fails."""
    texts = {
        "withstand.rules.yml": rules_text(slos),
        "alertmanager.yml": alertmanager_config(),
        "grafana.json": json.dumps(dashboard(slos), indent=2) + "\n",
    }
    # Sloth takes no file without a promise.
    if any(slo.objective is not None for slo in slos):
        texts["sloth.yml"] = sloth_text(slos)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with whole(folder / name) as file:
                file.write(text.encode())
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}; give another folder"
        ) from None
    return [folder / name for name in texts]
