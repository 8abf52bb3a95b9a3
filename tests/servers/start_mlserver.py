"""MLServer with its scikit-learn runtime: start_mlserver.py PORT WEIGHTS FOLDER."""

import json
import sys
from pathlib import Path

import joblib
from classifier import classifier
from mlserver.cli import main

port, weights, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
joblib.dump(classifier(weights), folder / "model.joblib")
settings = {
    "host": "127.0.0.1",
    "http_port": port,
    # 0 takes any free port; nobody asks there.
    "grpc_port": 0,
    "metrics_endpoint": None,
    "parallel_workers": 0,
}
(folder / "settings.json").write_text(json.dumps(settings))
for name, implementation, uri in (
    ("digits", "mlserver_sklearn.SKLearnModel", "../model.joblib"),
    ("digits-onnx", "mlserver_onnx.Digits", "../weights.npz"),
):
    (folder / name).mkdir(exist_ok=True)
    model = {"name": name, "implementation": implementation, "parameters": {"uri": uri}}
    (folder / name / "model-settings.json").write_text(json.dumps(model))
sys.argv[1:] = ["start", str(folder)]
main()
