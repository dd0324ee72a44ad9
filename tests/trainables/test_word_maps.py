"""Maps of words: planted ones are found, diffusers' own explicit attention gives the same, and films keep their bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from torch.nn import functional

from trainables.base_models.models import DiffusionModels, load_base
from trainables.sampling import generate
from trainables.strategies import make_strategy
from trainables.word_maps import (
    AttentionRecorder,
    MappedFilms,
    attention_paid,
    common_words,
    mapped_batches,
    phrase_tokens,
)

PROMPTS = ["Chest X-ray of a subject with lung opacity", "Chest X-ray of a subject with edema"]
PHRASES = [["Lung Opacity", "Chest"], ["Edema", "mass"]]


@pytest.fixture(scope="module")
def models() -> DiffusionModels:
    return load_base("mini")


def mapped(models: DiffusionModels, *, guidance_scale: float = 3.0, batch_size: int = 2) -> MappedFilms:
    options = {"num_steps": 2, "guidance_scale": guidance_scale, "batch_size": batch_size}
    batches = list(mapped_batches(models, PROMPTS, [5, 6], PHRASES, **options))
    return MappedFilms(
        films=np.concatenate([batch.films for batch in batches]), maps=np.concatenate([batch.maps for batch in batches])
    )


class Planted(nn.Module):
    """One layer of cross-attention in which the left half of a 4 x 4 grid looks for one token, the right for another."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(query_dim=2, cross_attention_dim=2, heads=1, dim_head=2, bias=False)
        for layer in (self.attention.to_q, self.attention.to_k):
            layer.weight = nn.Parameter(torch.eye(2), requires_grad=False)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        return self.attention(pixels, encoder_hidden_states=tokens)


def test_a_planted_map_is_found_and_the_half_without_the_prompt_left_out() -> None:
    left = torch.arange(16) % 4 < 2
    pixels = torch.stack([torch.where(left, 3.0, 0.0), torch.where(left, 0.0, 3.0)], dim=-1)[None]
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    planted = Planted()
    with AttentionRecorder(planted, side=4, is_guided=True) as recorder, torch.no_grad():
        planted(torch.cat([-pixels, pixels]), torch.cat([torch.zeros_like(tokens), tokens]))
        planted(torch.cat([-pixels, pixels]), torch.cat([torch.zeros_like(tokens), tokens]))  # a second step
        paid = recorder.take()
    wanted, other = np.exp([6 / 2**0.5, 0.0]) / (np.exp(6 / 2**0.5) + 2)
    expected = np.where(left.reshape(4, 4), wanted, other)
    assert paid.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(paid[0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(paid[0, 1], expected[:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(paid.sum(dim=1), 1.0, rtol=1e-5)


def test_what_is_paid_is_the_explicit_softmax() -> None:
    query, key = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    paid = attention_paid(query, key[:5], heads=2)
    for pixel in range(9):
        shares = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = np.exp([float(query[pixel, head] @ key[token, head]) / 2 for token in range(5)])
            shares.append(scores / scores.sum())
        np.testing.assert_allclose(paid[:, pixel], np.mean(shares, axis=0), rtol=1e-5)


class Explicit(AttnProcessor):
    """Diffusers' attention with an explicit softmax, which is kept: batch, heads, pixels, tokens."""

    def __init__(self, kept: list[Tensor]) -> None:
        self.kept = kept

    def __call__(self, attn: Attention, *args: Tensor, **options: Tensor) -> Tensor:
        compute = attn.get_attention_scores

        def keeping(*given: Tensor) -> Tensor:
            scores = compute(*given)
            if attn.is_cross_attention:
                self.kept.append(scores.unflatten(0, (-1, attn.heads)))
            return scores

        attn.get_attention_scores = keeping
        try:
            return super().__call__(attn, *args, **options)
        finally:
            del attn.get_attention_scores


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_maps_are_those_of_diffusers_explicit_attention(models: DiffusionModels, guidance_scale: float) -> None:
    kept: list[Tensor] = []
    explicit = models.sharing()
    explicit.unet.set_attn_processor(Explicit(kept))
    generate(explicit, PROMPTS, [5, 6], num_steps=2, guidance_scale=guidance_scale, batch_size=2)
    size = {"size": (16, 16), "mode": "bicubic"}
    sides = [int(paid_layer.shape[2] ** 0.5) for paid_layer in kept]
    assert set(sides) == {4, 8}
    layers = [
        functional.interpolate(paid_layer[-2:].mean(dim=1).transpose(1, 2).unflatten(-1, (side, side)), **size)
        for paid_layer, side in zip(kept, sides, strict=True)
    ]
    paid = torch.stack(layers).mean(dim=0).clamp(min=0)
    words = models.tokenizer(PROMPTS[0].lower()).input_ids
    opacity = models.tokenizer("lung opacity", add_special_tokens=False).input_ids
    first = next(at for at in range(len(words)) if words[at : at + len(opacity)] == opacity)
    maps = mapped(models, guidance_scale=guidance_scale).maps
    np.testing.assert_allclose(maps[0, 0], paid[0, first : first + len(opacity)].sum(dim=0), atol=1e-6)
    assert maps[0, 0].max() > maps[0, 0].min() > 0


def test_films_with_maps_have_the_bits_of_those_without(models: DiffusionModels) -> None:
    films = generate(models, PROMPTS, [5, 6], num_steps=2, guidance_scale=3.0, batch_size=2)
    assert np.array_equal(mapped(models).films, films)
    assert not any(module._forward_hooks for module in models.unet.modules())


def test_maps_do_not_depend_on_the_batch_and_lacking_words_have_none(models: DiffusionModels) -> None:
    together, alone = mapped(models).maps, mapped(models, batch_size=1).maps
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together[1, 1].max() == 0 and together[1, 0].min() > 0


def test_where_keys_are_all_alike_each_token_gets_its_share_everywhere(models: DiffusionModels) -> None:
    plain = models.fresh()
    for name, parameter in plain.unet.named_parameters():
        if name.endswith("attn2.to_k.weight"):
            parameter.data.zero_()
    tokens = len(phrase_tokens(models, *PROMPTS[:1], "Lung Opacity"))
    np.testing.assert_allclose(mapped(plain).maps[0, 0], tokens / models.tokenizer.model_max_length, rtol=1e-4)


def test_tokens_of_a_phrase_are_found_whatever_stands_for_it(models: DiffusionModels) -> None:
    ids = models.tokenizer(PROMPTS[0]).input_ids
    for phrase in ("X-ray", "lung opacity", "subject"):
        places = phrase_tokens(models, PROMPTS[0], phrase)
        ids_of_phrase = models.tokenizer(phrase, add_special_tokens=False).input_ids
        assert [ids[place] for place in places] == ids_of_phrase and 0 not in places
    assert phrase_tokens(models, PROMPTS[0], "ray of the sun") == phrase_tokens(models, PROMPTS[0], "ung") == []
    assert phrase_tokens(models, " ".join(["film"] * 90) + " edema", "edema") == []
    inverted = models.fresh()
    make_strategy("textual_inversion", {"words": ["edema"], "num_vectors": 3}).attach(inverted)
    places = phrase_tokens(inverted, PROMPTS[1], "Edema")
    assert places == [*range(places[0], places[0] + 3)]
    assert phrase_tokens(inverted, PROMPTS[1], "subject") == phrase_tokens(models, PROMPTS[1], "subject")


def test_common_words_are_those_of_all_prompts() -> None:
    assert common_words(PROMPTS) == ("Chest", "X-ray", "of", "a", "subject", "with")
    assert common_words(["a b a", "B c"]) == ("b",) and common_words([]) == ()
