"""`sweep.generate`: images with their provenance, from an adapter and from an exported pipeline alike."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
import typer
from adapted import adapted
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from sweep import generate as command
from sweep.scoring.streaming import as_grey
from trainables.base_models.models import load_base, resolve_base
from trainables.exports import EXPORTS
from trainables.sampling import generate
from trainables.strategies import load_adapter

pytestmark = pytest.mark.slow

SETTINGS = ("--prompt", "film", "--num-images", "3", "--seed", "5", "--steps", "2", "--guidance", "3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One adapter, as its own folder and merged into a pipeline."""
    root = tmp_path_factory.mktemp("adapted")
    models, strategy = adapted("dora", rank=2)
    strategy.export(models, root / "adapter")
    EXPORTS["pipeline"].write(models, strategy, root / "pipeline")
    return {"adapter": root / "adapter", "pipeline": root / "pipeline"}


def run(adapter: Path, to: Path, *options: str) -> Result:
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, ["--adapter", str(adapter), "--to", str(to), *options])


def invoke(adapter: Path, to: Path, *options: str) -> Result:
    return run(adapter, to, *SETTINGS, *options)


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name)) for name in ("0000.png", "0001.png", "0002.png")])


def test_an_adapter_gives_the_engines_images(folders: dict[str, Path], tmp_path: Path) -> None:
    result = invoke(folders["adapter"], tmp_path / "out")
    assert result.exit_code == 0, result.output
    models = load_base("mini")
    load_adapter(models, folders["adapter"])
    ours = generate(models, ["film"] * 3, [5, 6, 7], num_steps=2, guidance_scale=3.0, batch_size=3)
    assert np.array_equal(pixels(tmp_path / "out"), as_grey(torch.from_numpy(ours)).numpy())
    assert (tmp_path / "out" / "sheet.png").is_file()
    result = invoke(folders["adapter"], tmp_path / "colour", "--colour", "--batch-size", "2")
    assert result.exit_code == 0, result.output
    assert np.abs(pixels(tmp_path / "colour").astype(int) - ours).max() <= 1


def test_the_pipeline_gives_the_same_images_up_to_rounding(folders: dict[str, Path], tmp_path: Path) -> None:
    for kind, folder in folders.items():
        assert invoke(folder, tmp_path / kind).exit_code == 0
    adapter, pipeline = (pixels(tmp_path / kind).astype(int) for kind in ("adapter", "pipeline"))
    assert np.abs(adapter - pipeline).max() <= 1


def test_it_samples_in_the_precision_that_is_asked_for(folders: dict[str, Path], tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        assert invoke(folders["adapter"], tmp_path / precision, "--precision", precision).exit_code == 0
    ours, full = (pixels(tmp_path / precision).astype(int) for precision in ("bf16", "fp32"))
    assert 0 < np.abs(ours - full).mean() < 3
    assert json.loads((tmp_path / "bf16" / "generation.json").read_text())["numerics"] == "bf16"
    refused = invoke(folders["adapter"], tmp_path / "refused", "--precision", "bf61")
    assert refused.exit_code != 0 and "bf16" in refused.output


def test_the_record_says_how_the_images_came_about(folders: dict[str, Path], tmp_path: Path) -> None:
    invoke(folders["adapter"], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "generation.json").read_text())
    assert (record["prompts"], record["seeds"], record["num_steps"], record["guidance_scale"]) == (
        ["film"] * 3,
        [5, 6, 7],
        2,
        3.0,
    )
    assert record["adapter"]["strategy"] == "dora" and record["numerics"] == "fp32"
    assert record["files"] == ["0000.png", "0001.png", "0002.png"]
    with Image.open(tmp_path / "out" / "0001.png") as picture:
        assert picture.mode == "L"
        assert picture.info["parameters"].startswith("film\nSteps: 2, Sampler: DPM++ 2M, CFG scale: 3.0, Seed: 6,")
        known = json.loads(picture.info["radiograph_sweep"])
    assert (known["prompt"], known["seed"], known["adapter"]["strategy"]) == ("film", 6, "dora")


