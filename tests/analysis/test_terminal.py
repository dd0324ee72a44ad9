"""How commands end: by the message of what went wrong, without a traceback."""

from __future__ import annotations

import pytest
import typer

from analysis.terminal import PLAIN_WIDTH, explained, new_console


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, RuntimeError])
def test_what_goes_wrong_is_said_as_it_is_and_ends_the_command(
    capsys: pytest.CaptureFixture[str], error: type[Exception]
) -> None:
    with pytest.raises(typer.Exit) as ended, explained():
        raise error("`a` must be [b], but got [red]. Mend it.")
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "error `a` must be [b], but got [red]. Mend it.\n"


def test_an_interrupt_has_a_code_and_words_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for how, said in ((lambda: "Go on.", "Interrupted. Go on."), (str, "Interrupted.")):
        with pytest.raises(typer.Exit) as ended, explained(how):
            raise KeyboardInterrupt
        assert ended.value.exit_code == 130
        assert capsys.readouterr().err == f"error {said}\n"


@pytest.mark.parametrize(
    ("error", "said"), [(OSError("Disk full."), "Disk full."), (KeyboardInterrupt(), "Interrupted.")]
)
def test_what_went_wrong_besides_is_said_too(
    capsys: pytest.CaptureFixture[str], error: BaseException, said: str
) -> None:
    error.add_note("MLflow lacks 3 records.")
    error.add_note("The report is old.")
    with pytest.raises(typer.Exit), explained():
        raise error
    assert capsys.readouterr().err == f"error {said} MLflow lacks 3 records. The report is old.\n"


def test_ends_of_commands_and_faults_of_ours_pass() -> None:
    with pytest.raises(typer.Exit) as ended, explained():
        raise typer.Exit(3)
    assert ended.value.exit_code == 3
    with pytest.raises(KeyError), explained():
        raise KeyError("a fault of the program")


def test_what_goes_to_a_file_is_of_readable_width() -> None:
    assert new_console().width == new_console(stderr=True).width == PLAIN_WIDTH
