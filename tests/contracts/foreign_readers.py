"""Run as a program of its own: other programs' readers load exports, without this project, and say what pixels they give.

Its one argument is a JSON file: {"base", "seeds", "num_steps", "guidance", "resolution_px", "jobs": [{"reader",
"folder", "prompts", "to"}]}. Each job leaves `to`.npy, or `to`.txt with the error by which its reader refused the export.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from lycoris.utils import merge
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

OURS = {"sweep", "trainables", "search_spaces", "analysis"}
FILE = "pytorch_lora_weights.safetensors"


def by_folder(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(str(folder))


def by_file(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(str(folder), weight_name=FILE)


def by_state_dict(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(load_file(folder / FILE))


def by_component(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    tensors = load_file(folder / FILE)
    pipeline.unet.load_lora_adapter(tensors, prefix="unet")
    pipeline.load_lora_into_text_encoder(tensors, network_alphas=None, text_encoder=pipeline.text_encoder)


def by_adapter_weights(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(load_file(folder / FILE), adapter_name="films")
    pipeline.set_adapters(["films"], adapter_weights=[1.0])


def in_two_halves(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Twice at half its weight; what DoRA adds is not linear in its weight."""
    for name in ("one", "other"):
        pipeline.load_lora_weights(str(folder), adapter_name=name)
    pipeline.set_adapters(["one", "other"], adapter_weights=[0.5, 0.5])


def fused(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(load_file(folder / FILE))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def saved_anew(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Saved by diffusers itself after it was loaded, and loaded from there."""
    pipeline.load_lora_weights(load_file(folder / FILE), adapter_name="films")
    parts = {name: getattr(pipeline, name) for name in ("unet", "text_encoder")}
    layers = {
        f"{name}_lora_layers": get_peft_model_state_dict(part, adapter_name="films")
        for name, part in parts.items()
        if "films" in getattr(part, "peft_config", {})
    }
    pipeline.save_lora_weights(folder / "saved", **layers)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(folder / "saved")


def by_kohya_converter(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Out of diffusers into kohya's names, and back through the reader of these."""
    pipeline.load_lora_weights(convert_state_dict_to_kohya(load_file(folder / FILE)))


def by_peft_functions(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """PEFT's own functions, with nothing told but which layers and how many ranks, as the tensors' shapes say."""
    tensors = load_file(folder / FILE)
    for name in ("unet", "text_encoder"):
        part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if part:
            rank = {len(value) for key, value in part.items() if key.endswith("lora_A.weight")}
            config = LoraConfig(
                r=max(rank),
                lora_alpha=max(rank),
                target_modules=sorted({key.partition(".lora_")[0] for key in part}),
                use_dora=any("magnitude" in key for key in part),
            )
            set_peft_model_state_dict(inject_adapter_in_model(config, getattr(pipeline, name)), part)


def tokens_alone(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Nothing but what is loaded beside every format."""


def by_peft_model(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    for name in ("unet", "text_encoder"):
        if (folder / name).is_dir():
            adapted = PeftModel.from_pretrained(getattr(pipeline, name), str(folder / name))
            setattr(pipeline, name, adapted.merge_and_unload())


def by_kohya_names(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Diffusers' reader of web UIs' files."""
    if (folder / "adapter.safetensors").is_file():
        pipeline.load_lora_weights(str(folder), weight_name="adapter.safetensors")


def by_lycoris(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """LyCORIS finds a text encoder's layers by the paths of transformers 4, which began with `text_model`."""
    if (folder / "adapter.safetensors").is_file():
        as_before = nn.Module()
        as_before.text_model = pipeline.text_encoder
        with torch.no_grad():
            merge([as_before], pipeline.unet, load_file(folder / "adapter.safetensors"))


READERS: dict[str, Callable[[StableDiffusionPipeline, Path], None]] = {
    reader.__name__: reader
    for reader in (
        by_folder, by_file, by_state_dict, by_component, by_adapter_weights, in_two_halves, fused, saved_anew,
        by_kohya_converter, by_peft_functions, tokens_alone, by_peft_model, by_kohya_names, by_lycoris,
    )
}  # fmt: skip
"""On a pipeline of the base; the two others load a whole one."""


def loaded(reader: str, folder: Path, base: StableDiffusionPipeline, base_folder: str) -> StableDiffusionPipeline:
    """The pipeline that a user of the reader would have."""
    if reader == "from_pretrained":
        return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    if reader == "from_single_file":
        pipeline = StableDiffusionPipeline.from_single_file(
            folder / "model.safetensors", config=base_folder, local_files_only=True, safety_checker=None
        )
    else:
        pipeline = copy.deepcopy(base)
        READERS[reader](pipeline, folder)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")
    if tokens := [str(file) for file in (folder / "tokens").glob("*.safetensors")]:
        pipeline.load_textual_inversion(tokens)
    return pipeline


def pixels(pipeline: StableDiffusionPipeline, task: dict[str, Any], prompts: list[str]) -> Any:
    """float32[n, h, w, 3] in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompts,
        generator=[torch.Generator().manual_seed(seed) for seed in task["seeds"]],
        num_inference_steps=task["num_steps"],
        guidance_scale=task["guidance"],
        height=task["resolution_px"],
        width=task["resolution_px"],
        output_type="np",
    ).images


def main(file: Path) -> None:
    """Do every job."""
    task = json.loads(file.read_text())
    base = StableDiffusionPipeline.from_pretrained(task["base"], safety_checker=None, dtype=torch.float32)
    for job in task["jobs"]:
        try:
            pipeline = loaded(job["reader"], Path(job["folder"]), base, task["base"])
        except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
            Path(f"{job['to']}.txt").write_text(f"{type(error).__name__}: {error}")
        else:
            np.save(f"{job['to']}.npy", pixels(pipeline, task, job["prompts"]))
    versions = {name: version(name) for name in ("diffusers", "peft", "lycoris-lora", "transformers")}
    file.with_suffix(".versions").write_text(json.dumps(versions))
    imported = OURS & set(sys.modules)
    if imported:
        raise SystemExit(f"`foreign_readers.py` must not import this project, but got {sorted(imported)}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
