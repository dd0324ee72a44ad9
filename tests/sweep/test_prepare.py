"""`python -m sweep.prepare` from the outside."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer
from film_folders import save_film
from PIL import Image
from typer.testing import CliRunner, Result

from sweep.loading import load_config
from sweep.prepare import main
from trainables.datasets.store import PreparedDataset

REAL = Path(__file__).resolve().parents[2] / "../shared/data/nih_cxr14_1000_64"
app = typer.Typer()
app.command()(main)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_phantom_is_prepared(tmp_path: Path) -> None:
    to = tmp_path / "my films [b] #2"
    result = run("phantom", "--num-patients", "30", "--seed", "2", "--to", to)
    assert result.exit_code == 0, result.output
    assert "Pneumothorax" in result.output and "validation" in result.output
    command = shlex.split(result.output.rpartition("\nSweep ")[2])
    assert load_config("demo", None, command[command.index("--set") + 1 :: 2]).data.path == to
    prepared = PreparedDataset.open(to)
    assert sum(counts["patients"] for counts in prepared.summary().values()) == 30
    with Image.open(to / "sheet.png") as sheet:
        assert sheet.height == 6 * 144


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real films are not beside the repository")
def test_the_real_films_are_prepared(tmp_path: Path) -> None:
    options = ("--condition", "Cardiomegaly", "--condition", "No Finding", "--view-in-prompt")
    result = run("nih_cxr14", "--root", REAL, "--to", tmp_path / "prepared", *options)
    assert result.exit_code == 0, result.output
    prepared = PreparedDataset.open(tmp_path / "prepared")
    assert prepared.conditions == ("Cardiomegaly", "No Finding")
    assert sum(prepared.num_samples.values()) == 1000
    assert prepared.split("train").prompts[0].endswith(" view")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nih_cxr"], "`SOURCE` must be a known name, but got 'nih_cxr'. Did you mean 'nih_cxr14'"),
        (["nih_cxr14"], "`root` must be the folder of NIH ChestX-ray14, but got none"),
        (
            ["nih_cxr14", "--root", "no/such/folder"],
            f"`root` must be a folder of NIH ChestX-ray14, but got {Path('no/such/folder').absolute()}",
        ),
        (
            ["nih_cxr14", "--root", "x", "--num-patients", "9"],
            "`num_patients` must be left out for nih_cxr14, but got 9",
        ),
        (["phantom", "--num-patients", "3"], "`num_patients` must be at least 10, but got 3"),
        (["phantom", "--root", "x"], "`root` must be left out for the phantom"),
        (["phantom", "--bits", "12"], "`bits` must be left out for the phantom"),
        (["phantom", "--window", "lung"], "`window` must be left out for the phantom"),
        (["dicom", "--root", ".", "--window", "heart"], "`--window` must be one of lung, soft_tissue, bone, brain"),
        (["phantom", "--label-map", "x.csv"], "`label_map` must be left out for the phantom"),
        (["nih_cxr14", "--root", "x", "--range", "9", "9"], "`--range` must be two numbers, the level of black before"),
        (["nih_cxr14", "--bits", "12", "--range", "0", "9"], "`--bits` and `--range` must be given one at a time"),
        (
            ["phantom", "--resolution", "100008"],
            "`resolution_px` must be a multiple of 8 from 64 to 8,192, but got 100008",
        ),
        (["phantom", "--resolution", "50"], "`resolution_px` must be a multiple of 8 from 64 to 8,192, but got 50"),
    ],
)
def test_bad_input_is_answered_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments, "--to", tmp_path / "prepared")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_before_films_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = run("phantom", "--to", tmp_path / "notes.txt" / "prepared")
    assert result.exit_code == 1 and "`to` must lie in a folder that can be written" in result.stderr
    assert "preparing" not in result.output


def test_a_filled_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = run("phantom", "--to", tmp_path)
    assert result.exit_code == 1
    assert "`to` must be a new or empty folder" in result.stderr


def test_an_unreadable_image_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / "images").mkdir(parents=True)
    rows = [f"images/{n}.png,{n},50,F,PA,{'Effusion' if n % 2 else 'No Finding'}" for n in range(80)]
    (root / "metadata.csv").write_text("file,patient_id,age,sex,view,labels\n" + "\n".join(rows))
    for n in range(80):
        save_film(root / "images" / f"{n}.png", n)
    (root / "images" / "17.png").write_bytes(b"broken")
    result = run("nih_cxr14", "--root", root, "--to", tmp_path / "prepared")
    assert result.exit_code == 1
    assert "`image` must be readable" in result.stderr and "17.png" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_help_shows_an_example() -> None:
    assert "python -m sweep.prepare nih_cxr14" in " ".join(run("--help").output.split())
