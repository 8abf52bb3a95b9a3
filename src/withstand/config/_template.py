"""The commented withstand.yaml that a project starts from."""

from __future__ import annotations

import json

import yaml

from ._data import DataKind
from ._harden import Norm
from ._model import ModelKind

_TEXT = """\
# What withstand attacks, on which data, and what counts as withstanding.
# A key behind "# " is optional: take the "# " away to use it.

model:
{model}
  domain: {domain}                # lowest and highest raw input; lists give one value per feature
  # layout: hwc                   # it takes pictures as HxWxC; the data are CxHxW here
  # access: scores                # the most it gives away: gradients | scores | labels | none
  # allow_pickle: false           # true opens pickled weights, which can run any code they hold

# served:                         # where the model is served, for `withstand parity`
#   kind: http                    # with the keys of model
#   url: http://localhost:8000
#   http: {{name: model}}
#   domain: {domain}

data:
  kind: {data}                    # npz | parquet | csv | images | audio | sklearn | python
{origin}
  # factory: data.py:test         # python: gives a torch Dataset, a DataLoader, or arrays (x, y)
{x}                          # npz: key of the inputs
{y}                          # key or column of the labels
  # features: [age, income]       # parquet, csv: feature columns; else all but label and group
  # group: user                   # npz, parquet, csv: key or column of each row's user group
{scale}                    # raw values are divided by this
  # layout: auto                  # auto: 28x28 gets a channel axis, HxWx3 becomes 3xHxW;
                                  # or none | hwc | chw
  # limit: 1000                   # only the first rows
  # classes: [cat, dog]           # class names in the model's order
  # source: where it comes from   # told in reports
  # licence: CC BY 4.0            # told in reports
  # size: [32, 32]                # images: resize to [height, width]
  # length: 16000                 # audio: cut or zero-pad to this many samples

threat:
  goal: untargeted                # untargeted | targeted | multilabel | regression
  # target: 0                     # targeted: the class the attacker wants
  # tolerance: 0.5                # regression: the error the attacker must exceed
  access: {access}               # what the attacker sees: gradients | scores | labels | none
  region:                         # what the attacker may change
    norm: {norm}                  # linf | l2 | l1 | l0
    eps: {eps}                    # radius in raw input units (l0: number of features);
                                  # fractions such as 8/255 are fine
    # frozen: [0, 3]              # indices of features the attacker cannot change
    # patches: [{{height: 5, width: 5, top: 2, left: 2}}]  # of pictures only these change
  # queries: 5000                 # queries the attacker can spend on one sample

# surrogates:                     # models the attacker has, with gradients; access none needs some
#   - kind: torch                 # each with the keys of model
#     factory: model.py:other
#     domain: {domain}

# defences:                       # in front of the model; evaluated by attacks that know them
#   - {{name: jpeg, quality: 75}}   # bit_depth | distilled | jpeg | median | noise |
                                  # resize_and_pad | total_variation

# compare:                        # put beside the model by `withstand compare`
#   - {{defences: [{{name: bit_depth, bits: 4}}]}}
#   - {{model: {{kind: torch, factory: model.py:build, weights: hardened/weights.safetensors}}}}

evaluate:
  preset: standard                # smoke | standard | thorough
  seed: 0
  # seconds: 600                  # time limit in all
  # batch_size: 256               # samples per forward; else 64
  # checkpoint: run.ckpt          # resume from this file after an interruption
  # output: withstand-report      # folder of the report
  # corpus: corpus                # folder of kept examples: shown first, and new ones are added
  # severity: [[0, 1], [5, 0]]    # cost of each mistake, true class x predicted class

# harden:                         # `withstand harden` trains it to withstand threat.region
#   recipe: fgsm                  # standard | fgsm | nfgsm | pgd | active | trades
#   epochs: 10
#   data: {{kind: npz, path: train.npz}}  # else x_train and y_train of data's npz
#   corpus: corpus                # fine-tune on kept adversarial examples instead

# certify:                        # `withstand certify` proves what no attack can change
#   method: smoothing             # smoothing | bounds (linf, small networks) | trees
#   sigma: 0.25                   # smoothing: standard deviation of the noise

# detect:                         # `withstand detect fit` tells inputs that look like an attack
#   methods: [mahalanobis]        # or with settings: [{{name: feature_squeezing, bits: 5}}]
#   data: {{kind: npz, path: benign.npz}}  # else x_train and y_train of data's npz
#   fpr: 0.01                     # the most that may be flagged of benign inputs
#   requests_per_day: 100000      # in service, to tell false alarms a day

# guard:                          # `withstand guard serve` stands in front of the served model
#   upstream: http://127.0.0.1:8080
#   keys: keys.json               # made by `withstand guard key add`; or open: true
#   mode: shadow                  # observe | shadow | enforce
#   models: {{digits: {{inputs: [{{name: x, datatype: FP32, shape: [-1, 784], range: [0, 1]}}]}}}}
#   quota: {{requests: 100, seconds: 1}}      # of each key
#   evidence: {{folder: evidence}}  # what was seen, decided and done

gate:                             # what a release must meet; shares between 0 and 1
  robust_accuracy: {{min: 0.5}}     # share still classified correctly under attack: what you need
  # clean_accuracy: {{min: 0.9}}    # share classified correctly without attack
  # fooling_rate: {{max: 0.4}}      # share of correctly classified inputs that an attack fools
  # worst_class_accuracy: {{min: 0.3}}  # robust accuracy of the worst class, with --report
  # certified_accuracy: {{min: 0.3}}  # share proven robust, by `withstand certify`
  # clean_accuracy_drop: {{max: 0.01}}       # below the last release's, as is robust_accuracy_drop
  # adversarial_test_coverage: {{min: 0.2}}  # share of the tests that are robustness tests
  # baseline: last-release        # folder of the last release's report
  trust: {{min: amber}}             # can the number be believed: green | amber | red
"""

