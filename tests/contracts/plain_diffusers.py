"""Run as a program of its own: loads exports with plain diffusers, without this project, and saves the pixels.

Its one argument is a JSON file: {"base", "seeds", "num_steps", "guidance", "resolution_px",
"jobs": [{"kind", "folder", "prompts", "to"}]}.
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

OURS = {"sweep", "trainables", "search_spaces", "analysis"}


@cache
def plain(base: str) -> Any:
    """The base's pipeline, read once; loaders change what they are given, so each gets a copy."""
    return StableDiffusionPipeline.from_pretrained(base, safety_checker=None, dtype=torch.float32)


def load(base: str, kind: str, folder: str) -> Any:
    """The pipeline that a user of plain diffusers would have."""
    if kind == "pipeline":
        return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline = deepcopy(plain(base))
    pipeline.scheduler = DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")
    if list(Path(folder).glob("*.safetensors")):
        pipeline.load_lora_weights(folder)
    if tokens := [str(file) for file in Path(folder, "tokens").glob("*.safetensors")]:
        pipeline.load_textual_inversion(tokens)
    return pipeline


def main(file: Path) -> None:
    """Sample every job."""
    task = json.loads(file.read_text())
    for job in task["jobs"]:
        pipeline = load(task["base"], job["kind"], job["folder"])
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(
            job["prompts"],
            generator=[torch.Generator().manual_seed(seed) for seed in task["seeds"]],
            num_inference_steps=task["num_steps"],
            guidance_scale=task["guidance"],
            height=task["resolution_px"],
            width=task["resolution_px"],
            output_type="np",
        ).images
        np.save(job["to"], images)
    imported = OURS & set(sys.modules)
    if imported:
        raise SystemExit(f"`plain_diffusers.py` must not import this project, but got {sorted(imported)}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
