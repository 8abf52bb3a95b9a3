"""Triton, embedded by PyTriton: start_triton.py PORT WEIGHTS FOLDER."""

import sys

import numpy as np
from classifier import classifier
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

port, weights = int(sys.argv[1]), sys.argv[2]
digits = classifier(weights)


@batch
def infer(pixels):
    """Scores and labels of the digits' classifier."""
    labels = digits.predict(pixels).astype(np.int64)[:, None]
    return {"scores": digits.predict_proba(pixels).astype(np.float32), "label": labels}


config = TritonConfig(
    http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False
)
with Triton(config=config) as triton:
    triton.bind(
        model_name="digits",
        infer_func=infer,
        inputs=[Tensor(name="pixels", dtype=np.float32, shape=(64,))],
        outputs=[
            Tensor(name="scores", dtype=np.float32, shape=(10,)),
            Tensor(name="label", dtype=np.int64, shape=(1,)),
        ],
        config=ModelConfig(max_batch_size=64),
    )
    triton.serve()
