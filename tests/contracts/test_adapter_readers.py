"""Exports of every strategy in every format, read by the programs that they are for: one result.

`READERS_TABLE=FILE python -m pytest tests/contracts/test_adapter_readers.py` writes README's table of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_python
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from small_films import SIDE_PX
from strategy_examples import EXAMPLES, TOKENS

from trainables.base_models.models import DiffusionModels, load_base, resolve_base
from trainables.exports import EXPORTS
from trainables.sampling import generate_batches
from trainables.strategies import STRATEGIES, Strategy, make_strategy
from trainables.strategies.adalora import AdaLoRALayer
from trainables.strategies.base import trained_parameters
from trainables.strategies.low_rank import low_rank_layers

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
FILE = "pytorch_lora_weights.safetensors"
SAMPLING: dict[str, Any] = {"seeds": [7], "num_steps": 1, "guidance": 1.0, "resolution_px": SIDE_PX}
PROMPT = "film of a subject with edema"
BOTH = {"components": "unet+text_encoder"}
EVERYWHERE = {"targets": "linear+conv", **BOTH}
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, EXAMPLES[name].hyperparameters if name in EXAMPLES else {}) for name in STRATEGIES},
    "lora": ("lora", {"rank": 4, "alpha": 16.0, **BOTH}),
    "lora, `rslora`": ("lora", {"rank": 8, "alpha": 6.0, "rslora": True}),
    "adalora, ranks by layer, convolutions": ("adalora", {"rank": 2, "alpha": 4.0, **EVERYWHERE}),
    "dora, convolutions": ("dora", {"rank": 4, "alpha": 10.0, **EVERYWHERE}),
    "lora+text_encoder": ("lora+text_encoder", {}),
    "lora+textual_inversion": (
        "lora+textual_inversion", {f"textual_inversion.{key}": value for key, value in TOKENS.items()}
    ),
}  # fmt: skip
"""Every strategy, combinations, and what else leads readers through code of its own."""
WHOLE_TABLE = "READERS_TABLE" in os.environ
WRITES = "`READERS_TABLE=FILE python -m pytest tests/contracts/test_adapter_readers.py` writes it to FILE."
QUICK = (
    "unet",
    "vae",
    "lora",
    "adalora, ranks by layer, convolutions",
    "dora, convolutions",
    "difffit",
    "text_encoder_swap",
    "lora+textual_inversion",
)
"""Those that lead through code of their own; the others take a minute more, and are for the table."""
TESTED = [name for name in ADAPTERS if WHOLE_TABLE or name in QUICK]
COLUMNS = {
    "diffusers": ("by_folder",),
    "peft": ("by_peft_model",),
    "webui": ("by_kohya_names", "by_lycoris"),
    "single_file": ("from_single_file",),
    "pipeline": ("from_pretrained",),
}
"""Readers of each format."""
WAYS = (
    "by_file",
    "by_state_dict",
    "by_component",
    "by_adapter_weights",
    "in_two_halves",
    "fused",
    "saved_anew",
    "by_kohya_converter",
    "by_peft_functions",
)
"""Further ways in which diffusers and PEFT document that the file is loaded."""
FURTHER = [
    *(("lora", way) for way in WAYS),
    *(("adalora, ranks by layer, convolutions", way) for way in ("by_state_dict", "by_kohya_converter")),
    *(("dora, convolutions", way) for way in ("by_state_dict", "by_peft_functions")),
]
OTHERS = {"not been correctly renamed": "diffusers refuses differences"}


@dataclass(frozen=True)
class Exports:
    """What an adapter's exports are, and what is to come out of them.

    Attributes:
        folder: with one folder a format that can hold it.
        refused: why others cannot, by format.
        pixels: the engine's own.
        spelled: the prompt as users of other programs write it.
    """

    folder: Path
    refused: dict[str, str]
    pixels: NDArray[np.float32]
    spelled: str


def sample(models: DiffusionModels) -> NDArray[np.float32]:
    options = {"num_steps": SAMPLING["num_steps"], "guidance_scale": SAMPLING["guidance"], "batch_size": 1}
    return np.asarray(next(generate_batches(models, [PROMPT], SAMPLING["seeds"], **options)))


@torch.no_grad()
def move(models: DiffusionModels, strategy: Strategy) -> None:
    """Move what is trained away from where it starts; each layer of AdaLoRA keeps another number of triplets, some none.

    Its update is a product of three factors: with the middle one, which starts at zero, as small as the others, none would show.
    """
    for path, parameter in trained_parameters(models):
        size = 1.0 if "lora" in path else float(parameter.abs().mean().clamp(0.2, 1.0))
        size *= 20.0 if path.endswith("lora_E") else 1.0
        parameter.add_(0.05 * size * torch.randn_like(parameter))
    layers = [layer for name in strategy.trains for _, layer in low_rank_layers(models.component(name))]
    for number, layer in enumerate(layers):
        if isinstance(layer, AdaLoRALayer):
            layer.keep(list(range(number % (layer.rank + 1))))


def exported(base: DiffusionModels, adapter: str, folder: Path) -> Exports:
    """An adapter in all formats that can hold it."""
    name, hyperparameters = ADAPTERS[adapter]
    models, strategy = base.fresh(), make_strategy(name, hyperparameters)
    torch.manual_seed(0)
    strategy.attach(models)
    move(models, strategy)
    refused: dict[str, str] = {}
    for kind, format_ in EXPORTS.items():
        if kind == "pipeline" and adapter != "lora" and not WHOLE_TABLE:
            continue  # the suite of strategies writes it of each, and has it read
        try:
            format_.write(models, strategy, folder / kind)
        except ValueError as error:
            refused[kind] = str(error)
    return Exports(folder, refused, sample(models), models.spelled(PROMPT))


@pytest.fixture(scope="module")
def mini() -> DiffusionModels:
    return load_base("mini").for_films_of(SIDE_PX)


@pytest.fixture(scope="module")
def exports(mini: DiffusionModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exports]:
    folder = tmp_path_factory.mktemp("exports")
    return {adapter: exported(mini, adapter, folder / str(number)) for number, adapter in enumerate(TESTED)}


def cases(exports: dict[str, Exports]) -> Iterator[tuple[str, str, str]]:
    """Adapter, format and reader."""
    for adapter, made in exports.items():
        for kind, readers in COLUMNS.items():
            is_read_elsewhere = kind == "pipeline" and not WHOLE_TABLE  # by the suite of strategies
            if kind not in made.refused and not is_read_elsewhere:
                yield from ((adapter, kind, reader) for reader in readers)
    yield from ((adapter, "diffusers", way) for adapter, way in FURTHER)


Came = dict[tuple[str, str, str], NDArray[np.float32] | str]


@pytest.fixture(scope="module")
def came(exports: dict[str, Exports], tmp_path_factory: pytest.TempPathFactory) -> Came:
    """What every reader gives: pixels, or the error by which it refuses; one new process for all."""
    folder = tmp_path_factory.mktemp("came")
    wanted = list(cases(exports))
    jobs = [
        {
            "reader": reader
            if kind != "diffusers" or (exports[adapter].folder / kind / FILE).exists()
            else "tokens_alone",
            "folder": str(exports[adapter].folder / kind),
            "prompts": [exports[adapter].spelled],
            "to": str(folder / str(number)),
        }
        for number, (adapter, kind, reader) in enumerate(wanted)
    ]
    task = folder / "task.json"
    task.write_text(json.dumps({"base": str(resolve_base("mini")), "jobs": jobs, **SAMPLING}))
    program = [str(HERE / "foreign_readers.py"), str(task)]
    command = [*warm_python.command(warm_python.PLAIN), "-P", *program]  # -P: not even our folder
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: Came = {}
    for number, case in enumerate(wanted):
        error = folder / f"{number}.txt"
        results[case] = error.read_text() if error.exists() else np.load(folder / f"{number}.npy")
    if WHOLE_TABLE:
        versions = json.loads(task.with_suffix(".versions").read_text())
        Path(os.environ["READERS_TABLE"]).write_text("\n".join(readme_table(exports, results, versions)) + "\n")
    return results


def difference(exports: dict[str, Exports], came: Came, case: tuple[str, str, str]) -> float:
    result = came[case]
    assert not isinstance(result, str), f"{case}: {result}"
    return float(np.abs(result - exports[case[0]].pixels).max())


@pytest.mark.parametrize("adapter", TESTED)
def test_every_reader_gives_the_adapted_models_pixels(
    adapter: str, exports: dict[str, Exports], came: Came, mini: DiffusionModels
) -> None:
    moved = float(np.abs(exports[adapter].pixels - sample(mini)).max())
    assert moved > 0.02, (
        f"`move` must change a pixel by more than 0.02, so that a reader that leaves out a part is seen, but for {adapter!r} "
        f"it changed {moved:.2g}. Move further what {adapter!r} trains."
    )
    for case in (case for case in came if case[0] == adapter):
        if not (case[2] == "by_kohya_names" and endings(exports[adapter]) & {*DIFFERENCES, "dora_scale"}):
            assert difference(exports, came, case) < 1e-4, case


DIFFERENCES = {"diff", "diff_b", "w_norm", "b_norm"}


def endings(made: Exports) -> set[str]:
    """What kinds of tensors an adapter's file for web UIs holds."""
    file = made.folder / "webui" / "adapter.safetensors"
    return {name.partition(".")[2] for name in load_file(file)} if file.exists() else set()


