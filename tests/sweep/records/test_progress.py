"""The terminal's table, read as it is drawn on 80 columns, and the lines of a file."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console, RenderableType

from sweep.records.progress import ProgressView, _Row
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

SHOWN = ("fid_mini", "vendi_mini", "trainable_parameters", "epoch_s")
HEAD = ["trial", "strategy", "epoch", "rung", "images/s", "FID", "VENDI", "state", "left"]


def suggestion(trial_id: str, strategy: str) -> Suggestion:
    choice = {"strategy": {"name": strategy, "rank": 4}, "lr": 1e-3, "batch_size": 16}
    return Suggestion(trial_id=trial_id, number=0, choice=choice)


def view_of(console: Console) -> ProgressView:
    return ProgressView(console, num_trials=3, num_epochs=40, shown=SHOWN, rungs=(5, 15))


def drive(view: ProgressView) -> None:
    """A stopped, a failed and a completed trial, the last with a name too long for its column."""
    for trial_id, strategy in (("5feceb66", "unet"), ("9c5bdec8", "dora"), ("fe246517", "text_encoder_swap+lora")):
        view.on_start(suggestion(trial_id, strategy))
    view.on_report("5feceb66", {"epoch": 0, "loss": 0.1, "images_per_s": 1234.5, "epoch_s": 60.0})
    view.on_report(
        "5feceb66",
        {"epoch": 4, "images_per_s": 12.34, "epoch_s": 50.0, "evaluation_s": 10.0, "early_fid_mini": 123456.7},
    )
    view.on_end("5feceb66", TrialEnd.stopped("it is beaten", rung=0))
    view.on_end("9c5bdec8", TrialEnd.failed("loss must be finite"))
    view.on_report("fe246517", {"epoch": 38, "images_per_s": 9.0, "epoch_s": 4000.0})


def drawn(view: ProgressView, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(view._table())
    return captured.get().splitlines()


def test_the_table_fits_80_columns_and_says_of_each_trial_how_far_it_is() -> None:
    view = view_of(Console(file=io.StringIO(), force_terminal=True, width=80))
    with view:
        view.on_start(suggestion("5feceb66", "text_encoder_swap+lora"))
        view.on_report("5feceb66", {"epoch": 0, "images_per_s": 1234.5, "epoch_s": 60.0})
        early = {"early_fid_mini": 77.07, "early_vendi_mini": 3.631, "evaluation_s": 12.0}
        view.on_report("5feceb66", {"epoch": 4, "images_per_s": 12.34, "epoch_s": 50.0, **early})
        view.on_start(suggestion("9c5bdec8", "dora"))
        head, row, new, summary = drawn(view, 80)
    assert head.split() == HEAD
    assert row.split() == [
        *("5feceb66", "text_encoder_…", "5/40", "1/2", "12.3", "~77.1", "~3.63", "training", "35:35"),
    ]  # 35 epochs of (60 + 50 + 12) / 2 s
    assert new.split() == ["9c5bdec8", "dora", "0/40", "0/2", "starting"]
    assert summary == "0 of 3 trials after 0:00"
    assert max(map(len, (head, row, new, summary))) <= 80


def test_a_trial_that_ends_while_the_table_is_drawn_does_not_end_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(Console(file=io.StringIO(), width=80))
    for trial_id in ("a", "b", "c"):
        view.on_start(suggestion(trial_id, "unet"))
    cells = view._cells

    def ending(row: _Row) -> list[RenderableType]:
        view._rows.pop("b", None)  # by the sweep's thread; Rich draws in one of its own
        return cells(row)

    monkeypatch.setattr(view, "_cells", ending)
    assert [line.split()[0] for line in drawn(view, 80)[1:3]] == ["a", "b"]
    assert [line.split()[0] for line in drawn(view, 80)[1:3]] == ["a", "c"]


def test_final_values_take_the_place_of_a_rungs_and_hours_are_hours() -> None:
    view = view_of(Console(file=io.StringIO(), force_terminal=True, width=80))
    with view:
        view.on_start(suggestion("a", "unet"))
        view.on_report("a", {"epoch": 14, "epoch_s": 400.0, "early_fid_mini": 70.0, "images_per_s": 3.0})
        assert drawn(view, 80)[1].split()[2:] == ["15/40", "2/2", "3", "~70", "training", "2h46"]  # 25 * 400 s
        view.on_retry("a", "its process was lost")
        assert drawn(view, 80)[1].split()[-2:] == ["again", "2h46"]
        view.on_report(
            "a", {"epoch": 39, "epoch_s": 400.0, "fid_mini": 50.64, "vendi_mini": 5.014, "images_per_s": 3.0}
        )
        assert drawn(view, 80)[1].split()[2:] == ["40/40", "2/2", "3", "50.6", "5.01", "training", "0:00"]


@pytest.mark.parametrize("width", [80, 100])
def test_what_a_terminal_keeps_of_ended_trials_is_a_row_each(width: int) -> None:
    screen = io.StringIO()
    view = view_of(Console(file=screen, force_terminal=True, width=width, color_system=None))
    with view:
        drive(view)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    (kept,) = [line for line in text.splitlines() if "5feceb66" in line and "stopped" in line]
    assert kept.split() == ["5feceb66", "unet", "5/40", "1/2", "12.3", "~1.23e…", "stopped"]
    assert len(kept.rstrip()) <= 80
    assert "loss must be finite" in screen.getvalue()


def test_a_file_gets_a_line_a_start_and_an_end_and_nothing_of_the_past() -> None:
    file = io.StringIO()
    view = view_of(Console(file=file, width=150))
    view.on_start(suggestion("past", "lora"))
    view.on_end("past", TrialEnd.stopped("it was beaten", rung=0))
    with view:
        drive(view)
        view.on_report("fe246517", {"epoch": 39, "epoch_s": 1.0, "fid_mini": 50.64, "vendi_mini": 5.0})
        view.on_end("fe246517", TrialEnd.completed())
    lines = file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["start", "start", "start", "2/3", "3/3", "4/3"]
    assert lines[3].endswith("unet, rank 4, lr 1.0e-03, batch 16: stopped it is beaten")
    assert lines[5].endswith("fid_mini 50.64, vendi_mini 5, epoch_s 1")
    assert "\x1b" not in file.getvalue()
