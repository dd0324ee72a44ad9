"""The final evaluation on the page and in the terminal: every string escaped, means over seeds, failures told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.final_scores import FinalScores, read_finalists, read_scores, series_of
from analysis.report.final import final_section
from analysis.report.paper import paper_tables
from analysis.report.printed import print_tables

EVIL = "<script>alert('x')</script>"
CONDITIONS = ["Edema", EVIL]


def record(trial_id: str, **more: Any) -> dict[str, Any]:
    values = {"fid_mini": 12.0, "fid_mini_low": 10.0, "fid_mini_high": 14.0, "fid_mini/Edema": 20.0, "vendi_mini": 3.0}
    figures = {"alignment_recall/Edema": 0.25, f"alignment_recall/{EVIL}": 0.5, "classifier_auc/Edema": 0.9}
    utility = {"utility_accuracy/synthetic/Edema": 0.625, "utility_num_images/synthetic": 90.0}
    studies = {
        "fidelity": {"status": "completed", "values": values, "details": {"figures": []}},
        "alignment": {"status": "completed", "values": figures, "details": {}},
        "utility": {"status": "completed", "values": utility},
        "membership": {"status": "failed", "error": f"ValueError: {EVIL}", "attempts": 2},
    }
    return {
        "format": 3,
        "series": 1,
        "trial_id": trial_id,
        "strategy": EVIL,
        "seed": 0,
        "conditions": CONDITIONS,
        "studies": studies,
        "extractor": {"name": "mini", "weights_hash": "abc"},
        "settings": {"images_per_condition": 4},
        **more,
    }


def write(run: Path, *records: dict[str, Any]) -> Path:
    """Write the scores of finalists."""
    for record in records:
        folder = run / "evaluation" / record["trial_id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps(record))
    return run


def test_every_string_is_escaped(tmp_path: Path) -> None:
    page = final_section(write(tmp_path, record("a1")), lambda path, caption: caption)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "Studies that failed" in page


def test_a_run_without_a_final_evaluation_has_no_section(tmp_path: Path) -> None:
    assert final_section(tmp_path, lambda path, caption: caption) == ""
    with pytest.raises(FileNotFoundError, match="`--tables` must be of a run whose finalists were evaluated"):
        print_tables(tmp_path, Console())


def test_the_tables_have_a_row_a_finalist_and_a_column_a_condition(tmp_path: Path) -> None:
    finalists = read_finalists(write(tmp_path, record("b2"), record("base"), record("a1"))).finalists
    assert [finalist.trial_id for finalist in finalists] == ["base", "a1", "b2"]
    first, fid, _, utility = paper_tables(finalists)
    assert first.rows[0] == ("a1", EVIL, "12 [10, 14]", "3", "25.0", "50.0")
    assert len(first.rows) == 2 and first.references[1][4:] == ("0.90", "–")
    assert fid.rows[0][2:] == ("20", "–") and utility.rows[1][2:] == ("62.5", "–")


def otherwise(trial_id: str, num_images: int, **more: Any) -> dict[str, Any]:
    return record(trial_id, settings={"images_per_condition": num_images}, **more)


def test_numbers_under_other_settings_stay_out_of_the_tables(tmp_path: Path) -> None:
    run = write(tmp_path, otherwise("c3", 500, series=1), record("a1", series=2), otherwise("b2", 60, series=3))
    comparable = read_finalists(run)
    assert ([finalist.trial_id for finalist in comparable.finalists], comparable.left_out) == (["b2"], ("a1", "c3"))
    write(tmp_path, record("a1", series=4))
    comparable = read_finalists(run)
    assert ([finalist.trial_id for finalist in comparable.finalists], comparable.left_out) == (["a1"], ("b2", "c3"))
    assert "under other settings: b2, c3." in final_section(run, lambda path, caption: caption)
    assert len(paper_tables(comparable.finalists)[0].rows) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_a_copied_run_reads_the_same_whenever_its_files_were_written(order: int, tmp_path: Path) -> None:
    run = write(tmp_path / "run", otherwise("a1", 500, series=2), record("b2", series=1), record("base", series=1))
    copy = shutil.copytree(run, tmp_path / "copy")
    for second, trial_id in enumerate(("a1", "b2", "base")):
        os.utime(copy / "evaluation" / trial_id / "scores.json", (100 + order * second, 100 + order * second))
    for folder in (run, copy):
        comparable = read_finalists(folder)
        assert ([finalist.trial_id for finalist in comparable.finalists], comparable.left_out) == (
            ["a1"],
            ("b2", "base"),
        )


def test_a_series_goes_on_while_finalists_are_evaluated_alike(tmp_path: Path) -> None:
    few, many = record("a1"), otherwise("b2", 500)
    assert series_of(tmp_path, few) == 1
    write(tmp_path, few | {"series": 1})
    assert (series_of(tmp_path, few), series_of(tmp_path, many)) == (1, 2)
    write(tmp_path, many | {"series": 2})
    assert (series_of(tmp_path, few), series_of(tmp_path, many)) == (3, 2)


def test_means_over_trainings_take_the_place_of_single_values() -> None:
    seeds = {"seeds": [0, 1, 2], "values": {"fid_mini": {"mean": 11.0, "low": 7.0, "high": 15.0}}}
    scores = record("a1", seeds=seeds)
    finalist = FinalScores(folder=Path(), record=scores, values={"fid_mini": 12.0, "vendi_mini": 3.0})
    assert finalist.value("fid_mini") == 11.0 and finalist.interval("fid_mini") == (7.0, 15.0)
    assert finalist.value("vendi_mini") == 3.0 and finalist.interval("vendi_mini") is None
    assert "over 3 trainings" in paper_tables([finalist])[0].note


def test_two_trainings_show_their_mean_without_an_interval() -> None:
    seeds = {"seeds": [0, 1], "values": {"fid_mini": {"mean": 11.0, "low": None, "high": None}}}
    values = {"fid_mini": 12.0, "fid_mini_low": 10.0, "fid_mini_high": 14.0}
    finalist = FinalScores(folder=Path(), record=record("a1", seeds=seeds), values=values)
    table = paper_tables([finalist])[0]
    assert finalist.value("fid_mini") == 11.0 and finalist.interval("fid_mini") is None and table.rows[0][2] == "11"
    assert table.note.endswith(" Means over 2 trainings.")


def test_the_page_says_of_which_patients_and_what_is_uncertain(tmp_path: Path) -> None:
    scores = record("a1")
    copies = {"memorisation_share": 0.25, "memorisation_share_exchanged": 0.125, "memorisation_confidence": 0.9}
    scores["studies"]["memorisation"] = {
        "status": "completed",
        "values": copies,
        "details": {},
        "inputs": {"splits": f"validation and {EVIL}"},
    }
    scores["studies"]["utility"]["values"]["utility_auc/real"] = 0.75
    page = final_section(write(tmp_path, scores), lambda path, caption: caption)
    assert "<li>memorisation: validation and &lt;script&gt;" in page and "<script" not in page
    assert "everything here is measured on test patients" not in page
    assert "if generated films resembled real ones as held-out films do" in page and "0.125" in page
    assert "cover the trainings of the generator" in page


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "be JSON, but got"),
        ("[]", "have format 3, but got a list"),
        ('{"format": 2, "studies": {}}', "have format 3, but got 2"),
        ('{"format": 3, "series": 1}', "hold `studies` and `series`, but got"),
        ('{"format": 3, "studies": {}}', "hold `studies` and `series`, but got"),
    ],
)
def test_damaged_scores_and_those_of_another_format_are_refused(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ValueError, match=rf"`scores\.json` must {fault} .* Remove it and evaluate again"):
        read_scores(tmp_path / "scores.json")
