"""What the replayed studies published, beside what a run of their preset found, and whether the two may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from analysis.final_scores import FinalScores
from analysis.report.words import number

SIX: Final = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure that a study published.

    Attributes:
        label: what the table calls it, with the direction that is better.
        ours: name of the same figure among a finalist's scores.
        scale: what ours is multiplied by to be in the published unit.
        extractor: ours that is the published one; empty where the figure needs none.
    """

    label: str
    ours: str
    scale: float = 1.0
    extractor: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table of a study.

    Attributes:
        title: with the study's name and the number of its table.
        columns: in the order of the figures.
        rows: by strategy; None where nothing was published for it.
        images_per_condition: the most generated films for one condition behind them; None where that was not said.
        obstacles: why ours never compare, whatever is set: data, split or weights that cannot be had.
        spread: of the published figures, by strategy, where seeds were published.
    """

    title: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    images_per_condition: int | None = None
    obstacles: tuple[str, ...] = ()
    spread: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


PRESSURE_SPLIT: Final = "its split is of other patients: the public one has 5,989 patients both in training and test"
PRESSURE: Final = (
    PublishedTable(
        title="Pixels under Pressure, table 3: fidelity, diversity and alignment (%)",
        columns=(
            Column(label="FID ↓", ours="fid_xrv", extractor="xrv"),
            Column(label="Vendi ↑", ours="vendi_xrv", extractor="xrv"),
            *(Column(label=name, ours=f"alignment_recall/{name}", scale=100) for name in SIX),
        ),
        rows={
            "unet": (3.42, 5.65, 24.1, 10.7, 25.7, 91.6, 15.7, 21.6),
            "unet+text_encoder": (6.57, 2.79, 11.0, 3.1, 8.2, 96.9, 9.99, 5.8),
            "unet+vae": (7.46, 2.59, 12.1, 1.0, 0.7, 98.1, 48.0, 2.0),
            "lora": (5.65, 2.64, 5.0, 0.5, 0.5, 98.9, 1.0, 1.8),
            "dora": (5.72, 3.18, 8.3, 0.8, 0.7, 98.8, 0.9, 1.3),
            "bitfit": (5.05, 5.89, 4.8, 12.6, 9.8, 86.4, 13.4, 5.0),
        },
        images_per_condition=5000,
        obstacles=(PRESSURE_SPLIT, "its classifier of alignment is not published"),
    ),
    PublishedTable(
        title="Pixels under Pressure, table 4: accuracy (%) on real films of a classifier trained on synthetic ones",
        columns=tuple(Column(label=name, ours=f"utility_accuracy/synthetic/{name}", scale=100) for name in SIX),
        rows={
            "unet": (37.4, 48.8, 67.8, 90.9, 89.4, 51.5),
            "unet+text_encoder": (77.9, 54.0, 67.8, 81.0, 89.4, 55.3),
            "unet+vae": (15.7, 48.8, 67.5, 90.9, 89.4, 54.7),
            "lora": (35.3, 47.6, 60.2, 75.8, 86.4, 53.6),
            "dora": (80.6, 47.4, 52.9, 75.8, 89.3, 52.7),
            "bitfit": (77.3, 50.9, 67.8, 90.9, 76.4, 54.5),
        },
        images_per_condition=5000,
        obstacles=(PRESSURE_SPLIT,),
    ),
)


RAD_DINO: Final = (
    ("FID (RAD-DINO) ↓", "fid"),
    ("KID ↓", "kid"),
    ("precision ↑", "precision"),
    ("recall ↑", "recall"),
    ("density ↑", "density"),
    ("coverage ↑", "coverage"),
)
"""Columns of CheXGenBench's fidelity and their names among our figures."""


def selora_table(where: str, fid: tuple[float, float], clip: tuple[float, float]) -> PublishedTable:
    """The row of SeLoRA, the only one whose figures our text of the paper has, as mean and deviation of three seeds.

    Args:
        where: the collection of films.
        fid: mean and deviation of the FID.
        clip: mean and deviation of the CLIP score.
    """
    return PublishedTable(
        title=f"SeLoRA, table 1: {where}, three seeds",
        columns=(
            Column(label="FID ↓", ours="fid_inception", extractor="inception"),
            Column(label="CLIP score ↑", ours="clip_score", extractor="clip"),
        ),
        rows={"lora": (None, None), "adalora": (None, None), "dylora": (None, None), "selora": (fid[0], clip[0])},
        spread={"selora": (fid[1], clip[1])},
        obstacles=("which of its films are in which split is not published",),
    )


