"""The moving average against diffusers' own."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import averages
from trainables.averages import MovingAverage, stretches


@pytest.mark.parametrize("at_a_time", [1, 13, 2**24])
def test_it_is_diffusers_average_to_the_bit(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    monkeypatch.setattr(averages, "AT_A_TIME", at_a_time)
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), (2, 2, 2))]
    ours, theirs = MovingAverage(parameters, 0.3), EMAModel(parameters, decay=0.3)
    for _ in range(8):
        with torch.no_grad():
            for parameter in parameters:
                parameter += torch.randn(parameter.shape, generator=generator)
        ours.step(parameters)
        theirs.step(parameters)
        assert all(map(torch.equal, ours.values, theirs.shadow_params))


def test_parameters_have_the_averages_only_within_and_nothing_is_copied() -> None:
    parameters = [nn.Parameter(torch.full((2,), 1.0)), nn.Parameter(torch.full((3,), 2.0))]
    average = MovingAverage(parameters, 0.5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    places = {tensor.data_ptr() for tensor in (*parameters, *average.values)}
    with average.in_place_of(parameters):
        assert [parameter.tolist() for parameter in parameters] == [[1.0] * 2, [2.0] * 3]
        assert {tensor.data_ptr() for tensor in (*parameters, *average.values)} == places
    assert [parameter.tolist() for parameter in parameters] == [[0.0] * 2, [0.0] * 3]
    assert [value.tolist() for value in average.values] == [[1.0] * 2, [2.0] * 3]


class _Made(TorchDispatchMode):
    """How many numbers each operation makes new tensors of, at most."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = made if isinstance(made, list | tuple) else ()
        self.most = max(self.most, sum(tensor.numel() for tensor in tensors))
        return made


def test_a_step_makes_no_copy_of_all_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averages, "AT_A_TIME", 100)
    parameters = [nn.Parameter(torch.ones(40)) for _ in range(20)]
    average = MovingAverage(parameters, 0.5)
    with _Made() as made:
        average.step(parameters)
    assert made.most == 80


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 40))
def test_stretches_have_everything_once_and_are_as_long_as_may_be(sizes: list[int], most: int) -> None:
    parts = [sizes[part] for part in stretches(sizes, most)]
    assert [size for part in parts for size in part] == sizes
    assert all(sum(part) <= most or len(part) == 1 for part in parts)
    assert all(sum(part) + later[0] > most for part, later in pairwise(parts))
