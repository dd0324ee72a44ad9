"""Modules without numbers: the same as torch makes them, but for what it would work out of numbers that nobody keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.base_models.meta import Unfilled, on_meta


class Seen(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.names.add(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))


def made() -> nn.Module:
    """A module of each kind that fills its weights in its own way."""
    return nn.Sequential(
        nn.Linear(3, 4), nn.Conv2d(4, 4, 3), nn.Embedding(5, 4, padding_idx=0), nn.GroupNorm(2, 4), nn.LayerNorm(4)
    )


def test_modules_are_as_torch_makes_them_and_no_number_is_drawn() -> None:
    made_by = {}
    for name, place in (("torch", torch.device("meta")), ("ours", on_meta())):
        with place, Seen() as seen:
            module = made()
        made_by[name] = {key: (value.shape, value.dtype, value.is_meta) for key, value in module.state_dict().items()}
        assert bool({"uniform_", "normal_", "uniform", "normal"} & seen.names) == (name == "torch"), seen.names
    assert made_by["ours"] == made_by["torch"] and all(is_meta for _, _, is_meta in made_by["ours"].values())


def test_where_there_are_numbers_they_are_drawn() -> None:
    drawn = []
    for within in (nullcontext(), Unfilled()):
        torch.manual_seed(0)
        with within:
            module = made()
            nn.init.normal_(module[0].bias)
        drawn.append(module.state_dict())
    assert all(torch.equal(drawn[0][name], value) for name, value in drawn[1].items())
