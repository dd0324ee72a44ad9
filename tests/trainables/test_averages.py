"""The moving average against diffusers' own."""

from __future__ import annotations

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from trainables.averages import MovingAverage


def test_it_is_diffusers_average_to_the_bit() -> None:
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
