"""Prompts from files: every prompt with its seeds, and clear answers to wrong lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.generation.prompts import Wanted, wanted_films


def films(text: str, folder: Path, name: str = "prompts.txt") -> list[tuple[str, int]]:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return [(request.prompt, request.seed) for request in wanted_films(None, file, seed=5, num_images=2)]


def test_a_prompt_has_seeds_in_a_row() -> None:
    assert wanted_films("film", None, seed=7, num_images=2) == [
        Wanted(prompt="film", seed=7),
        Wanted(prompt="film", seed=8),
    ]


def test_each_line_is_a_prompt_with_the_same_seeds(tmp_path: Path) -> None:
    assert films("edema\r\nno finding, supine\n", tmp_path) == [
        ("edema", 5),
        ("edema", 6),
        ("no finding, supine", 5),
        ("no finding, supine", 6),
    ]


def test_a_table_may_say_seeds_and_counts(tmp_path: Path) -> None:
    table = '\ufeffprompt,seed,count\n"edema, supine",40,1\nnormal,,3\n'
    assert films(table, tmp_path, "p.CSV") == [("edema, supine", 40), ("normal", 5), ("normal", 6), ("normal", 7)]
    assert films("count,prompt\n1,edema\n", tmp_path, "p.csv") == [("edema", 5)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", "edema\n\nnormal\n", "must have a prompt on each line, but got none in row 2. Remove the line"),
        ("p.txt", "", "must have a prompt, but got an empty file"),
        ("p.csv", "prompt,seed\nedema,1\n,2\n", "but got none in row 2"),
        ("p.csv", "text,seed\nedema,1\n", "`column of --prompts` must be a known name, but got 'text'"),
        ("p.csv", "seed,count\n1,1\n", "must have a column prompt under a head"),
        ("p.csv", "prompt,seed\nedema,x\n", "`seed` must be a whole number of at least 0, but got 'x' in row 1"),
        ("p.csv", "prompt,seed\nedema,-1\n", "but got '-1' in row 1"),
        ("p.csv", "prompt,count\nedema,0\n", "`count` must be a whole number of at least 1, but got '0' in row 1"),
        ("p.csv", "prompt,seed\nedema,18446744073709551615\n", "must be below 2\\*\\*64"),
    ],
)
def test_a_wrong_file_is_answered(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        films(text, tmp_path, name)


def test_a_missing_file_and_other_bytes_are_answered(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`--prompts` must be a file"):
        wanted_films(None, tmp_path / "none.txt", seed=0, num_images=1)
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="must be text in UTF-8"):
        wanted_films(None, tmp_path / "p.txt", seed=0, num_images=1)


@pytest.mark.parametrize(("prompt", "file", "came"), [(None, None, "neither"), ("film", Path("p.txt"), "both")])
def test_one_of_prompt_and_file_is_given(prompt: str | None, file: Path | None, came: str) -> None:
    with pytest.raises(ValueError, match=f"one of them, but got {came}"):
        wanted_films(prompt, file, seed=0, num_images=1)
