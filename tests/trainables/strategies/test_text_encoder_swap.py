"""Text-encoder swap: the states that the U-Net sees, what an adapter holds, and which encoders are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from batch_of import batch_of
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import BertModel, BertTokenizer, RobertaConfig, RobertaModel, RobertaTokenizer

from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels, load_base
from trainables.base_models.sd15 import sd15_on_meta
from trainables.datasets.store import PreparedDataset
from trainables.draws import EpochDraws
from trainables.exports import EXPORTS
from trainables.feeding import BatchFeeder, encode_prompts
from trainables.sampling import generate_batches
from trainables.strategies import load_adapter, make_strategy
from trainables.strategies.base import num_trainable_parameters
from trainables.strategies.text_encoder_swap import TextEncoderSwap

PROMPTS = ["Chest film with edema", "a blue ring", ""]
SAMPLING: dict[str, Any] = {"num_steps": 1, "guidance_scale": 2.0, "batch_size": 3}
UNET, BERT_BASE_WITHOUT_POOLER = 859_520_964, 108_891_648


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the mini base's width, narrower, and the first with other weights."""
    root = tmp_path_factory.mktemp("encoders")
    write_bert_layout(root / "like")
    write_bert_layout(root / "narrow", hidden_size=48)
    write_bert_layout(root / "other", seed=1)
    return {name: root / name for name in ("like", "narrow", "other")}


def swapped(base: DiffusionModels, encoder: Path, **fields: Any) -> tuple[DiffusionModels, TextEncoderSwap]:
    models, strategy = base.fresh(), TextEncoderSwap(encoder=str(encoder), **fields)
    strategy.attach(models)
    return models, strategy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["like", "narrow"])
def test_the_states_are_the_encoders_own_with_the_padding_masked(
    base: DiffusionModels, encoders: dict[str, Path], name: str
) -> None:
    models, _ = swapped(base, encoders[name])
    bert = BertModel.from_pretrained(encoders[name]).eval()
    tokenizer = BertTokenizer.from_pretrained(encoders[name])
    inputs = tokenizer(PROMPTS, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        states = bert(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state
        unmasked = bert(input_ids=inputs.input_ids).last_hidden_state
    np.testing.assert_allclose(encode_prompts(models, PROMPTS), states, atol=1e-5)
    assert (states - unmasked).abs().max() > 1e-3
    mixed, lower = (encode_prompts(models, [text]) for text in ("Chest FILM", "chest film"))
    assert np.array_equal(mixed, lower)  # its vocabulary is of lower case, as the folder says


@pytest.mark.slow
def test_a_projection_is_there_only_where_widths_differ(base: DiffusionModels, encoders: dict[str, Path]) -> None:
    like, narrow = (swapped(base, encoders[name])[0].unet for name in ("like", "narrow"))
    assert like.encoder_hid_proj is None
    assert narrow.encoder_hid_proj.weight.shape == (64, 48)
    assert num_trainable_parameters(swapped(base, encoders["narrow"])[0]) == base.unet.num_parameters() + 64 * 49
    assert base.unet.config.encoder_hid_dim is None


def test_other_parts_and_the_base_stay_as_they_are(base: DiffusionModels, encoders: dict[str, Path]) -> None:
    before, identity = base.text_encoder, base.text_hash
    models, _ = swapped(base, encoders["like"])
    assert base.text_encoder is before
    assert base.text_hash == identity != models.text_hash


@pytest.mark.slow
@pytest.mark.parametrize("train_encoder", [False, True])
def test_an_adapter_holds_the_encoder_only_where_it_trained(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path, train_encoder: bool
) -> None:
    models, strategy = swapped(base, encoders["narrow"], train_encoder=train_encoder)
    strategy.export(models, tmp_path)
    parts = {key.partition(".")[0] for key in load_file(tmp_path / "adapter.safetensors")}
    assert parts == ({"unet", "text_encoder"} if train_encoder else {"unet"})
    card = json.loads((tmp_path / "adapter.json").read_text())
    assert card["text_source"] == models.text_source
    hyperparameters = {"encoder": str(encoders["narrow"]), "train_encoder": train_encoder, "encoder_lr_ratio": 0.1}
    assert card["hyperparameters"] == hyperparameters
    groups = strategy.param_groups(models, 1e-4)
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 1e-5][: 1 + train_encoder])
    assert sum(len(group["params"]) for group in groups) == len(dict(strategy.trained(models)))