_CALLABLE = "file.py:callable or package.module:callable"


def template(
    *,
    model: ModelKind = "torch",
    factory: str | None = None,
    weights: str | None = None,
    url: str | None = None,
    domain: str = "[0, 1]",
    data: DataKind = "npz",
    path: str = "data.npz",
    name: str = "digits",
    x: str | None = None,
    y: str | None = None,
    scale: int | None = None,
    norm: Norm = "linf",
    eps: str = "8/255",
) -> str:
    """A commented withstand.yaml that loads as it stands; optional keys are commented out.

    `name` is used by data kind sklearn and `path` by the others.
    """
    if data == "sklearn":
        origin = [
            f"  name: {_scalar(name)}                  # digits | breast_cancer | wine | iris"
        ]
        origin += ["  # path: data.npz                # other kinds: file or folder"]
    else:
        origin = [f"  path: {_scalar(path)}                # file or folder, relative to this file"]
        origin += [
            "  # name: digits                  # sklearn: digits | breast_cancer | wine | iris"
        ]
    text = _TEXT.format(
        model=model_lines(model=model, factory=factory, weights=weights, url=url),
        domain=domain,
        data=data,
        origin="\n".join(origin),
        x="  # x: x" if x is None else f"  x: {_scalar(x)}",
        y="  # y: y" if y is None else f"  y: {_scalar(y)}",
        scale="  # scale: 255" if scale is None else f"  scale: {scale}",
        access="scores" if model in ("sklearn", "http", "python") else "gradients",
        norm=norm,
        eps=eps,
    )
    return "\n".join(_aligned(line) for line in text.splitlines()) + "\n"


def model_lines(
    *,
    model: ModelKind = "torch",
    factory: str | None = None,
    weights: str | None = None,
    url: str | None = None,
) -> str:
    """The lines of the section model that say how it is opened, in commented YAML."""
    lines = [f"  kind: {model}  # torch | onnx | sklearn | http | python"]
    if model == "http":
        lines += [f"  url: {_scalar(url or 'http://localhost:8000')}  # where the model answers"]
        lines += ["  http: {name: model}  # the name there; also format, headers, rate, ..."]
    elif model == "onnx":
        lines += [f"  weights: {_scalar(weights or 'model.onnx')}  # the exported network"]
    else:
        if factory or not weights:
            lines += [f"  factory: {_scalar(factory or 'model.py:build')}  # {_CALLABLE}"]
        if weights:
            lines += [f"  weights: {_scalar(weights)}  # the model's file"]
        elif model == "sklearn":
            lines += ["  # weights: model.json  # instead: trees as .json, .ubj, .txt or .cbm"]
        else:
            lines += [
                "  # weights: weights.safetensors  # or a state_dict .pt; leave out where the "
                "factory loads them"
            ]
            lines += ["  # url: http://localhost:8000  # http: where the model answers"]
            lines += ["  # http: {name: model}  # http: the name there; also format, rate, ..."]
    return "\n".join(_aligned(line) for line in lines)


def _scalar(text: str) -> str:
    """Text as a YAML scalar, in quotes where it would be read as something else."""
    try:
        plain = yaml.safe_load(text) == text
    except (yaml.YAMLError, ValueError):
        plain = False
    return text if plain else json.dumps(text)


def _aligned(line: str) -> str:
    """The line with its trailing comment in one column."""
    at = line.rfind("  # ", 4)
    if at < 0:
        return line
    code = line[:at].rstrip()
    return f"{code:<32}  {line[at:].strip()}" if code else line
