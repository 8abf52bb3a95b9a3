"""Triton, embedded by PyTriton: start_triton.py PORT WEIGHTS FOLDER."""

import sys

import numpy as np
from classifier import classifier, onnx_classifier
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

port, weights = int(sys.argv[1]), sys.argv[2]
digits, graph = classifier(weights), onnx_classifier(weights)


@batch
def infer(pixels):
    """Scores and labels of the digits' classifier."""
    labels = digits.predict(pixels).astype(np.int64)[:, None]
    return {"scores": digits.predict_proba(pixels).astype(np.float32), "label": labels}


@batch
def infer_onnx(pixels):
    """The same by ONNX Runtime."""
    scores, labels = graph(pixels)
    return {"scores": scores, "label": labels[:, None]}


config = TritonConfig(
    http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False
)
with Triton(config=config) as triton:
    for name, function in (("digits-onnx", infer_onnx), ("digits", infer)):
        triton.bind(
            model_name=name,
            infer_func=function,
            inputs=[Tensor(name="pixels", dtype=np.float32, shape=(64,))],
            outputs=[
                Tensor(name="scores", dtype=np.float32, shape=(10,)),
                Tensor(name="label", dtype=np.int64, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=64),
        )
    triton.serve()
