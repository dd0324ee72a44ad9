"""Where the words of a prompt act on a film: the cross-attention that was paid to their tokens while it was sampled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from types import TracebackType
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainables.base_models.models import DiffusionModels
from trainables.feeding import spelled_out
from trainables.sampling import generate_batches, to_uint8


@dataclass(frozen=True, kw_only=True, eq=False)
class MappedFilms:
    """Films, and where phrases of their prompts acted on them.

    Attributes:
        films: uint8[n, H, W, 3], to the bit those that are sampled without maps.
        maps: float32[n, phrases, h, w] in [0, 1] on the grid of the latents, the mean share of a pixel's attention that the
            phrase's tokens had; 0 everywhere where the prompt does not have the phrase.
    """

    films: NDArray[np.uint8]
    maps: NDArray[np.float32]


class AttentionRecorder:
    """The mean cross-attention of a U-Net over heads, layers and steps, while it samples inside a `with`.

    Hooks read the queries and keys that the layers compute, whatever a strategy has put in their place, and change nothing.

    Args:
        unet: whose layers are listened to.
        side: of the grid of the latents, to which coarser layers are brought by bicubic interpolation.
        is_guided: the first half of each batch is without the prompt, and is left out.

    Source: Tang et al. 2023, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", section 2.2; there sums
    over layers and steps, here means, which differ by a factor; and here with the middle block's layer, which the authors'
    code leaves out.
    """

    def __init__(self, unet: nn.Module, *, side: int, is_guided: bool) -> None:
        self._layers = [
            module for module in unet.modules() if isinstance(module, Attention) and module.is_cross_attention
        ]
        self._side, self._is_guided = side, is_guided
        self._hooks: list[Any] = []
        self._queries: dict[int, Tensor] = {}
        self._sums: dict[int, Tensor] = {}
        self._count = 0

    def __enter__(self) -> AttentionRecorder:
        for number, layer in enumerate(self._layers):
            self._hooks.append(layer.to_q.register_forward_hook(partial(self._keep_query, number)))
            self._hooks.append(layer.to_k.register_forward_hook(partial(self._add, number)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> Tensor:
        """The mean since the last call, float32[n, tokens, side, side] in [0, 1]; 1 over all tokens but for interpolation."""
        size = (self._side, self._side)
        sums = [functional.interpolate(each, size=size, mode="bicubic") for each in self._sums.values()]
        mean = (torch.stack(sums).sum(dim=0) / self._count).clamp(min=0.0)
        self._sums, self._count = {}, 0
        return mean

    def _keep_query(self, number: int, module: nn.Module, given: Any, query: Tensor) -> None:
        self._queries[number] = query

    def _add(self, number: int, module: nn.Module, given: Any, key: Tensor) -> None:
        """A layer's attention in a step; each film by itself, as all together would not fit beside what samples."""
        query, heads = self._queries.pop(number), self._layers[number].heads
        start = len(query) // 2 if self._is_guided else 0
        paid = torch.stack([attention_paid(*each, heads) for each in zip(query[start:], key[start:], strict=True)])
        side = isqrt(paid.shape[-1])
        paid = paid.reshape(*paid.shape[:2], side, side)
        self._sums[side] = self._sums[side] + paid if side in self._sums else paid
        self._count += 1


def attention_paid(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """What each pixel pays to each token, the mean over heads.

    Args:
        query: float[pixels, heads * width].
        key: float[tokens, heads * width].
        heads: the number of heads.

    Returns:
        float32[tokens, pixels] in [0, 1], 1 over all tokens.
    """
    asked, offered = (each.float().reshape(len(each), heads, -1).transpose(0, 1) for each in (query, key))
    scores = asked @ offered.transpose(1, 2) * asked.shape[-1] ** -0.5
    shares: Tensor = scores.softmax(dim=-1).mean(dim=0)
    return shares.T


def phrase_tokens(models: DiffusionModels, prompt: str, phrase: str) -> list[int]:
    """Where the tokens of a phrase stand among those of a prompt; empty where it is not there, or is cut off.

    Of several occurrences the first counts. Marks at the ends and padding are no words, and never among them.

    Args:
        models: their tokenizer splits the prompt.
        prompt: as a user writes it.
        phrase: one word or several, in any case.
    """
    text, part = spelled_out(models, prompt), spelled_out(models, phrase)
    match = re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text, re.IGNORECASE)
    if match is None or not part:
        return []
    length = models.tokenizer.model_max_length
    spans = models.tokenizer(text, truncation=True, max_length=length, return_offsets_mapping=True).offset_mapping
    return [place for place, (start, end) in enumerate(spans) if match.start() < end and start < match.end()]


def common_words(prompts: Sequence[str]) -> tuple[str, ...]:
    """The words that all prompts have, each once, in the order of the first prompt."""
    vocabularies = [{word.lower() for word in words_in(prompt)} for prompt in prompts]
    words = {word.lower(): word for word in words_in(prompts[0])} if vocabularies else {}
    return tuple(word for key, word in words.items() if all(key in vocabulary for vocabulary in vocabularies))


def words_in(prompt: str) -> list[str]:
    """The words of a prompt in their order, `X-ray` as one."""
    return re.findall(r"\w+(?:-\w+)*", prompt)


def mapped_batches(
    models: DiffusionModels,
    prompts: Sequence[str],
    seeds: Sequence[int],
    phrases: Sequence[Sequence[str]],
    *,
    num_steps: int,
    guidance_scale: float,
    batch_size: int,
) -> Iterator[MappedFilms]:
    """The films of `generate_batches` with the maps of phrases, a batch at a time.

    Args:
        models: what to sample from, on its device and in its numerics.
        prompts: one prompt a film.
        seeds: one seed a film.
        phrases: of each film, equally many of all.
        num_steps: steps of the solver, at least 1.
        guidance_scale: weight of classifier-free guidance; what is sampled without the prompt has no part in the maps.
        batch_size: films at a time.

    Raises:
        ValueError: as `generate_batches`.
    """
    side = int(models.unet.config.sample_size)
    settings: dict[str, Any] = {"num_steps": num_steps, "guidance_scale": guidance_scale, "batch_size": batch_size}
    with AttentionRecorder(models.unet, side=side, is_guided=guidance_scale > 1) as recorder:
        start = 0
        for films in generate_batches(models, prompts, seeds, **settings):
            paid = recorder.take()
            maps = [
                torch.stack(
                    [each[phrase_tokens(models, prompts[place], phrase)].sum(dim=0) for phrase in phrases[place]]
                )
                for place, each in enumerate(paid, start)
            ]
            start += len(films)
            yield MappedFilms(films=to_uint8(films).cpu().numpy(), maps=torch.stack(maps).clamp(max=1.0).cpu().numpy())
