"""`python -m sweep.describe`: published counts, real adapters' sizes, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from click.testing import Result
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

from sweep import describe
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import MINI_FOLDER, DiffusionModels, load_base
from trainables.base_models.shapes import base_on_meta
from trainables.strategies import COMBINATIONS, STRATEGIES, make_strategy
from trainables.strategies.base import TrainingStep
from trainables.strategies.footprint import footprint
from trainables.strategies.overview import Entry, choices, overview

pytestmark = pytest.mark.slow
LORA, UNET, TEXT_ENCODER, VAE, WHOLE = 199_296, 859_520_964, 123_060_480, 83_653_863, 1_066_235_307
PUBLISHED: list[tuple[str, dict[str, Any], int]] = [
    ("unet", {}, UNET),
    ("text_encoder", {}, TEXT_ENCODER),
    ("unet+text_encoder", {}, UNET + TEXT_ENCODER),
    ("vae", {}, VAE),
    ("all", {}, WHOLE),
    ("delta_full", {}, 859_077_120),
    ("lora", {"targets": "attention", "components": "unet"}, 4 * LORA),
    ("lora", {"targets": "all_linear"}, 4 * 426_496),
    ("dora", {"targets": "attention", "components": "unet"}, 4 * LORA + 99_840),
    ("selora", {"targets": "attention", "components": "unet"}, LORA),
    ("adalora", {"targets": "attention", "components": "unet"}, 6 * (LORA + 128)),
    ("dylora", {"targets": "attention", "components": "unet"}, 4 * LORA),
    ("nested_lora", {"targets": "attention", "components": "unet"}, 4 * LORA),
    ("bitfit", {}, 343_684),
    ("norm", {}, 200_320),
    ("difffit", {"attention_gammas": True}, 581_124),
    ("difffit", {"attention_gammas": False}, 481_284),
    ("textual_inversion", {}, 6 * 768),
    ("text_encoder_swap", {"train_encoder": False}, UNET),
]


def invoke(*options: str) -> Result:
    app = typer.Typer()
    app.command()(describe.main)
    return CliRunner().invoke(app, list(options))


@pytest.fixture(scope="module")
def printed() -> tuple[str, str]:
    """What is printed of sd15 for programs and for the terminal, of one count, which takes seconds."""
    counted: list[list[Entry]] = []

    def once(base: DiffusionModels, rank: int) -> list[Entry]:
        counted[:] = counted or [overview(base, rank)]
        return counted[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainables.strategies.overview.overview", once)
        programs, terminal = (invoke("--base", "sd15", "--rank", "4", *options) for options in (("--json",), ()))
    assert programs.exit_code == terminal.exit_code == 0, (programs.output, terminal.output)
    return programs.stdout, terminal.stdout


@pytest.fixture(scope="module")
def sd15(printed: tuple[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(printed[0])
    return document


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini base's configurations, without weights."""
    folder = tmp_path_factory.mktemp("base") / "thin"
    for part in ("unet", "vae", "text_encoder"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_bytes((MINI_FOLDER / part / "config.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def mini() -> DiffusionModels:
    return load_base("mini")


def test_parts_are_as_large_as_published(sd15: dict[str, Any]) -> None:
    assert sd15["parameters"] == {"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER}


@pytest.mark.parametrize(("name", "chosen", "count"), PUBLISHED)
def test_counts_are_the_published_ones(sd15: dict[str, Any], name: str, chosen: dict[str, Any], count: int) -> None:
    (entry,) = [
        entry
        for entry in sd15["strategies"]
        if entry["strategy"] == name and chosen.items() <= entry["hyperparameters"].items()
    ]
    assert entry["trainable_parameters"] == count
    assert entry["gradient_bytes"] == 4 * count and entry["moment_bytes"] == 8 * count
    parts = {"unet": UNET, "text_encoder": TEXT_ENCODER, "vae": VAE}
    loaded = sum(parts[part] for part in {"unet", *entry["trains"]})
    adding = ("lora", "dora", "adalora", "dylora", "nested_lora", "selora", "delta_full", "textual_inversion")
    added = count if name in adding else 0
    assert entry["weight_bytes"] - 4 * (loaded + added) == (4 * gammas(chosen) if name == "difffit" else 0)
    kept = {"adalora": 8 * count, "dylora": 4 * count}.get(name, 0)
    assert entry["training_bytes"] == entry["weight_bytes"] + 12 * count + kept


def gammas(chosen: dict[str, Any]) -> int:
    """One a channel of 16 blocks for three outputs, and for eight projections where they have their own."""
    channels = 5 * 320 + 5 * 640 + 6 * 1280
    return channels * (3 + 8 * chosen["attention_gammas"])


def test_every_strategy_is_described(sd15: dict[str, Any]) -> None:
    described = [entry["strategy"] for entry in sd15["strategies"]]
    assert list(dict.fromkeys(described)) == [*STRATEGIES, *COMBINATIONS]
    assert all(entry["summary"].endswith(".") for entry in sd15["strategies"])


@pytest.mark.parametrize("name", [*STRATEGIES, *COMBINATIONS])
def test_the_adapter_on_disk_has_the_size_that_is_told(name: str, mini: DiffusionModels, tmp_path: Path) -> None:
    hyperparameters = {}
    if name == "text_encoder_swap":
        write_bert_layout(tmp_path / "encoder")
        hyperparameters = {"encoder": str(tmp_path / "encoder")}
    models, strategy = mini.fresh(), make_strategy(name, hyperparameters)
    told = footprint(mini.sharing(), strategy)
    strategy.attach(models)
    strategy.export(models, tmp_path)
    assert (tmp_path / "adapter.safetensors").stat().st_size == told.adapter_bytes


@pytest.mark.parametrize("name", ["unet+text_encoder", "difffit", "dora"])
def test_training_takes_the_memory_that_is_told_for_weights_gradients_and_moments(
    name: str, mini: DiffusionModels
) -> None:
    models, strategy = mini.fresh(), make_strategy(name, {})
    told = footprint(mini.sharing(), strategy)
    strategy.attach(models)
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-3))
    latents, ids = torch.zeros(1, 4, 8, 8), torch.zeros(1, 77, dtype=torch.long)
    models.unet(latents, 1, encoder_hidden_states=models.text_encoder(ids)[0]).sample.square().mean().backward()
    optimizer.step()
    parts = {"unet", *strategy.trains}
    parameters = [parameter for name in parts for parameter in models.component(name).parameters()]
    assert told.weight_bytes == sum(parameter.nbytes for parameter in parameters)
    assert told.gradient_bytes == sum(parameter.grad.nbytes for parameter in parameters if parameter.grad is not None)
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert told.moment_bytes == sum(moment.nbytes for moment in moments)


@pytest.mark.parametrize("name", ["adalora", "dylora", "lora", "lora+text_encoder"])
def test_what_a_strategy_keeps_of_its_own_is_told(name: str, mini: DiffusionModels) -> None:
    """Tensors within layers and what belongs to them, beside parameters and buffers, just before a step's end and after it."""
    models, strategy = mini.fresh(), make_strategy(name, {})
    told = footprint(mini.sharing(), strategy)
    strategy.attach(models)
    before, step = bytes_within(models), TrainingStep(number=0, num_steps=100, seed=0)
    strategy.on_step_start(models, step)
    models.unet(torch.zeros(1, 4, 8, 8), 1, encoder_hidden_states=torch.zeros(1, 77, 64)).sample.sum().backward()
    within = bytes_within(models)
    strategy.on_step_end(models, step)
    assert told.kept_bytes == max(within, bytes_within(models)) - before


def bytes_within(models: DiffusionModels) -> int:
    """Of all distinct tensors that the modules hold by their attributes, parameters and buffers aside."""
    sizes: dict[int, int] = {}

    def visit(value: object) -> None:
        if isinstance(value, Tensor):
            sizes[value.data_ptr()] = value.nbytes
        elif isinstance(value, dict):
            visit(list(value.values()))
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif hasattr(value, "deviation"):
            visit(vars(value))

    for component in models.components().values():
        for module in component.modules():
            visit([value for key, value in vars(module).items() if key not in ("_parameters", "_buffers", "_modules")])
    return sum(sizes.values())


def test_a_folder_without_weights_is_described_as_the_base_that_it_configures(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By strategies that change each of its parts."""
    few = [choice for choice in choices(8) if choice[0] in ("difffit", "vae", "text_encoder", "textual_inversion")]
    monkeypatch.setattr("trainables.strategies.overview.choices", lambda rank: few)
    described = [invoke("--base", base).stdout.partition("┏") for base in ("mini", str(copied))]
    titles = [" ".join(title.split()).partition(": ")[2] for title, _, _ in described]
    assert titles[0] == titles[1] and titles[0].startswith("unet ")
    assert described[0][2] == described[1][2] and described[0][2].count("\n") > len(few)


def test_the_table_says_what_trains_and_what_is_not_counted(printed: tuple[str, str]) -> None:
    text = " ".join(printed[1].split())
    for expected in (*STRATEGIES, *COMBINATIONS, "targets all_linear", "layers cross", "KiB", "Not in it: activations"):
        assert expected in text


def test_a_base_that_a_strategy_cannot_take_is_described_by_the_others(copied: Path) -> None:
    file = copied / "unet" / "config.json"
    before = file.read_text()
    blocks = {"down_block_types": ["DownBlock2D"] * 3, "up_block_types": ["UpBlock2D"] * 3, "mid_block_type": None}
    file.write_text(json.dumps(json.loads(before) | blocks))
    entries = overview(base_on_meta(str(copied)), 8)
    file.write_text(before)
    described = [entry.as_dict() for entry in entries]
    problems = {entry["strategy"]: entry["problem"] for entry in described if "problem" in entry}
    low_rank = {"lora", "dora", "adalora", "dylora", "nested_lora", "selora", "lora+text_encoder"}
    assert problems.keys() == {"attention", "difffit", *low_rank}
    assert "`attention` must match at least one parameter" in problems["attention"]
    console = Console(file=io.StringIO(), width=160)
    console.print(describe.as_table(entries, "a base"))
    assert "`attention` must match" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "sd51",
            "`--base` must be a known name, but got 'sd51'. Did you mean 'sd15'? Valid: mini, sd15. Or give a folder",
        ),
        (
            "nowhere/at/all",
            "`--base` must be a known name, but got 'nowhere/at/all'. Choose one of: mini, sd15. Or give",
        ),
    ],
)
def test_an_unknown_base_is_answered(base: str, message: str) -> None:
    result = invoke("--base", base)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())


def test_a_folder_that_is_no_base_is_answered(copied: Path, tmp_path: Path) -> None:
    result = invoke("--base", str(tmp_path))
    assert result.exit_code == 1
    assert "`base` must be a folder with unet/, vae/ and text_encoder/" in result.stderr
    file = copied / "vae" / "config.json"
    before = file.read_text()
    file.write_text("{")
    result = invoke("--base", str(copied))
    file.write_text(before)
    assert result.exit_code == 1
    assert "`base` must hold the configurations of Stable Diffusion 1.5's classes" in result.stderr


def test_a_rank_below_one_is_refused() -> None:
    assert invoke("--rank", "0").exit_code == 2
