"""Maps of where the words of the prompts act on the films that a run's report shows, as a picture beside each sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from analysis.files import whole_file
from analysis.run_folder import CACHE, WORD_MAPS_KEY, RunFolder, word_maps_beside
from sweep.final.bench import dataset_folder
from sweep.loading import parse_config
from sweep.scoring.plans import GenerationPlan, conditions_to_score
from sweep.scoring.scorer import SHEET_COLUMNS, AdapterScorer, EvaluationSpec
from trainables.datasets.store import PreparedDataset
from trainables.word_maps import common_words, mapped_batches

MARGIN_PX = 1
"""Pixels around each map that repeat its edge: a picture that is drawn larger then does not mix a map with its
neighbours."""


def scorer_of(run: RunFolder) -> AdapterScorer:
    """What scored the trials of a run, to make their films again.

    Raises:
        DataChangedError: its data are gone, or others than those that the sweep began with.
        ValueError: they do not show the conditions of the run.
    """
    config = parse_config(run.config)
    folder = dataset_folder(run, config)
    conditions = conditions_to_score(PreparedDataset.open(folder), config.evaluation.split, config.data.conditions)
    return AdapterScorer(
        EvaluationSpec(
            base=config.base,
            resolution_px=config.resolution_px,
            dataset=folder,
            conditions=conditions,
            cache_folder=run.folder / CACHE,
            seed=config.seed,
            config=config.evaluation,
            fingerprint=run.data_fingerprint(),
        )
    )


def write_word_maps(scorer: AdapterScorer, adapter: Path | None, samples: Path) -> NDArray[np.uint8]:
    """Sample the films of a sheet again, and write where their findings' words, and those that all prompts have, acted.

    The picture is grey, a row of maps for each word and in it for each condition, as the sheet has them; white is how much
    more than its least a map has, as a share of its most, so that one that is nearly flat is nearly black. What the rows
    are, and each map's least and most, stand in its text as JSON.

    Args:
        scorer: of the run.
        adapter: that made the sheet; None is the un-adapted base.
        samples: the sheet, beside which the picture goes.

    Returns:
        The films again, uint8[n, H, W, 3].
    """
    plan = scorer.plan.only(scorer.plan.places < SHEET_COLUMNS)
    words, sampling = common_words(plan.prompts), scorer.evaluation
    batches = list(
        mapped_batches(
            scorer.adapted(adapter),
            plan.prompts,
            plan.seeds,
            [(label, *words) for (label,) in plan.labels],
            num_steps=sampling.num_steps,
            guidance_scale=sampling.guidance_scale,
            batch_size=sampling.batch_size,
        )
    )
    maps = np.concatenate([batch.maps for batch in batches])
    _save(maps, plan, conditions=scorer.conditions, words=words, to=word_maps_beside(samples))
    return np.concatenate([batch.films for batch in batches])


def _save(
    maps: NDArray[np.float32], plan: GenerationPlan, *, conditions: tuple[str, ...], words: tuple[str, ...], to: Path
) -> None:
    side = maps.shape[-1]
    tile = side + 2 * MARGIN_PX
    picture = np.zeros((maps.shape[1], len(conditions), tile, SHEET_COLUMNS, tile), np.uint8)
    lows, peaks = np.zeros((2, maps.shape[1], len(conditions), SHEET_COLUMNS))
    for film, ((label,), column) in enumerate(zip(plan.labels, plan.places, strict=True)):
        row, film_maps = conditions.index(label), maps[film]
        low, peak = film_maps.min(axis=(1, 2)), film_maps.max(axis=(1, 2))
        scaled = 255 * (film_maps - low[:, None, None]) / np.where(peak > 0, peak, 1)[:, None, None]
        picture[:, row, :, column] = np.pad(scaled.round(), ((0, 0), *[(MARGIN_PX, MARGIN_PX)] * 2), mode="edge")
        lows[:, row, column], peaks[:, row, column] = low.round(5), peak.round(5)
    layout = {"words": words, "side": side, "margin": MARGIN_PX, "lows": lows.tolist(), "peaks": peaks.tolist()}
    text = PngInfo()
    text.add_text(WORD_MAPS_KEY, json.dumps(layout))
    with whole_file(to) as file:
        Image.fromarray(picture.reshape(-1, SHEET_COLUMNS * tile)).save(file, format="PNG", pnginfo=text)
