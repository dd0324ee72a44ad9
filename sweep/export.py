"""`python -m sweep.export`: take one trial out of a run, in a format that other programs read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from analysis.checks import look_up
from analysis.front.picks import EXAMPLES, PICKS, pick_trial
from analysis.run_folder import RunFolder
from analysis.terminal import explained, new_console
from sweep.final.copies_gate import require_few_copies
from sweep.storage import new_folder
from trainables.exports import EXPORT_CARD, EXPORTS, ExportFormat, Writing
from trainables.naming import without_folders

MaxCopies = Annotated[
    float | None, typer.Option(min=0, max=1, help="Refuse an adapter with a larger share of copies.", metavar="SHARE")
]
HubName = Annotated[
    str, typer.Option(help="Upload it with its card to a new repository of the model hub.", metavar="OWNER/NAME")
]
License = Annotated[
    str | None, typer.Option("--license", help="For the card, as the hub names it. Default: the base's.")
]


@dataclass(frozen=True, kw_only=True)
class Publishing:
    """What goes with an export to others.

    Attributes:
        has_card: whether a model card is written.
        hub_name: the repository to push to; empty: none.
        license: of the adapter, as the hub names it; None: the base's.
        max_copies: the share of copies that the export was let pass with.
        is_public: whether everybody may see the repository.
    """

    has_card: bool = False
    hub_name: str = ""
    license: str | None = None
    max_copies: float | None = None
    is_public: bool = False


def export(
    run: RunFolder,
    trial_id: str,
    *,
    format_: ExportFormat,
    to: Path,
    base: str,
    half: bool = False,
    publishing: Publishing | None = None,
) -> str:
    """Write a trial's adapter in another program's format; nothing is left at `to` if that fails.

    Args:
        run: the finished run.
        trial_id: one of its completed trials.
        format_: one of `EXPORTS`.
        to: a new or empty folder.
        base: the base model that the trial adapted, by name or folder.
        half: weights as float16.
        publishing: the card, if there is to be one.

    Returns:
        What to ask of the program, where films are of another side than the base's own; else nothing.

    Raises:
        FileExistsError: `to` holds something.
        FileNotFoundError: the base or the adapter is not there.
        ValueError: the format cannot hold the adapter, the base is not the trial's, a weight is too large for float16, or
            a card is asked for and the trial has no final evaluation.
    """
    with new_folder(to) as folder:
        from sweep.publishing.origin import Origin
        from trainables.base_models.models import load_base  # torch takes seconds; wrong input is answered before
        from trainables.strategies import load_adapter
        from trainables.strategies.card import read_card

        card = without_folders(read_card(run.adapter(trial_id)))
        models = load_base(base)
        base_px = models.resolution_px
        strategy = load_adapter(models, run.adapter(trial_id))
        origin = Origin.of(run, trial_id, card)
        format_.write(models, strategy, folder, Writing(half=half, origin=origin.as_words()))
        record = {"run": run.folder.name, "trial_id": trial_id, "format": format_.name, "adapter": card}
        (folder / EXPORT_CARD).write_text(json.dumps(record, indent=2) + "\n")
        side = _side_note(models.resolution_px, base_px)
        if publishing is not None and publishing.has_card:
            from sweep.publishing.model_card import Publication, write_card

            steps = format_.next_steps(folder, card["base"]["source"]).replace(str(folder), "adapter") + side
            name = publishing.hub_name or to.name
            published = Publication(
                name=name, how_to_load=steps, license=publishing.license, max_copies=publishing.max_copies
            )
            write_card(origin, published, folder)
    return side


def _side_note(side_px: int, base_px: int) -> str:
    return (
        "" if side_px == base_px else f"\nIts films are of {side_px} px, not {base_px}: ask for that height and width."
    )


def main(
    run: Annotated[Path, typer.Option(help="The directory of a finished run.", metavar="DIR")],
    to: Annotated[Path, typer.Option(help="A new or empty folder.", metavar="DIR")],
    pick: Annotated[str, typer.Option(help=f"Which trial. {EXAMPLES}", metavar="|".join(PICKS))] = "knee",
    format_: Annotated[
        str, typer.Option("--format", help="For which program.", metavar="|".join(EXPORTS))
    ] = "pipeline",
    max_copies: MaxCopies = None,
    base: Annotated[str | None, typer.Option(help="The run's base model, if it has moved.", metavar="NAME|DIR")] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights as float16, in half the space.")] = False,
    card: Annotated[bool, typer.Option("--card", help="A model card beside it, README.md.")] = False,
    push_to_hub: HubName = "",
    public: Annotated[bool, typer.Option("--public", help="Everybody may see that repository.")] = False,
    license_: License = None,
) -> None:
    """Export one trial of a run: for diffusers, PEFT or a web UI, as one file, or as the whole adapted pipeline.

    Example: python -m sweep.export --run runs/demo --pick best:fid_mini --format pipeline --to exported
    """
    console = new_console()
    with explained():
        chosen, finished = look_up(EXPORTS, format_, "--format"), RunFolder.open(run.expanduser())
        trial_id = pick_trial(finished, pick)
        require_few_copies(finished, trial_id, max_copies)
        publishing = Publishing(
            has_card=card or bool(push_to_hub),
            hub_name=push_to_hub,
            license=license_,
            max_copies=max_copies,
            is_public=public,
        )
        expect_published(finished, trial_id, publishing)
        base, to = base or str(finished.config["base"]), to.expanduser()
        with console.status(f"Exporting {trial_id} on {base} ..."):
            side = export(finished, trial_id, format_=chosen, to=to, base=base, half=half, publishing=publishing)
        steps = chosen.next_steps(to, base) + side
        console.print(f"Wrote trial {trial_id} to {to}.\n{steps}", soft_wrap=True, markup=False)
        if push_to_hub:
            from sweep.publishing.hub import push

            with console.status(f"Uploading to {push_to_hub} ..."):
                address = push(to, push_to_hub, public=public)
            console.print(f"Uploaded it to {address}", soft_wrap=True, markup=False)


def expect_published(run: RunFolder, trial_id: str, publishing: Publishing) -> None:
    """Refuse what cannot be published, before anything slow.

    Args:
        run: the run that the trial is of.
        trial_id: the trial whose adapter is exported.
        publishing: whether a card is asked for, and under which name on the hub.

    Raises:
        ValueError: a card is asked for and the trial has no final evaluation, or the hub would not take it.
        OSError: the hub cannot be reached.
    """
    if publishing.has_card:
        from sweep.publishing.model_card import finalist_of

        finalist_of(run, trial_id)
    if publishing.hub_name:
        from sweep.publishing.hub import expect_target

        expect_target(publishing.hub_name)


if __name__ == "__main__":
    typer.run(main)
