"""Every export format: it holds some adapters, refuses others before anything is written, and leaves the model alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from strategy_examples import EXAMPLES

from trainables.base_models.models import DiffusionModels, load_base
from trainables.exports import EXPORTS, ExportFormat
from trainables.strategies import Strategy, make_strategy
from trainables.strategies.base import trained_parameters

Adapted = tuple[DiffusionModels, Strategy]
KINDS = ("lora", "bitfit", "textual_inversion", "lora and new tokens")
"""One of low-rank layers, one of neither kind, one of new tokens, one of both."""
ADAPTERS = [name for name, example in EXAMPLES.items() if name in KINDS or not example.is_listed]
"""Besides them, whatever strategy has been added."""


def adapted_by(name: str) -> Adapted:
    example = EXAMPLES[name]
    models, strategy = load_base("mini"), make_strategy(example.strategy or name, example.hyperparameters)
    torch.manual_seed(0)
    strategy.attach(models)
    with torch.no_grad():
        for _, parameter in trained_parameters(models):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return models, strategy


@pytest.fixture(scope="module")
def adapters() -> dict[str, Adapted]:
    return {name: adapted_by(name) for name in ADAPTERS}


@pytest.fixture(params=ADAPTERS)
def adapted(request: pytest.FixtureRequest, adapters: dict[str, Adapted]) -> Adapted:
    return adapters[request.param]


@pytest.fixture(params=EXPORTS)
def format_(request: pytest.FixtureRequest) -> ExportFormat:
    return EXPORTS[request.param]


def fits(format_: ExportFormat, models: DiffusionModels, strategy: Strategy) -> bool:
    try:
        format_.expect_fits(models, strategy)
    except ValueError as error:
        assert f"`format` {format_.name} must" in str(error) and strategy.name in str(error)
        return False
    return True


@pytest.mark.slow
def test_a_format_writes_what_it_can_hold_and_nothing_else(
    adapted: Adapted, format_: ExportFormat, tmp_path: Path
) -> None:
    models, strategy = adapted
    before = {name: part.state_dict() for name, part in models.components().items()}
    kept = {name: {key: tensor.clone() for key, tensor in state.items()} for name, state in before.items()}
    folder = tmp_path / "exported"
    if fits(format_, models, strategy):
        format_.write(models, strategy, folder)
        assert list(folder.rglob("*.safetensors"))
        assert str(folder) in format_.next_steps(folder, "the-base")
    else:
        with pytest.raises(ValueError, match="but got an adapter by"):
            format_.write(models, strategy, folder)
        assert not folder.exists()
    for name, part in models.components().items():
        assert part.state_dict().keys() == kept[name].keys()
        assert all(torch.equal(tensor, kept[name][key]) for key, tensor in part.state_dict().items())


@pytest.mark.slow
def test_a_format_holds_at_least_one_of_the_adapters(format_: ExportFormat, adapters: dict[str, Adapted]) -> None:
    assert any(fits(format_, models, strategy) for models, strategy in adapters.values())


def test_every_format_stands_in_the_table_by_its_name() -> None:
    assert all(format_.name == name for name, format_ in EXPORTS.items())


def test_formats_are_known_without_importing_torch() -> None:
    """So that a misspelt format, and `--help`, are answered at once."""
    code = "import sys, trainables.exports; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
