"""`python -m sweep.export`: take one trial out of a run, in a format that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from analysis.checks import look_up
from analysis.run_folder import RunFolder
from analysis.terminal import explained, new_console
from sweep.final.copies_gate import require_few_copies
from sweep.picks import EXAMPLES, PICKS, pick_trial
from sweep.storage import new_folder
from trainables.exports import EXPORT_CARD, EXPORTS, ExportFormat


def export(run: RunFolder, trial_id: str, *, format_: ExportFormat, to: Path, base: str) -> None:
    """Write a trial's adapter in another program's format; nothing is left at `to` if that fails.

    Args:
        run: The finished run.
        trial_id: One of its completed trials.
        format_: One of `EXPORTS`.
        to: A new or empty folder.
        base: The base model that the trial adapted, by name or folder.

    Raises:
        FileExistsError: `to` holds something.
        FileNotFoundError: the base or the adapter is not there.
        ValueError: the format cannot hold the adapter, or the base is not the trial's.
    """
    with new_folder(to) as folder:
        from trainables.base_models.models import load_base  # torch takes seconds; wrong input is answered before
        from trainables.strategies import load_adapter
        from trainables.strategies.card import read_card

        card = read_card(run.adapter(trial_id))
        models = load_base(base)
        strategy = load_adapter(models, run.adapter(trial_id))
        format_.write(models, strategy, folder)
        record = {"run": run.folder.name, "trial_id": trial_id, "format": format_.name, "adapter": card}
        (folder / EXPORT_CARD).write_text(json.dumps(record, indent=2) + "\n")


def main(
    run: Annotated[Path, typer.Option(help="The directory of a finished run.", metavar="DIR")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.", metavar="DIR")],
    pick: Annotated[str, typer.Option(help=f"Which trial. {EXAMPLES}", metavar="|".join(PICKS))] = "knee",
    format_: Annotated[
        str, typer.Option("--format", help="For which program.", metavar="|".join(EXPORTS))
    ] = "pipeline",
    max_copies: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Refuse an adapter with a larger share of copies.", metavar="SHARE"),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The run's base model, if it has moved.", metavar="NAME|DIR")] = None,
) -> None:
    """Export one trial of a run: its LoRA or tokens for diffusers, or the whole adapted pipeline.

    Example: python -m sweep.export --run runs/demo --pick best:fid_mini --format pipeline --to exported
    """
    console = new_console()
    with explained():
        chosen, finished = look_up(EXPORTS, format_, "--format"), RunFolder.open(run.expanduser())
        trial_id = pick_trial(finished, pick)
        require_few_copies(finished, trial_id, max_copies)
        base = base or str(finished.config["base"])
        with console.status(f"Exporting {trial_id} on {base} ..."):
            export(finished, trial_id, format_=chosen, to=to.expanduser(), base=base)
    console.print(f"Wrote trial {trial_id} to {to}.\n{chosen.next_steps(to, base)}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    typer.run(main)
