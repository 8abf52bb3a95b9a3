"""The classifier that every server serves, rebuilt from its numbers: no pickle crosses over."""

from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression


def classifier(path: str) -> LogisticRegression:
    """The logistic regression whose coefficients an .npz file holds."""
    with np.load(path) as kept:
        made = LogisticRegression()
        made.coef_, made.intercept_ = kept["coef"], kept["intercept"]
    made.classes_, made.n_features_in_ = np.arange(len(made.coef_)), made.coef_.shape[1]
    return made


def onnx_classifier(path: str):
    """The same as ONNX, from model.onnx beside that file: scores and labels of rows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(Path(path).with_name("model.onnx"), options)

    def ask(rows):
        return session.run(["scores", "label"], {"pixels": np.asarray(rows, np.float32)})

    return ask