def test_an_encoder_that_has_changed_since_is_refused(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(encoders["like"], tmp_path / "encoder")
    models, strategy = swapped(base, folder)
    strategy.export(models, tmp_path / "adapter")
    card = json.loads((tmp_path / "adapter" / "adapter.json").read_text())
    card["hyperparameters"]["encoder"] = str(encoders["other"])
    (tmp_path / "adapter" / "adapter.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=f"`encoder` must have the weights and vocabulary {models.text_source}, but"):
        load_adapter(base.fresh(), tmp_path / "adapter")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_encoder_swap", "text_encoder_swap+vae"])
def test_an_adapter_is_restored_wherever_its_encoder_lies(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    moved = shutil.copytree(encoders["like"], tmp_path / "moved")
    prefix = "" if name == "text_encoder_swap" else "text_encoder_swap."
    here, there = (make_strategy(name, {f"{prefix}encoder": str(folder)}) for folder in (encoders["like"], moved))
    models = base.fresh()
    here.attach(models)
    here.export(models, tmp_path / "adapter")
    there.restore(base.fresh(), tmp_path / "adapter")
    other = make_strategy(name, {f"{prefix}encoder": str(moved), f"{prefix}encoder_lr_ratio": 0.5})
    with pytest.raises(ValueError, match=r"`hyperparameters` must be the adapter's, .*encoder_lr_ratio=0.1, but got"):
        other.restore(base.fresh(), tmp_path / "adapter")


@pytest.mark.slow
def test_the_identity_is_of_weights_and_vocabulary_wherever_they_lie(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path
) -> None:
    copied = shutil.copytree(encoders["like"], tmp_path / "copied")
    worded = shutil.copytree(encoders["like"], tmp_path / "worded")
    vocabulary = (worded / "vocab.txt").read_text().splitlines()
    (worded / "vocab.txt").write_text("\n".join([*vocabulary[:-1], "lung"]) + "\n")
    hashes = [swapped(base, folder)[0].text_hash for folder in (encoders["like"], copied, worded, encoders["other"])]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.slow
def test_a_frozen_encoder_is_not_loaded_where_its_outputs_are_cached(
    base: DiffusionModels, encoders: dict[str, Path], dataset: PreparedDataset, cache: Path
) -> None:
    data = dataset.split("train")
    states = {}
    for name in ("like", "other"):
        strategy = TextEncoderSwap(encoder=str(encoders[name]))
        models = load_base("mini", ("unet",))
        strategy.attach(models)
        assert not models.is_loaded("text_encoder")
        whole, _ = swapped(base, encoders[name])
        assert models.text_hash == whole.text_hash
        feeder = BatchFeeder(
            models=models,
            data=data,
            data_key="data",
            trained=strategy.trains,
            cache_folder=cache,
            caption_dropout=0.0,
            load=lambda part, whole=whole: whole,
        )
        batch = batch_of(feeder, np.array([0, 1]), EpochDraws(0, 0, 2))
        states[name] = batch["prompt_states"].numpy()
        np.testing.assert_allclose(states[name], encode_prompts(whole, data.prompts[:2]), atol=1e-5)
    assert np.abs(states["like"] - states["other"]).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["like", "narrow"])
def test_the_exported_pipeline_loads_in_the_engine_and_in_diffusers(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    models, strategy = swapped(base, encoders[name])
    EXPORTS["pipeline"].write(models, strategy, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["text_encoder"] == ["transformers", "BertModel"]
    assert index["tokenizer"] == ["transformers", "BertTokenizer"]
    ours = load_base(str(tmp_path))
    assert not any("pooler" in key for key in ours.text_encoder.state_dict())
    options = {"prompts": PROMPTS, "seeds": [0, 1, 2], **SAMPLING}
    np.testing.assert_allclose(
        next(generate_batches(ours, **options)), next(generate_batches(models, **options)), atol=1e-5
    )
    plain = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    assert plain.tokenizer.model_max_length == 77
    states, _ = plain.encode_prompt(PROMPTS, "cpu", 1, False)
    np.testing.assert_allclose(states.detach(), encode_prompts(models, PROMPTS), atol=1e-5)
    assert not load_base(str(tmp_path), ("unet",)).is_loaded("text_encoder")


@pytest.mark.slow
def test_a_pipeline_with_another_width_or_kind_of_encoder_is_refused(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path
) -> None:
    models, strategy = swapped(base, encoders["like"])
    EXPORTS["pipeline"].write(models, strategy, tmp_path)
    shutil.rmtree(tmp_path / "text_encoder")
    BertModel.from_pretrained(encoders["narrow"]).save_pretrained(tmp_path / "text_encoder")
    with pytest.raises(ValueError, match=r"`text_encoder` must give states 64 wide, .* but got 48"):
        load_base(str(tmp_path))
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ValueError, match="must be of type clip_text_model, bert, roberta, but got 't5'"):
        load_base(str(tmp_path))


@pytest.mark.slow
def test_roberta_works_as_well(base: DiffusionModels, tmp_path: Path) -> None:
    vocabulary = {
        token: place for place, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdehnst", "Ġ"])
    }
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=79,
    )
    torch.manual_seed(0)
    RobertaModel(config).save_pretrained(tmp_path / "encoder")
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path / "encoder")
    models, strategy = swapped(base, tmp_path / "encoder")
    EXPORTS["pipeline"].write(models, strategy, tmp_path / "pipeline")
    options = {"prompts": ["a chest", "a band"], "seeds": [0, 0], **SAMPLING}
    images = next(generate_batches(models, **options))
    np.testing.assert_allclose(
        next(generate_batches(load_base(str(tmp_path / "pipeline")), **options)), images, atol=1e-5
    )
    assert np.abs(images[0] - images[1]).max() > 1e-4


@pytest.mark.parametrize(("train_encoder", "count"), [(False, UNET), (True, UNET + BERT_BASE_WITHOUT_POOLER)])
def test_bert_base_on_stable_diffusion_is_counted_without_network(
    monkeypatch: pytest.MonkeyPatch, train_encoder: bool, count: int
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    models = sd15_on_meta()
    TextEncoderSwap(train_encoder=train_encoder).attach(models)
    assert num_trainable_parameters(models) == count


@pytest.mark.slow
def test_new_tokens_go_with_a_swapped_encoder_that_is_named_first(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path
) -> None:
    fields = {"text_encoder_swap.encoder": str(encoders["like"]), "textual_inversion.words": ["edema"]}
    strategy, models = make_strategy("text_encoder_swap+textual_inversion", fields), base.fresh()
    strategy.attach(models)
    strategy.export(models, tmp_path / "adapter")
    again = base.fresh()
    assert load_adapter(again, tmp_path / "adapter") == strategy
    assert np.array_equal(encode_prompts(models, PROMPTS), encode_prompts(again, PROMPTS))
    with pytest.raises(ValueError, match=r"`models` must have the base's own text encoder.*`text_encoder_swap` first"):
        make_strategy("textual_inversion+text_encoder_swap", fields).attach(base.fresh())


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def of_another_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.0.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def without_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


def with_more_words(folder: Path) -> None:
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "lung\n")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (only_pickle, r"`encoder` must have its weights as \*.safetensors, but got \['pytorch_model.bin'\] .* convert"),
        (of_another_kind, r"`encoder` must be a BERT-type encoder \(bert, roberta\), but got 't5' .* Try Stanford"),
        (without_a_tensor, r"`encoder` must have all weights of BertModel, but got none for \['encoder.layer.0.output"),
        (without_vocabulary, r"`encoder` must have its vocabulary \(vocab.txt, .* but got none"),
        (with_more_words, r"`encoder` must have an embedding for each of its tokenizer's 87 tokens, but got 86"),
        (without_config, r"`encoder` must have a config.json, but got none"),
    ],
)
def test_a_damaged_encoder_is_refused(
    base: DiffusionModels, encoders: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(encoders["like"], tmp_path / "encoder")
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        swapped(base, folder)


def test_an_encoder_of_shorter_texts_is_refused(base: DiffusionModels, tmp_path: Path) -> None:
    write_bert_layout(tmp_path, num_positions=76)
    with pytest.raises(ValueError, match="`encoder` must take prompts of 77 tokens, but got 76 positions"):
        swapped(base, tmp_path)


@pytest.mark.slow
def test_an_encoder_that_cannot_be_reached_is_refused(base: DiffusionModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"`encoder` 'nobody/none' could not be had from the model hub .*folder"
    ):
        swapped(base, Path("nobody/none"))
    with pytest.raises(FileNotFoundError, match=r"`encoder` must be a hub id \(owner/name\) or an existing folder"):
        swapped(base, Path("nowhere/at/all"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": ""}, "`encoder` must be a hub id or a folder, but got ''"),
        ({"train_encoder": "yes"}, "`train_encoder` must be true or false, but got 'yes'"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextEncoderSwap(**fields)


def test_models_that_are_swapped_already_are_refused(base: DiffusionModels, encoders: dict[str, Path]) -> None:
    models, strategy = swapped(base, encoders["like"])
    with pytest.raises(ValueError, match="`models` must have the base's own text encoder, but got one that is swapped"):
        strategy.attach(models)
