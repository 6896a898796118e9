"""A user's own datasets and loaders: any structure, taken apart into splits, and told by name where they cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

import compress
from compress.data import Data, data_from, given_preprocessing, open_data
from compress.errors import DataError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, 8, 8, generator=GENERATOR)
Y = torch.arange(40) % 4


def tensors(kind: str = "classes", count: int = 40) -> TensorDataset:
    targets = {
        "classes": Y,
        "values": X[:, 0, 0, :2].clone(),
        "masks": (X[:, 0] > 0).long(),
        "images": X.clone(),
    }[kind]
    return TensorDataset(X[:count], targets[:count])


class Objects(Dataset[Any]):
    """Images with a varying number of boxes, as torchvision's detection datasets give them."""

    def __init__(self, box: tuple[float, ...] = (1, 1, 5, 6), label: int = 1, count: int = 20) -> None:
        self.box, self.label, self.count = box, label, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        many = 1 + index % 3
        boxes = torch.tensor([self.box] * many, dtype=torch.float32)
        return X[index], {"boxes": boxes, "labels": torch.full((many,), self.label)}


class Structured(Dataset[Any]):
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"before": X[index], "after": X[-index], "note": "text"}


class Stream(IterableDataset[Any]):
    """Gives less each time by ``shrink`` examples."""

    def __init__(self, count: int = 24, shrink: int = 0) -> None:
        self.count, self.shrink = count, shrink

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(X[: self.count], Y[: self.count], strict=True)
        self.count = max(0, self.count - self.shrink)


def everything(data: Data, batch: int = 7) -> list[float]:
    """One number an example, of all splits."""
    return sorted(float(x[0, 0, 0]) for split in data.splits for xs, _ in split.batches(batch) for x in xs)


@given(
    kind=st.sampled_from(["classes", "values", "masks", "images"]),
    parts=st.sets(st.sampled_from(["train", "calibration", "test"])),
    wrapped=st.booleans(),
    seed=st.integers(0, 3),
)
def test_splits_are_disjoint_and_complete_whatever_is_given(kind: str, parts: set[str], wrapped: bool, seed: int) -> None:
    whole = tensors(kind)
    places = torch.arange(40).chunk(1 + len(parts))
    subsets = [Subset(whole, p.tolist()) for p in places]
    made = {
        n: DataLoader(s, batch_size=3) if wrapped else s for n, s in zip(["validation", *sorted(parts)], subsets, strict=True)
    }
    data = data_from(**made, seed=seed)
    assert everything(data) == sorted(X[:, 0, 0, 0].tolist())
    assert {s.target_kind for s in data.splits} == {kind} and data.labelled == (kind == "classes")
    assert (data.train is None) == ("train" not in parts)
    assert data.digests == data_from(**made, seed=seed).digests and len(set(data.digests.values())) == len(data.splits)
    given_parts = {"train", "test"} & parts
    for name in given_parts - ({"train"} if "calibration" not in parts else set()):
        assert len(getattr(data, name)) == len(made[name].dataset if wrapped else made[name])


@pytest.mark.parametrize("loader", [False, True])
def test_the_order_depends_on_the_seed_alone(loader: bool) -> None:
    whole = tensors()
    data = data_from(train=DataLoader(whole, batch_size=3, shuffle=True) if loader else whole, validation=tensors(count=30))
    assert data.train is not None
    state = torch.get_rng_state()

    def order(seed: int | None) -> list[float]:
        assert data.train is not None
        batches = list(data.train.batches(8, shuffle_seed=seed))
        assert [len(y) for _, y in batches] == [8, 8, 8, 8, 6]
        return [float(v) for x, _ in batches for v in x[:, 0, 0, 0]]

    assert order(1) == order(1) != order(2) and sorted(order(1)) == sorted(order(None)) and order(None) != order(1)
    assert torch.equal(state, torch.get_rng_state())
    assert sum(len(y) for _, y in data.train.batches(8, limit=11)) == 11


def test_detection_as_torchvision_writes_it() -> None:
    plain = data_from(validation=Objects())
    zipped = data_from(validation=DataLoader(Objects(), batch_size=4, collate_fn=lambda rows: tuple(zip(*rows, strict=True))))
    for data in (plain, zipped):
        images, targets = next(data.validation.batches(5))
        assert images.shape == (5, 3, 8, 8) and isinstance(targets, list) and data.validation.target_kind == "boxes"
        assert [len(t["boxes"]) for t in targets] != [1] * 5
        assert sum(len(s) for s in data.splits) == 20


def test_batches_of_any_structure_are_handed_on() -> None:
    data = data_from(validation=Structured())
    batch = next(data.validation.batches(4))
    assert set(batch) == {"before", "after", "note"} and batch["before"].shape == (4, 3, 8, 8)
    assert data.validation.target_kind == "own" and not data.labelled
    with pytest.raises(DataError, match="an input is a dict"):
        data.validation.images(2)


def test_loaders_with_an_order_of_their_own_are_taken_as_they_come() -> None:
    sampler = WeightedRandomSampler([1.0] * 40, 24, generator=torch.Generator().manual_seed(3))
    own = DataLoader(tensors(), batch_size=5, sampler=sampler)
    data = data_from(train=own, validation=Stream(), calibration=[(X[:8], Y[:8])], test=DataLoader(Stream(20), batch_size=6))
    assert data.train is not None and len(data.train) == 24 and len(data.test) == 20 and len(data.calibration) == 8
    assert [len(y) for _, y in data.train.batches(99)] == [5, 5, 5, 5, 4]
    assert sum(len(y) for _, y in data.validation.batches(4, limit=20)) == 24  # a whole batch of 32
    assert data.digests["train"] == "" and "train has no digest" in data.warnings[0]
    assert data.calibration.images(3).shape == (3, 3, 8, 8)