def test_what_diffusers_does_not_read_of_web_uis_files_is_known(exports: dict[str, Exports], came: Came) -> None:
    """So that README does not promise it: differences are refused; magnitudes are left out, with a warning.

    Differences are of what diffusers' own format refuses; magnitudes of web UIs' files are in diffusers' too.
    """
    adapters = {adapter for adapter, made in exports.items() if endings(made) & DIFFERENCES}
    assert adapters == {
        name for name, made in exports.items() if "diffusers" in made.refused and "webui" not in made.refused
    }
    assert "unet" in adapters
    assert all("not been correctly renamed" in str(came[adapter, "webui", "by_kohya_names"]) for adapter in adapters)
    scaled = {adapter for adapter, made in exports.items() if "dora_scale" in endings(made)}
    assert scaled == {adapter for adapter, made in exports.items() if has_magnitudes(made)}
    assert "dora, convolutions" in scaled
    assert all(difference(exports, came, (adapter, "webui", "by_kohya_names")) > 1e-3 for adapter in scaled)


def has_magnitudes(made: Exports) -> bool:
    """Whether an adapter's file for diffusers holds DoRA's."""
    file = made.folder / "diffusers" / FILE
    return file.exists() and any("lora_magnitude_vector" in name for name in load_file(file))


def test_what_a_format_cannot_hold_is_refused_with_those_that_can(exports: dict[str, Exports]) -> None:
    for adapter, made in exports.items():
        assert "pipeline" not in made.refused
        for kind, error in made.refused.items():
            offered = re.findall(r"[a-z_]+", error.partition("--format ")[2].replace(" or ", " "))
            assert offered, error
            assert not set(offered) & made.refused.keys(), f"{adapter} as {kind}: {error}"
            assert not (made.folder / kind).exists()


