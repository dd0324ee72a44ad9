"""Pretrain the bundled mini base model on generated captioned colour pictures.

One command, resumable, no network and no data::

    python -m trainables.base_models.pretrain_mini --work runs/pretrain --to trainables/base_models/mini

Stages: pictures, tokenizer, autoencoder (L1 + 1e-6 KL), latents, decoder alone (L1 of pixels and of their differences),
U-Net with text encoder (epsilon prediction, EMA), export as a Stable Diffusion pipeline folder in float16. Interrupted,
the same command goes on from the last minute.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from trainables.base_models.mini_networks import (
    MAX_TOKENS,
    NOISE_SCHEDULE,
    new_autoencoder,
    new_text_encoder,
    new_unet,
    train_tokenizer,
)
from trainables.base_models.pictures import picture

SAVE_EVERY_S = 60.0


def _draw(seed: int) -> tuple[NDArray[np.uint8], str]:
    drawn = picture(seed)
    return drawn.pixels, drawn.caption


def pictures(count: int, work: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw `count` captioned pictures once; later calls map them from disk."""
    pixel_file, caption_file = work / "pictures.npy", work / "captions.json"
    if not caption_file.exists():
        with ProcessPoolExecutor() as pool:
            drawn = list(pool.map(_draw, range(count), chunksize=200))
        np.save(pixel_file, np.stack([pixels for pixels, _ in drawn]))
        caption_file.write_text(json.dumps([caption for _, caption in drawn]))
    return np.load(pixel_file, mmap_mode="r"), json.loads(caption_file.read_text())


def batches(count: int, batch_size: int, from_step: int, num_steps: int) -> Iterator[NDArray[np.int64]]:
    """Index batches of endless reshuffled epochs; resuming at a step gives the batches that step would have had.

    Args:
        count: number of pictures.
        batch_size: indices in each batch; what is left at the end of an epoch is left out.
        from_step: 0-based step to begin with.
        num_steps: steps of the whole stage.
    """
    per_epoch = count // batch_size
    for step in range(from_step, num_steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == from_step:
            order = np.random.default_rng(epoch).permutation(count)
        yield order[place * batch_size : (place + 1) * batch_size]


def to_model_range(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """`uint8[n, h, w, 3]` to `float32[n, 3, h, w]` in -1 to 1."""
    return torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0


class Stage:
    """One resumable optimisation: model, AdamW, warm-up then cosine, a checkpoint every minute and a progress bar."""

    def __init__(self, name: str, model: nn.Module, *, work: Path, num_steps: int, lr: float) -> None:
        self.name, self.model, self.num_steps = name, model, num_steps
        self.file = work / f"{name}.pt"
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
        self.lr_schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.ema = {key: value.detach().clone() for key, value in model.state_dict().items()}
        self.step, self._saved_s = 0, time.monotonic()
        self._resume()

    def _lr_factor(self, step: int) -> float:
        progress = min(1.0, step / self.num_steps)
        return float(min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress))))

    def _resume(self) -> None:
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_schedule.load_state_dict(state["lr_schedule"])
            self.ema, self.step = state["ema"], state["step"]

    def save(self) -> None:
        """Write the resumable state atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "ema": self.ema,
            "step": self.step,
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)
        self._saved_s = time.monotonic()

    def advance(self, loss: Tensor) -> None:
        """One optimiser step; the EMA's memory grows with the step up to 0.999."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.lr_schedule.step()
        self.step += 1
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        for key, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[key].lerp_(value.detach(), 1 - decay)
        if time.monotonic() - self._saved_s > SAVE_EVERY_S:
            self.save()

    def finish(self) -> None:
        """Leave the averaged weights in the model."""
        self.save()
        self.model.load_state_dict(self.ema)
        self.model.eval().requires_grad_(False)


def _progress() -> Progress:
    return Progress(
        *Progress.get_default_columns()[:2],
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        refresh_per_second=1,
    )


def train_autoencoder(images: NDArray[np.uint8], *, work: Path, num_steps: int, device: torch.device) -> AutoencoderKL:
    """L1 reconstruction with a faint KL term, batches of 32, random mirror images.

    Args:
        images: uint8[n, size, size, 3].
        work: folder with the checkpoints of each stage.
        num_steps: optimiser steps of the whole stage.
        device: where to compute.
    """
    torch.manual_seed(0)
    model = new_autoencoder().to(device)
    stage = Stage("autoencoder", model, work=work, num_steps=num_steps, lr=5e-4)
    with _progress() as progress:
        bar = progress.add_task("autoencoder", total=num_steps, completed=stage.step, note="")
        for rows in batches(len(images), 32, stage.step, num_steps):
            target = to_model_range(images[np.sort(rows)], device)
            posterior = model.encode(target).latent_dist
            rebuilt = model.decode(posterior.sample()).sample
            l1 = F.l1_loss(rebuilt, target)
            stage.advance(l1 + 1e-6 * posterior.kl().mean())
            progress.update(bar, completed=stage.step, note=f"L1 {l1.item():.4f}")
    stage.finish()
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, images: NDArray[np.uint8], work: Path, device: torch.device) -> Tensor:
    """Moments of every picture, `float16[n, 8, 16, 16]`; sets the model's scaling factor to one over the latents' deviation.

    Args:
        model: the trained autoencoder.
        images: uint8[n, size, size, 3].
        work: folder that keeps the moments.
        device: where to compute.
    """
    file = work / "moments.pt"
    if not file.exists():
        parts = [
            model._encode(to_model_range(images[i : i + 256], device)).half().cpu() for i in range(0, len(images), 256)
        ]
        torch.save(torch.cat(parts), file)
    moments: Tensor = torch.load(file, weights_only=True)
    mean, log_variance = moments[:4000].float().chunk(2, dim=1)
    deviation = (mean.var() + log_variance.exp().mean()).sqrt()
    model.register_to_config(scaling_factor=round(1.0 / deviation.item(), 5))
    return moments