def test_digests_say_what_they_are_of() -> None:
    many = TensorDataset(torch.randn(300, 2), torch.arange(300) % 2)
    data = data_from(validation=many)
    assert "its digest is of 64 of" in data.warnings[0]
    small = tensors()
    before = data_from(validation=small, classes=4).digests
    small.tensors[0][7] += 1
    after = data_from(validation=small, classes=4).digests
    assert sum(before[k] != after[k] for k in before) == 1

    class Noisy(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return X[index] + torch.randn(()), index % 2

    state = torch.get_rng_state()
    data = data_from(validation=Noisy())
    assert torch.equal(state, torch.get_rng_state())
    assert set(data.digests.values()) == {""} and "is another each time" in data.warnings[0]


class Failing(Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise KeyError("no such file")


def nan(kind: str) -> TensorDataset:
    found = tensors(kind)
    found.tensors[1][0] = np.nan
    return found


class Mixed(Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, target = Objects()[index]
        return x[:, : 8 - index % 2], target


SINGLE: dict[str, Any] = {
    "is empty": TensorDataset(X[:0], Y[:0]),
    r"validation is empty: it gave no example": [],
    "can be iterated once only": iter([(X, Y)]),
    "is a int": 3,
    r"gave 24 examples the first time and 20 the second": Stream(shrink=4),
    "KeyError": Failing(),
    "targets hold values that are not finite": nan("values"),
    "run from -2 to 3": TensorDataset(X, torch.where(Y == 2, -2, Y)),
    r"masks are \(4, 4\), their images \(8, 8\)": TensorDataset(X, torch.zeros(40, 4, 4, dtype=torch.long)),
    "a box stands out of its image of 8 x 8: 1, 1, 30, 6": Objects((1, 1, 30, 6)),
    "a box has no area: 3, 1, 3, 6": Objects((3, 1, 3, 6)),
    "images of different sizes": Mixed(),
    "holds no tensor": [("text",)],
}


@pytest.mark.parametrize("message", SINGLE)
def test_a_split_that_cannot_be_used_is_told_before_any_work(message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        data_from(validation=SINGLE[message], calibration=tensors(), test=tensors())
    assert caught.value.hint and "validation" in str(caught.value)


def test_names_bound_the_targets() -> None:
    with pytest.raises(DataError, match=r"from 0 to 3; 3 classes are named, 0 to 2"):
        data_from(validation=tensors(), classes=["a", "b", "c"])
    with pytest.raises(DataError, match=r"labels of boxes run from 4 to 4; 3 classes"):
        data_from(validation=Objects(label=4), classes=3)


def test_what_cannot_be_drawn_is_asked_for() -> None:
    with pytest.raises(DataError, match="test is not given, and validation comes in batches of its own") as caught:
        data_from(validation=Stream())
    assert "give it" in caught.value.hint
    whole = tensors()
    with pytest.raises(DataError, match="test and validation are the same object"):
        data_from(validation=whole, test=whole)
    with pytest.raises(DataError, match="different targets"):
        data_from(validation=tensors(), test=tensors("masks"))


def test_a_loader_that_ends_later_is_told_by_name() -> None:
    stream = Stream()
    data = data_from(validation=stream, calibration=tensors(), test=tensors())
    stream.count = 16
    with pytest.raises(DataError, match=r"validation gave 16 examples, the first time there were 24"):
        list(data.validation.batches(8))


def test_a_function_may_return_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_sets.py").write_text(
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "def one():\n    return TensorDataset(torch.randn(40, 3, 8, 8), torch.randn(40, 2))\n"
        "def parts():\n    return {'train': DataLoader(one(), batch_size=4), 'validation': one(), 'classes': ['x', 'y']}\n"
        "def arrays():\n    return torch.zeros(40, 8, 8, dtype=torch.uint8).numpy(), torch.arange(40).numpy() % 2\n"
        "def rows():\n    return TensorDataset(torch.randn(40, 5), torch.randn(40, 2))\n"
        "def strange():\n    return {'valid': one()}\n"
    )
    monkeypatch.chdir(tmp_path)
    one, parts = open_data("my_sets:one"), open_data("my_sets:parts")
    assert one.train is None and one.validation.target_kind == "values" and one.name == "my_sets:one"
    assert parts.train is not None and parts.classes == ("x", "y")
    shapes = [
        p.shape if (p := given_preprocessing(f"my_sets:{n}")) is not None else None for n in ("one", "parts", "arrays", "rows")
    ]
    assert shapes == [(3, 8, 8), (3, 8, 8), None, None], "what is used as it is says its size"
    with pytest.raises(DataError, match="returned a dict with 'valid'") as caught:
        open_data("my_sets:strange")
    assert "validation" in caught.value.hint


def test_paths_may_be_paths(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((30, 4, 4), np.uint8), y=np.arange(30) % 3)
    assert open_data(tmp_path / "d.npz").digests == compress.open_data(str(tmp_path / "d.npz")).digests