PUBLISHED: Final[Mapping[str, tuple[PublishedTable, ...]]] = {
    "pixels_under_pressure": PRESSURE,
    "pixels_under_pressure_corrected": PRESSURE,
    "selora_iu": (selora_table("IU X-ray", (113.04, 16.79), (27.26, 0.22)),),
    "selora_montgomery": (selora_table("Montgomery County", (205.54, 9.56), (26.38, 0.04)),),
    "chexgenbench": (
        PublishedTable(
            title="CheXGenBench: fidelity of Stable Diffusion 1.5, trained on MIMIC-CXR",
            columns=(
                *(
                    Column(label=label, ours=f"benchmark_{name}_rad_dino", extractor="rad_dino")
                    for label, name in RAD_DINO
                ),
                Column(label="F1 micro ↑", ours="benchmark_f1_micro/synthetic"),
                Column(label="F1 macro ↑", ours="benchmark_f1_macro/synthetic"),
                Column(label="AUC ↑", ours="benchmark_auc_macro/synthetic"),
            ),
            rows={"unet": (118.93, *[None] * 8), "lora": (None,) * 9},
            obstacles=(
                "its films are shrunk to 299 px from their full size, ours from 512 px: by how much is not measured",
            ),
        ),
    ),
}
"""Published tables by preset. RoentGen's and Chambon's gains were published in words alone; their presets' docstrings
have them."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A published table with our figures in it.

    Attributes:
        title: names the study's table.
        head: names of the columns, the strategy first.
        rows: a strategy each: its cells as "ours / published".
        obstacles: why the two may not be compared; none: they may.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    obstacles: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """A sentence on whether ours and the published figures may be compared."""
        if not self.obstacles:
            return "Ours and published may be compared: the same extractor and as many films."
        return f"Ours and published may not be compared: {'; '.join(self.obstacles)}."


def beside_published(preset: str, finalists: Sequence[FinalScores]) -> tuple[Beside, ...]:
    """The tables of the study that a preset replays, with what the finalists of a run reached; none for other presets."""
    ours = {finalist.strategy: finalist for finalist in reversed(finalists)}
    return tuple(_beside(table, ours) for table in PUBLISHED.get(preset, ()))


def _beside(table: PublishedTable, ours: Mapping[str, FinalScores]) -> Beside:
    strategies = [*table.rows, *(name for name in ours if name not in table.rows and name != "base")]
    none = (None,) * len(table.columns)
    rows = [
        (name, *(_cell(column, ours.get(name), table, name, place) for place, column in enumerate(table.columns)))
        for name in strategies
        if name in ours or table.rows.get(name, none) != none
    ]
    head = ("strategy", *(column.label for column in table.columns))
    return Beside(title=table.title, head=head, rows=tuple(rows), obstacles=_obstacles(table, ours))


def _cell(column: Column, finalist: FinalScores | None, table: PublishedTable, name: str, place: int) -> str:
    value = None if finalist is None else finalist.value(column.ours)
    published = table.rows[name][place] if name in table.rows else None
    spread = f" ± {table.spread[name][place]:g}" if name in table.spread else ""
    return f"{number(None if value is None else value * column.scale)} / {number(published)}{spread}"


def _obstacles(table: PublishedTable, ours: Mapping[str, FinalScores]) -> tuple[str, ...]:
    obstacles = list(table.obstacles)
    wanted = dict.fromkeys(column.extractor for column in table.columns if column.extractor)
    used = dict.fromkeys(str(finalist.record["extractor"]["name"]) for finalist in ours.values())
    if wanted and list(used) != list(wanted)[:1]:
        obstacles.append(f"published features are of {' and '.join(wanted)}, ours of {' and '.join(used) or 'none'}")
    counts = dict.fromkeys(int(finalist.record["settings"]["images_per_condition"]) for finalist in ours.values())
    if table.images_per_condition is not None and list(counts) != [table.images_per_condition]:
        came = " and ".join(f"{count:,}" for count in counts)
        obstacles.append(f"published with up to {table.images_per_condition:,} films a condition, ours with {came}")
    return tuple(obstacles)