def test_a_file_of_prompts_gives_a_grid_and_dicom_with_marks(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt,seed,count\nedema,5,1\nfilm,,2\n")
    options = ("--seed", "6", "--steps", "1", "--guidance", "1", "--dicom", "--mark", "--num-images", "1")
    umask = os.umask(0o022)
    try:
        result = run(folders["adapter"], tmp_path / "out", "--prompts", str(tmp_path / "prompts.csv"), *options)
    finally:
        os.umask(umask)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "generation.json").read_text())
    assert list(zip(record["prompts"], record["seeds"], strict=True)) == [("edema", 5), ("film", 6), ("film", 7)]
    for number in range(3):
        dicom = pydicom.dcmread(tmp_path / "out" / f"000{number}.dcm")
        assert np.array_equal(dicom.pixel_array, pixels(tmp_path / "out")[number])
        assert (dicom.BurnedInAnnotation, dicom.SyntheticData, dicom.InstanceNumber) == ("YES", "YES", number + 1)
    assert Image.open(tmp_path / "out" / "sheet.png").height > 2 * 64
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert (modes, (tmp_path / "out").stat().st_mode & 0o777) == ({0o644}, 0o755)


def test_films_name_no_folder_of_this_machine(folders: dict[str, Path], tmp_path: Path) -> None:
    base, adapter = tmp_path / "own-base", tmp_path / "adapter"
    shutil.copytree(resolve_base("mini"), base)
    shutil.copytree(folders["adapter"], adapter)
    card = json.loads((adapter / "adapter.json").read_text())
    card["base"]["name"] = str(base)
    (adapter / "adapter.json").write_text(json.dumps(card))
    result = run(adapter, tmp_path / "out", "--prompt", "film", "--num-images", "1", "--steps", "1", "--dicom")
    assert result.exit_code == 0, result.output
    files = list((tmp_path / "out").iterdir())
    assert {file.suffix for file in files} == {".png", ".dcm", ".json"}
    assert [file.name for file in files if str(tmp_path).encode() in file.read_bytes()] == []


def test_a_folder_that_is_no_adapter_is_answered_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke(tmp_path / "empty", tmp_path / "out")
    assert result.exit_code == 1
    assert "`--adapter` must be a folder with an adapter.json or a model_index.json" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


def test_existing_images_are_not_overwritten(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "0000.png").write_text("precious")
    result = invoke(folders["adapter"], tmp_path)
    assert result.exit_code == 1
    assert (tmp_path / "0000.png").read_text() == "precious"


def test_a_damaged_adapter_is_answered(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.json").write_bytes((folders["adapter"] / "adapter.json").read_bytes())
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"no tensors")
    result = invoke(tmp_path / "adapter", tmp_path / "out")
    assert result.exit_code == 1
    assert "`adapter.safetensors` must be a safetensors file" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seed", "18446744073709551616"), "`--seed` and those of the next images must be below 2**64, but got 18446744073709551616"),
        (("--seed", "18446744073709551614"), "but got 18446744073709551614 for 3 images"),
        (("--seed", "1" + "0" * 40), "must be below 2**64, but got 1000000"),
        (("--guidance", "nan"), "`--guidance` must be a number of at most 1000, but got nan"),
        (("--guidance", "inf"), "`--guidance` must be a number of at most 1000, but got inf"),
        (("--guidance", "-1e999"), "`--guidance` must be a number of at most 1000, but got -inf"),
        (("--guidance", "1e308"), "but got 1e+308. Try 4."),
        (("--guidance", "-1001"), "but got -1001. Try 4."),
        (("--num-images", "10001"), "`--num-images` must be at most 10,000, but got 10,001. Generate the next with another --seed"),
        (("--num-images", "1" + "0" * 20), "`--num-images` must be at most 10,000, but got 100,000,"),
        (("--steps", "1001"), "`num_steps` must be at most the 1000 steps of the base's noise schedule, but got 1001"),
        (("--steps", "100000"), "but got 100000"),
        (("--dicom", "--colour"), "`--dicom` must be of grey films, but got --colour"),
        (("--prompts", "films.txt"), "one of them, but got both"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_named(
    folders: dict[str, Path], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    result = invoke(folders["adapter"], tmp_path / "out", *options)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_last_seeds_are_taken(folders: dict[str, Path], tmp_path: Path) -> None:
    assert invoke(folders["adapter"], tmp_path / "out", "--seed", str(2**64 - 3)).exit_code == 0
