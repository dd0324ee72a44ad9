"""Copies of module trees are what `copy.deepcopy` gives, and share nothing but the tensors that they are to share."""

from __future__ import annotations

import copy
from types import BuiltinFunctionType, FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.base_models.copying import with_tensors
from trainables.base_models.models import COMPONENTS, DiffusionModels, load_base
from trainables.strategies import make_strategy
from trainables.strategies.base import TrainingStep


class Tied(nn.Module):
    """Two layers with one weight, one layer under two names, a hook, and what modules keep beside all that."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again, self.nothing = self.first, None
        self.outer = [self.second]
        self.kept, self.settings = torch.ones(2), {"sizes": [1, 2]}
        count = torch.zeros(2)
        self.register_buffer("count", count)
        self.register_buffer("alike", count)
        self.register_module("absent", None)
        self.first.weight.requires_grad_(False)
        self.first.register_forward_hook(lambda module, given, result: 2 * result)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.outer[0](self.first(x)) + self.get_buffer("count").sum()
        return result


@pytest.fixture(scope="module")
def trained() -> DiffusionModels:
    """Of which a strategy keeps tensors beside parameters and buffers."""
    torch.manual_seed(0)
    models, strategy = load_base("mini"), make_strategy("adalora", {"components": "unet+text_encoder"})
    strategy.attach(models)
    step = TrainingStep(number=0, num_steps=10, seed=0)
    strategy.on_step_start(models, step)
    for _, parameter in strategy.trained(models):
        parameter.grad = torch.ones_like(parameter)
    strategy.on_step_end(models, step)
    return models


@pytest.fixture(params=["awkward", *COMPONENTS])
def tree(request: pytest.FixtureRequest, trained: DiffusionModels) -> nn.Module:
    return Tied().eval() if request.param == "awkward" else trained.component(request.param)


def spelled(value: Any, seen: dict[int, int]) -> Any:
    """All that a value holds, as numbers, names and places where the same thing comes again."""
    if isinstance(value, int | float | str | type | FunctionType | BuiltinFunctionType | None):
        return value
    if id(value) in seen:
        return ("again", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        return (type(value).__name__, value.requires_grad, value.dtype, value.shape, value.detach().numpy().tobytes())
    if isinstance(value, dict):
        return (type(value).__name__, [(key, spelled(each, seen)) for key, each in value.items()])
    if isinstance(value, list | tuple):
        return (type(value).__name__, [spelled(each, seen) for each in value])
    if isinstance(value, set | frozenset):
        return (type(value).__name__, sorted(map(repr, value)))
    inner = vars(value) if hasattr(value, "__dict__") else repr(value)
    return (type(value).__name__, spelled(inner, seen))


def test_a_copy_is_what_deepcopy_gives(tree: nn.Module) -> None:
    expected, made = copy.deepcopy(tree), with_tensors(tree, Tensor.clone)
    assert spelled(made, {}) == spelled(expected, {})


def test_two_trees_have_nothing_in_common_but_the_tensors_that_they_are_to_share(tree: nn.Module) -> None:
    shared, apart = with_tensors(tree, lambda same: same), with_tensors(tree, Tensor.clone)
    modules = set(map(id, tree.modules()))
    assert not modules & {id(module) for made in (shared, apart) for module in made.modules()}
    parameters = set(map(id, tree.parameters()))
    assert not parameters & {id(each) for made in (shared, apart) for each in made.parameters()}
    assert not containers(tree) & containers(shared)
    places = {key: value.data_ptr() for key, value in tree.state_dict().items()}
    assert places == {key: value.data_ptr() for key, value in shared.state_dict().items()}
    assert not set(places.values()) & {value.data_ptr() for value in apart.state_dict().values()}


def containers(tree: nn.Module) -> set[int]:
    """The dictionaries that modules hold their own in; a copy that had the same would change with the original."""
    return {id(value) for module in tree.modules() for value in vars(module).values() if isinstance(value, dict | set)}


def test_a_copy_computes_by_its_own_layers() -> None:
    tree, x = Tied().eval(), torch.ones(1, 3)
    made = with_tensors(tree, Tensor.clone)
    before = tree(x)
    assert torch.equal(made(x), before)
    nn.init.zeros_(made.second.weight)
    assert torch.equal(tree(x), before) and not torch.equal(made(x), before)
    assert made.first.weight is made.second.weight and made.again is made.first and made.outer[0] is made.second


class Particular(nn.Linear):
    """A module that has its own way of being copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Particular:
        return Particular(1, 1)


def test_a_module_that_copies_itself_does_so() -> None:
    assert with_tensors(nn.Sequential(Particular(3, 3)), Tensor.clone)[0].in_features == 1