def test_all_layers_of_a_component_have_one_rank_which_is_alpha(exports: dict[str, Exports]) -> None:
    """And the layers that an adaptive strategy emptied are not there."""
    file = exports["adalora, ranks by layer, convolutions"].folder / "diffusers" / FILE
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["lora_adapter_metadata"])
    tensors = load_file(file)
    for name in ("unet", "text_encoder"):
        ranks = {len(value) for key, value in tensors.items() if key.startswith(name) and key.endswith("lora_A.weight")}
        assert ranks == {said[f"{name}.r"]} == {said[f"{name}.lora_alpha"]} == {3}
    assert all(tensor.any() for key, tensor in tensors.items() if "lora_A" in key)


def test_every_file_of_an_adapter_says_what_it_is(exports: dict[str, Exports]) -> None:
    for kind, pattern in {
        "diffusers": "*.safetensors",
        "peft": "*/adapter_model.safetensors",
        "webui": "*.safetensors",
        "single_file": "*.safetensors",
        "pipeline": "unet/*.safetensors",
    }.items():
        files = list((exports["lora"].folder / kind).glob(pattern))
        assert files
        for file in files:
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata()
            known = json.loads(metadata["radiograph_sweep"])
            assert (known["strategy"], known["base"], known["hyperparameters"]["rank"]) == ("lora", "mini", 4)
            assert metadata["modelspec.title"] == "lora on mini"


