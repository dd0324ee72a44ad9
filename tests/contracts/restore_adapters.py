"""Run as a program of its own: restores exported adapters on a freshly loaded base, and saves the pixels.

Its one argument is the JSON file that plain_diffusers.py describes; it takes the jobs of kind "adapter".
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np

from trainables.base_models.models import load_base
from trainables.sampling import generate_batches
from trainables.strategies import load_adapter


def main(file: Path) -> None:
    """Sample every job."""
    task = json.loads(file.read_text())
    base = load_base(task["base"]).for_films_of(task["resolution_px"])
    for job in task["jobs"]:
        models = base.fresh()
        load_adapter(models, Path(job["folder"]))
        batches = generate_batches(
            models,
            job["prompts"],
            task["seeds"],
            num_steps=task["num_steps"],
            guidance_scale=task["guidance"],
            batch_size=len(job["prompts"]),
        )
        np.save(job["to"], next(batches))


if __name__ == "__main__":
    if "WITH_TOYS" in os.environ:  # set by test_extending.py, whose toys are in no table of this process yet
        importlib.import_module("toys").register()
    main(Path(sys.argv[1]))
