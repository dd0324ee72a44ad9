"""Textual inversion: what new tokens start as, what trains, and where prompts take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn

from trainables.base_models.models import DiffusionModels, load_base
from trainables.base_models.sd15 import sd15_on_meta
from trainables.exports import EXPORTS
from trainables.feeding import encode_prompts, tokenize
from trainables.sampling import generate_batches
from trainables.strategies import load_adapter, make_strategy
from trainables.strategies.base import num_trainable_parameters, trained_parameters
from trainables.strategies.card import read_card
from trainables.strategies.textual_inversion import ExtendedEmbedding, TextualInversion, token_vectors

FILM = "Chest X-ray of a subject with edema and pleural effusion"


def attached(base: DiffusionModels, **fields: Any) -> tuple[DiffusionModels, TextualInversion]:
    models, strategy = base.fresh(), TextualInversion(**fields)
    strategy.attach(models)
    return models, strategy


def set_rows(models: DiffusionModels, seed: int = 0) -> None:
    """Rows that have moved, as after training."""
    ((_, rows),) = trained_parameters(models)
    with torch.no_grad():
        rows.add_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed)))


def test_an_extended_table_is_a_lookup_in_both_tables_put_together() -> None:
    base, rows = nn.Embedding(5, 3), torch.randn(2, 3)
    layer, ids = ExtendedEmbedding(base, rows, offset=5), torch.tensor([[0, 4, 5], [6, 5, 2]])
    assert torch.equal(layer(ids), torch.cat((base.weight, rows))[ids])
    assert torch.equal(layer.folded().weight, torch.cat((base.weight, rows)))
    layer(ids).sum().backward()
    # id 5 is there twice, id 6 once
    assert torch.equal(layer.rows.grad, torch.tensor([[2.0] * 3, [1.0] * 3]))


def test_rows_beyond_the_tokenizers_vocabulary_give_way() -> None:
    layer = ExtendedEmbedding(nn.Embedding(8, 3), torch.randn(2, 3), offset=5)
    folded, ids = layer.folded(), torch.arange(7)
    assert folded.num_embeddings == 7
    assert torch.equal(folded(ids), layer(ids))


def test_each_condition_gets_a_token_of_the_base_words_mean(base: DiffusionModels) -> None:
    models, _ = attached(base)
    assert models.placeholders["pleural effusion"] == "<pleural-effusion>"
    assert len(models.tokenizer) == len(base.tokenizer) + 6
    ids = base.tokenizer("pleural effusion", add_special_tokens=False).input_ids
    assert len(ids) > 1
    start = base.text_encoder.get_input_embeddings().weight[ids].mean(0)
    assert torch.equal(token_vectors(models)["<pleural-effusion>"][0], start)


def test_all_tokens_start_as_the_word_that_is_given(base: DiffusionModels) -> None:
    models, _ = attached(base, words=("edema", "chest film"), initial_word="red", num_vectors=2)
    (red,) = base.tokenizer("red", add_special_tokens=False).input_ids
    ((_, rows),) = trained_parameters(models)
    assert torch.equal(rows, base.text_encoder.get_input_embeddings().weight[red].expand(4, -1))


def test_a_word_of_one_token_changes_nothing_before_training(base: DiffusionModels) -> None:
    models, _ = attached(base, words=("edema",))
    np.testing.assert_allclose(encode_prompts(models, [FILM]), encode_prompts(base, [FILM]), atol=1e-6)
    assert not torch.equal(tokenize(models, [FILM]), tokenize(base, [FILM]))


def test_only_prompts_with_the_words_change(base: DiffusionModels) -> None:
    models, _ = attached(base)
    set_rows(models)
    others = ["a red circle", "", "a chest film"]
    assert np.array_equal(encode_prompts(models, others), encode_prompts(base, others))
    assert np.abs(encode_prompts(models, [FILM]) - encode_prompts(base, [FILM])).max() > 1e-2


def test_the_shared_tokenizer_and_the_base_stay_as_they_are(base: DiffusionModels) -> None:
    size = len(base.tokenizer)
    models, strategy = attached(base)
    strategy.merged(models)
    assert len(base.tokenizer) == size == base.text_encoder.config.vocab_size
    assert not base.placeholders
    assert base.text_encoder.get_input_embeddings().num_embeddings == size
    assert models.text_encoder.config.vocab_size == models.text_encoder.get_input_embeddings().num_embeddings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "spelled"),
    [
        ("Edema", "<edema>"),
        ("with edema, and a pleural effusion", "with <edema>, and a <pleural-effusion>"),
        ("with <edema> and <pleural-effusion>", "with <edema> and <pleural-effusion>"),
        ("edematous", "edematous"),
        ("Pleural effusion or effusion", "<pleural-effusion> or <effusion>"),
        ("a film (PA), no edema (mild).", "a film (PA), no <edema-mild>."),
        ("subedema", "subedema"),
        ("edema_2 and edema (mild)2", "edema_2 and <edema> (mild)2"),
    ],
)
def test_words_are_replaced_wherever_they_stand_and_tokens_stay(
    base: DiffusionModels, prompt: str, spelled: str
) -> None:
    models, _ = attached(base, words=["effusion", "edema", "edema (mild)", "pleural effusion"], initial_word="red")
    assert models.spelled(prompt) == spelled == models.spelled(spelled)


def test_a_token_of_several_vectors_takes_as_many_places(base: DiffusionModels) -> None:
    models, _ = attached(base, words=("edema",), num_vectors=3)
    first = len(base.tokenizer)
    ids = tokenize(models, ["edema", "<edema>"])
    assert ids[0, 1:4].tolist() == [first, first + 1, first + 2]
    assert torch.equal(ids[0], ids[1])


def test_no_weight_decay_pulls_the_rows(base: DiffusionModels) -> None:
    models, strategy = attached(base)
    ((_, rows),) = trained_parameters(models)
    before = rows.detach().clone()
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2), weight_decay=0.5)
    rows.grad = torch.zeros_like(rows)
    optimizer.step()
    assert torch.equal(rows, before)


@pytest.mark.slow
def test_stable_diffusion_trains_768_numbers_for_each_vector() -> None:
    models, _ = attached(sd15_on_meta(), num_vectors=2)
    assert num_trainable_parameters(models) == 6 * 2 * 768


@pytest.mark.slow
def test_an_exported_pipeline_knows_tokens_and_words_in_any_program(base: DiffusionModels, tmp_path: Path) -> None:
    models, strategy = attached(base, num_vectors=2)
    set_rows(models)
    EXPORTS["pipeline"].write(models, strategy, tmp_path)
    ours, theirs = load_base(str(tmp_path)), StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    assert ours.placeholders == models.placeholders
    options: dict[str, Any] = {"num_steps": 1, "guidance_scale": 1.0, "batch_size": 2}
    written, spelled = next(generate_batches(ours, [FILM, models.spelled(FILM)], [1, 1], **options))
    np.testing.assert_allclose(written, spelled, atol=1e-5)
    np.testing.assert_allclose(written, next(generate_batches(models, [FILM], [1], **options))[0], atol=1e-4)
    states, _ = theirs.encode_prompt(models.spelled(FILM), "cpu", 1, False)
    np.testing.assert_allclose(states.detach(), encode_prompts(models, [FILM]), atol=1e-5)


@pytest.mark.slow
def test_the_exported_pipeline_refuses_the_same_words_again(base: DiffusionModels, tmp_path: Path) -> None:
    models, strategy = attached(base)
    EXPORTS["pipeline"].write(models, strategy, tmp_path)
    again = load_base(str(tmp_path))
    with pytest.raises(ValueError, match=r"`words` must get tokens that the tokenizer has not yet, but got \['<card"):
        TextualInversion().attach(again)
    TextualInversion(words=("film",)).attach(again)
    assert again.spelled("a film with edema") == "a <film> with <edema>"


def test_diffusers_files_are_one_for_each_token(base: DiffusionModels, tmp_path: Path) -> None:
    models, strategy = attached(base, words=("edema", "pleural effusion"), num_vectors=2)
    set_rows(models)
    EXPORTS["diffusers"].write(models, strategy, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokens", "scheduler"}
    ((_, rows),) = trained_parameters(models)
    assert torch.equal(load_file(tmp_path / "tokens" / "edema.safetensors")["<edema>"], rows[:2])
    assert torch.equal(load_file(tmp_path / "tokens" / "pleural-effusion.safetensors")["<pleural-effusion>"], rows[2:])


def test_a_card_from_json_gives_the_same_strategy() -> None:
    strategy = TextualInversion(words=("edema", "chest film"))
    assert make_strategy("textual_inversion", json.loads(json.dumps(strategy.hyperparameters()))) == strategy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"words": "edema"}, "`words` must be a list of phrases, .* but got 'edema'. Try"),
        ({"words": ("edema", "Edema")}, "`words` must be .* all different, but got"),
        ({"words": ("lung opacity", "lung-opacity")}, "`words` must be .* all different, but got"),
        ({"words": ("?",)}, r"`words` must be .* with letters or digits .* but got \('\?',\)"),
        ({"initial_word": 3}, "`initial_word` must be a word, but got 3"),
        ({"num_vectors": 0}, "`num_vectors` must be a whole number, at least 1, but got 0"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextualInversion(**fields)


def test_without_words_the_conditions_of_the_data_are_the_words(base: DiffusionModels, tmp_path: Path) -> None:
    conditions = ("Infiltration", "Pleural Thickening")
    strategy = TextualInversion(initial_word="red").for_conditions(conditions)
    assert strategy.words == ("infiltration", "pleural thickening")
    assert TextualInversion(words=("mass",)).for_conditions(conditions).words == ("mass",)
    together = make_strategy("lora+textual_inversion", {}).for_conditions(conditions)
    assert together.hyperparameters()["textual_inversion.words"] == strategy.words
    models = base.fresh()
    strategy.attach(models)
    strategy.export(models, tmp_path)
    assert read_card(tmp_path)["hyperparameters"]["words"] == list(strategy.words)
    assert load_adapter(base.fresh(), tmp_path) == strategy


def test_a_card_names_the_words_also_where_no_data_gave_them(base: DiffusionModels, tmp_path: Path) -> None:
    models, strategy = attached(base)
    strategy.export(models, tmp_path)
    assert read_card(tmp_path)["hyperparameters"]["words"] == list(models.placeholders)
    strategy.restore(base.fresh(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "captions", "message"),
    [
        (
            {"words": ("edema", "nodule")},
            [FILM],
            r"`words` must .* but got \['nodule'\].* conditions are Edema, Mass\.",
        ),
        ({"words": ("effusion", "pleural effusion")}, [FILM, "edema"], r"`words` must each occur .* \['effusion'\]"),
        ({"words": ("edema",)}, ["edematous"], r"`words` must each occur"),
        (
            {"words": ("edema",), "num_vectors": 75},
            ["with edema"],
            "`num_vectors` must .* 77 .* got 75, of which 7[0-4] fit",
        ),
    ],
)
def test_captions_that_leave_a_token_untrained_are_refused(
    base: DiffusionModels, fields: dict[str, Any], captions: list[str], message: str
) -> None:
    models, strategy = attached(base, initial_word="red", **fields)
    with pytest.raises(ValueError, match=message):
        strategy.expect_captions(models, tokenize(models, captions), ("Edema", "Mass"))
    together = make_strategy(
        "lora+textual_inversion", {f"textual_inversion.{key}": value for key, value in fields.items()}
    )
    with pytest.raises(ValueError, match=message):
        together.expect_captions(models, tokenize(models, captions), ("Edema", "Mass"))


def test_captions_that_each_have_some_of_the_words_are_taken(base: DiffusionModels) -> None:
    models, strategy = attached(base, words=("edema", "pleural effusion"), num_vectors=70)
    strategy.expect_captions(models, tokenize(models, ["Edema", "pleural effusion", "a film"]), ())


def test_more_vectors_than_the_tokenizer_takes_are_refused(base: DiffusionModels) -> None:
    attached(base, num_vectors=75)
    with pytest.raises(ValueError, match=r"`num_vectors` must be at most the 75 tokens .* but got 76. Try"):
        attached(base, num_vectors=76)


def test_models_with_new_tokens_are_refused(base: DiffusionModels) -> None:
    models, strategy = attached(base)
    with pytest.raises(ValueError, match="`models` must be a base without new tokens, but got one that is adapted"):
        strategy.attach(models)


def test_a_start_that_the_base_does_not_know_is_refused(base: DiffusionModels) -> None:
    with pytest.raises(ValueError, match="`initial_word` must be in the base's vocabulary, but got ' '"):
        attached(base, initial_word=" ")


def test_a_tokenizer_larger_than_the_table_is_refused(base: DiffusionModels) -> None:
    models, _ = attached(base)
    models.text_encoder = base.fresh().text_encoder
    with pytest.raises(ValueError, match=r"`tokenizer` must have at most the 703 tokens of the .* but got 709"):
        TextualInversion(words=("film",)).attach(models)
