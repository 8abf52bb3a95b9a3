"""Torch data sets and loaders, and callables that give them, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from withstand._errors import DataError
from withstand.config import DataConfig
from withstand.data import from_torch, load

X = torch.arange(60, dtype=torch.float32).reshape(10, 1, 2, 3) / 60
Y = torch.arange(10) % 3


class Named(TensorDataset):
    classes = ("cat", "dog", "fox")


class Noisy(Dataset[tuple[Tensor, int]]):
    """Random transforms."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return X[i] + torch.rand(()), int(Y[i])


class Stream(IterableDataset[tuple[Tensor, int]]):
    """Samples without an end."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        while True:
            yield X[0], 1


class Bad(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


@pytest.mark.parametrize("batch", [None, 1, 4, 10])
@pytest.mark.parametrize("limit", [None, 1, 7, 50])
def test_samples_and_batches_are_the_rows_in_their_order(
    batch: int | None, limit: int | None
) -> None:
    samples: Any = TensorDataset(X, Y)
    found = from_torch(
        samples if batch is None else DataLoader(samples, batch_size=batch), limit=limit
    )
    rows = min(limit or 10, 10)
    np.testing.assert_array_equal(found.x, X[:rows])
    np.testing.assert_array_equal(found.y, Y[:rows])
    assert (found.y.dtype, found.provenance.name) == (np.int64, "TensorDataset")


def test_class_names_are_found_through_parts_and_loaders() -> None:
    part = DataLoader(Subset(Named(X, Y), [1, 3, 5]), batch_size=2)
    found = from_torch(part)
    assert found.classes == ("cat", "dog", "fox")
    assert found.y.tolist() == [1, 0, 2]
    assert from_torch(part, classes="abc").classes == ("a", "b", "c")


def test_shuffles_and_random_transforms_draw_from_the_seed_and_leave_the_callers_alone() -> None:
    loader = DataLoader(Noisy(), batch_size=3, shuffle=True)
    state = torch.get_rng_state()
    first, again = from_torch(loader), from_torch(loader)
    assert torch.equal(state, torch.get_rng_state())
    assert first.provenance.digest == again.provenance.digest
    assert first.provenance.digest != from_torch(loader, seed=1).provenance.digest


def test_a_stream_is_read_up_to_the_limit() -> None:
    assert len(from_torch(Stream(), limit=5)) == 5
    assert len(from_torch(DataLoader(Stream(), batch_size=2), limit=5)) == 5


def test_half_precision_numbers_and_values_of_a_regression() -> None:
    found = from_torch(TensorDataset(X.bfloat16(), torch.linspace(0, 1, 10)))
    assert found.x.dtype == np.float32
    assert found.y.dtype == np.float32


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (Bad(), "has no rows"),
        (Bad({"image": X[0], "label": 1}), "sample 0 is dict; give pairs"),
        (Bad((X[0], 1, 2)), "sample 0 is 3 values; give pairs"),
        (Bad((X[0], 1), (X[0, :, :1], 1)), r"sample 1 has x of shape \(1, 1, 3\)"),
        (Bad((object(), 1)), "x of sample 0 is a object; add a transform to a tensor"),
        (Bad((X[0], 1), (X[0] * float("nan"), 1)), "NaN"),
        (7, "int is no data set"),
        (DataLoader(TensorDataset(X, Y), batch_size=None), "batch 0 has x of shape"),
    ],
)
def test_what_has_no_pairs_is_named(samples: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_torch(samples)


CODE = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
from withstand.data import from_arrays

X = torch.arange(60, dtype=torch.float32).reshape(10, 1, 2, 3) / 60
Y = torch.arange(10) % 3

def loader(): return DataLoader(TensorDataset(X, Y), batch_size=4)
def arrays(): return X.numpy(), Y.numpy()
def own(): return from_arrays(X.numpy(), Y.numpy(), name="mine")
def broken(): return X[11]
class Lazy(torch.utils.data.Dataset):
    def __len__(self): return 3
    def __getitem__(self, i): return open("/nowhere")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def made(folder: Path, name: str, **more: Any) -> Any:
    return load(
        DataConfig.model_validate({"kind": "python", "factory": f"mine.py:{name}", **more}), folder
    )


@pytest.mark.parametrize("name", ["loader", "arrays", "own"])
def test_a_callable_gives_what_a_configuration_names(folder: Path, name: str) -> None:
    found = made(folder, name, limit=7)
    np.testing.assert_array_equal(found.x, X[:7])
    assert found.provenance.name == ("mine" if name == "own" else name)
    only = made(folder, name, only=["2"], limit=2)
    assert only.y.tolist() == [2, 2]


def test_sources_and_classes_are_told(folder: Path) -> None:
    found = made(folder, "loader", classes=["a", "b", "c"], licence="CC0")
    assert found.classes == ("a", "b", "c")
    assert (found.provenance.source, found.provenance.licence) == ("mine.py:loader", "CC0")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", r"mine.py:broken failed: line \d+ of mine.py: IndexError"),
        ("Lazy", r"mine.py:Lazy failed: line \d+ of mine.py: FileNotFoundError"),
        ("lodaer", "mine.py has no callable 'lodaer', did you mean 'loader'"),
    ],
)
def test_what_goes_wrong_in_the_users_code_is_one_line(folder: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        made(folder, name)
    assert "\n" not in str(error.value)


def keys(**told: Any) -> Callable[[], DataConfig]:
    return lambda: DataConfig.model_validate({"kind": "python", **told})


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (keys(), "factory is missing"),
        (keys(factory="mine.py"), "write file.py:callable"),
        (keys(factory="mine.py:x", path="a"), "path is only for kind"),
        (keys(factory="mine.py:x", scale=2), "scale is only for kind"),
        (lambda: DataConfig(kind="npz", path="a", factory="mine.py:x"), "factory is only for"),
    ],
)
def test_keys_that_do_not_go_together(told: Callable[[], DataConfig], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        told()