def test_readme_says_what_was_found(exports: dict[str, Exports], came: Came) -> None:
    """Its figures may differ in the last digit; what is refused and what is read may not."""
    text = (HERE.parents[1] / "README.md").read_text().partition("<!-- readers: begin -->")[2]
    rows = [row.split(" | ") for row in text.partition("<!-- readers: end -->")[0].splitlines() if row.startswith("| ")]
    said = {row[0].strip("| ").replace("`", ""): [cell.strip(" |") for cell in row[1:]] for row in rows[1:]}
    wanted = {name.replace("`", "") for name in ADAPTERS}
    assert said.keys() == wanted, (
        f"README's table of readers lacks the rows {sorted(wanted - said.keys())}, and has too many: "
        f"{sorted(said.keys() - wanted)}. {WRITES}"
    )
    readers = [(kind, reader) for kind, of_kind in COLUMNS.items() for reader in of_kind]
    for adapter, made in exports.items():
        for (kind, reader), words in zip(readers, said[adapter.replace("`", "")], strict=True):
            remedy = f"README's table of readers says {words!r} of {adapter!r} as {kind} by {reader}. {WRITES}"
            if kind in made.refused:
                assert words == "use " + made.refused[kind].partition("--format ")[2].rstrip("."), remedy
            elif (adapter, kind, reader) in came:
                measured = cell(made, kind, lambda case=(adapter, kind, reader): came[case])
                assert words.partition(":")[2] == measured.partition(":")[2], remedy
                assert ("use" in words) == ("use" in measured), remedy
                assert words in OTHERS.values() or ":" in words or float(words) < 1e-4, remedy


def readme_table(exports: dict[str, Exports], came: Came, versions: dict[str, str]) -> list[str]:
    """Strategy by format and reader: the largest difference of a pixel, or the format that can hold it."""
    heads = [
        f"`diffusers`: diffusers {versions['diffusers']}",
        f"`peft`: PEFT {versions['peft']}",
        f"`webui`: diffusers {versions['diffusers']}",
        f"`webui`: LyCORIS {versions['lycoris-lora']}",
        f"`single_file`: diffusers {versions['diffusers']}",
        f"`pipeline`: diffusers {versions['diffusers']}",
    ]
    rows = [f"| strategy | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    for adapter, made in exports.items():
        cells = [
            cell(made, kind, lambda case=(adapter, kind, reader): came[case])
            for kind, readers in COLUMNS.items()
            for reader in readers
        ]
        rows.append(f"| {adapter if '`' in adapter else f'`{adapter}`'} | {' | '.join(cells)} |")
    return rows


def cell(made: Exports, kind: str, result: Callable[[], NDArray[np.float32] | str]) -> str:
    if kind in made.refused:
        return "use " + made.refused[kind].partition("--format ")[2].rstrip(".")
    outcome = result()
    if isinstance(outcome, str):
        return next(words for part, words in OTHERS.items() if part in outcome)
    largest = float(np.abs(outcome - made.pixels).max())
    return (
        f"{largest:.0e}".replace("0e+00", "0")
        if largest < 1e-4
        else f"{largest:.0e}: diffusers leaves `dora_scale` out"
    )