def sharpen_decoder(
    model: AutoencoderKL,
    images: NDArray[np.uint8],
    moments: Tensor,
    *,
    work: Path,
    num_steps: int,
    device: torch.device,
) -> None:
    """Train the decoder on, with an edge term against blur; latents, and so the U-Net's task, stay as they are.

    Args:
        model: the trained autoencoder, changed in place.
        images: uint8[n, size, size, 3].
        moments: float16[n, 8, 16, 16], as `encode` gives them.
        work: folder with the checkpoints of each stage.
        num_steps: optimiser steps of the whole stage.
        device: where to compute.
    """
    torch.manual_seed(2)
    decoder = nn.ModuleList([model.post_quant_conv, model.decoder]).to(device).requires_grad_(True).train()
    stage = Stage("decoder", decoder, work=work, num_steps=num_steps, lr=4e-4)
    with _progress() as progress:
        bar = progress.add_task("decoder", total=num_steps, completed=stage.step, note="")
        for rows in batches(len(images), 32, stage.step, num_steps):
            target = to_model_range(images[np.sort(rows)], device)
            mean, log_variance = moments[np.sort(rows)].float().to(device).chunk(2, dim=1)
            rebuilt = model.decode(mean + torch.randn_like(mean) * (0.5 * log_variance).exp()).sample
            loss = F.l1_loss(rebuilt, target) + sum(
                F.l1_loss(rebuilt.diff(dim=side), target.diff(dim=side)) for side in (2, 3)
            )
            stage.advance(loss)
            progress.update(bar, completed=stage.step, note=f"loss {loss.item():.4f}")
    stage.finish()


class TextToImage(nn.Module):
    """U-Net and text encoder trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.noise_scheduler = DDPMScheduler(**NOISE_SCHEDULE)

    def forward(self, latents: Tensor, token_ids: Tensor) -> Tensor:
        """Mean squared error of the predicted noise at random timesteps."""
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=latents.device)
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        states = self.text_encoder(token_ids).last_hidden_state
        return F.mse_loss(self.unet(noisy, timesteps, encoder_hidden_states=states).sample, noise)


def train_text_to_image(
    moments: Tensor,
    token_ids: Tensor,
    *,
    tokenizer: CLIPTokenizer,
    scaling: float,
    work: Path,
    num_steps: int,
    device: torch.device,
) -> TextToImage:
    """Batches of 64 sampled latents, one caption in ten empty.

    Args:
        moments: float16[n, 8, 16, 16], as `encode` gives them.
        token_ids: int64[n, t], captions.
        tokenizer: that made them.
        scaling: what latents are multiplied by.
        work: folder with the checkpoints of each stage.
        num_steps: optimiser steps of the whole stage.
        device: where to compute.
    """
    torch.manual_seed(1)
    model = TextToImage(new_unet(), new_text_encoder(tokenizer)).to(device)
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=MAX_TOKENS)["input_ids"])
    stage = Stage("text_to_image", model, work=work, num_steps=num_steps, lr=1e-3)
    with _progress() as progress:
        bar = progress.add_task("U-Net and text encoder", total=num_steps, completed=stage.step, note="")
        for rows in batches(len(moments), 64, stage.step, num_steps):
            mean, log_variance = moments[rows].float().to(device).chunk(2, dim=1)
            latents = scaling * (mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
            captions = torch.where(torch.rand(len(rows), 1) < 0.1, empty, token_ids[rows]).to(device)
            loss = model(latents, captions)
            stage.advance(loss)
            progress.update(bar, completed=stage.step, note=f"noise MSE {loss.item():.4f}")
    stage.finish()
    return model


def export(vae: AutoencoderKL, model: TextToImage, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a pipeline folder of Stable Diffusion 1.5's layout in float16.

    Args:
        vae: the trained autoencoder.
        model: the trained U-Net and text encoder.
        tokenizer: that they were trained with.
        folder: to write.
    """
    noise_scheduler = PNDMScheduler(**NOISE_SCHEDULE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=noise_scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)


def main(
    work: Annotated[Path, typer.Option(help="Where pictures and checkpoints are kept.")] = Path("runs/pretrain"),
    to: Annotated[Path, typer.Option(help="The pipeline folder to write.")] = Path("trainables/base_models/mini"),
    num_pictures: Annotated[int, typer.Option(min=64, help="Pictures to draw.")] = 30_000,
    autoencoder_steps: Annotated[int, typer.Option(min=1, help="Steps of the autoencoder.")] = 2_500,
    decoder_steps: Annotated[int, typer.Option(min=1, help="Steps of the decoder alone.")] = 1_500,
    unet_steps: Annotated[int, typer.Option(min=1, help="Steps of U-Net and text encoder.")] = 2_000,
) -> None:
    """Pretrain the mini base model.

    Example: python -m trainables.base_models.pretrain_mini --work runs/pretrain
    """
    work.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, captions = pictures(num_pictures, work)
    tokenizer = train_tokenizer(captions, work / "tokenizer")
    vae = train_autoencoder(images, work=work, num_steps=autoencoder_steps, device=device)
    moments = encode(vae, images, work, device)
    sharpen_decoder(vae, images, moments, work=work, num_steps=decoder_steps, device=device)
    token_ids = torch.tensor(
        tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)["input_ids"]
    )
    model = train_text_to_image(
        moments,
        token_ids,
        tokenizer=tokenizer,
        scaling=vae.config.scaling_factor,
        work=work,
        num_steps=unet_steps,
        device=device,
    )
    export(vae, model, tokenizer, to)


if __name__ == "__main__":
    typer.run(main)
