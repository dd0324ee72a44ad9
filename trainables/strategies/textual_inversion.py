"""Textual inversion: new tokens for phrases of the prompts, of which only the embeddings train."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.base_models.models import DiffusionModels
from trainables.datasets.base import CONDITIONS
from trainables.naming import expect
from trainables.strategies.base import Strategy
from trainables.strategies.low_rank import expect_rank


class ExtendedEmbedding(nn.Module):
    """A frozen embedding table and trained rows for the token ids that follow it.

    The two stay apart, so that the table takes no gradient and no optimiser memory.

    Args:
        base: the table of the tokens that were there before; it stays as it is.
        rows: float32[n, d], what the new rows start at.
        offset: the id of the first new token, at most the table's length.
    """

    def __init__(self, base: nn.Embedding, rows: Tensor, offset: int) -> None:
        super().__init__()
        self.base, self.offset = base, offset
        self.rows = nn.Parameter(rows.detach().float())

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings float[..., d] of token ids int64[...], in the table's dtype."""
        known: Tensor = self.base(ids.clamp(max=self.offset - 1))
        new = functional.embedding((ids - self.offset).clamp(min=0), self.rows)
        return torch.where((ids >= self.offset)[..., None], new.to(known.dtype), known)

    @torch.no_grad()
    def folded(self) -> nn.Embedding:
        """One plain table with the new rows at its end."""
        rows = self.rows.to(self.base.weight.dtype)
        table = torch.cat((self.base.weight[: self.offset], rows))
        plain = nn.Embedding(len(table), table.shape[1], self.base.padding_idx, device="meta")
        plain.weight = nn.Parameter(table, requires_grad=False)
        return plain


@dataclass(frozen=True, kw_only=True)
class TextualInversion(Strategy):
    """New tokens that stand for phrases of the prompts, such as `<pleural-effusion>`; only their embeddings train.

    As in the source, embeddings are neither decayed nor rescaled: weight decay would pull them to the zero vector,
    which is no word's. Words of a prompt are replaced by their tokens wherever prompts are tokenized, in training and
    in sampling.

    Attributes:
        words: phrases of the prompts that each get a token; case does not matter. Empty: the conditions of the data
            that it trains on, which `for_conditions` fills in; where there is no data, CheXpert's.
        initial_word: what all new tokens start as; empty: each as the words that it stands for. Where these are
            several tokens of the base, their embeddings' mean.
        num_vectors: embeddings of each token, at least 1; they are taken in a row, as `<edema> <edema>_1` is, and must
            fit into what the tokenizer takes of a caption.

    Source: Gal et al. 2022, "An Image is Worth One Word", section 3; extended latent spaces: section 5.
    """

    name = "textual_inversion"

    words: tuple[str, ...] = ()
    initial_word: str = ""
    num_vectors: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", checked_words(self.words))
        is_word = isinstance(self.initial_word, str)
        expect(is_word, "`initial_word` must be a word", repr(self.initial_word), "Try 'disease', or leave it empty.")
        expect_rank(self.num_vectors, "num_vectors")

    @property
    def trains(self) -> tuple[str, ...]:
        """The text encoder, of which only the new rows train."""
        return ("text_encoder",)

    @property
    def phrases(self) -> tuple[str, ...]:
        """What has a token: the words, or where there are none CheXpert's conditions."""
        return self.words or words_of(CONDITIONS)

    def hyperparameters(self) -> dict[str, Any]:
        """The fields by name, with the words that have tokens."""
        return super().hyperparameters() | {"words": self.phrases}

    def for_conditions(self, conditions: Sequence[str]) -> TextualInversion:
        """The same with the conditions as words, unless it has words of its own."""
        return self if self.words else replace(self, words=words_of(conditions))

    def expect_captions(self, models: DiffusionModels, token_ids: Tensor, conditions: Sequence[str]) -> None:
        """Refuse captions without some of the new tokens, whose embeddings would not train.

        Raises:
            ValueError: no caption has one of the words, or vectors of a token are always cut off.
        """
        used_ids = set(token_ids.flatten().tolist())
        rows = {
            word: models.tokenizer.convert_tokens_to_ids(vector_tokens(token_of(word), self.num_vectors))
            for word in self.phrases
        }
        missing = [word for word, ids in rows.items() if ids[0] not in used_ids]
        expect(
            not missing,
            "`words` must each occur in a caption that is trained on",
            f"{missing}, which do not; the data's conditions are {', '.join(conditions)}",
            "Choose words of the captions, or leave `words` out for the data's conditions.",
        )
        fitting = min(sum(row in used_ids for row in ids) for ids in rows.values())
        expect(
            fitting == self.num_vectors,
            f"`num_vectors` must fit beside the caption into the tokenizer's {models.tokenizer.model_max_length} tokens",
            f"{self.num_vectors}, of which {fitting} fit",
            f"Try {fitting} at most.",
        )

    def inject(self, models: DiffusionModels) -> None:
        """Give the models a tokenizer with the new tokens, and the text encoder their embeddings.

        Raises:
            ValueError: a token is taken already, words to start from are not in the base's vocabulary, or a token has
                more vectors than the tokenizer takes of a caption.
        """
        self._expect_room(models)
        path, table = embedding_of(models)
        offset, tokens = len(models.tokenizer), self._tokens()
        taken = sorted(models.tokenizer.get_vocab().keys() & set(tokens))
        expect(
            not taken,
            "`words` must get tokens that the tokenizer has not yet",
            f"{taken}, which it has",
            "Choose other words, or a base without them.",
        )
        expect(
            offset <= table.num_embeddings,
            f"`tokenizer` must have at most the {table.num_embeddings} tokens of the text encoder's table",
            str(offset),
            "Use a base whose tokenizer belongs to its text encoder.",
        )
        starts = torch.stack([self._start(models, table, word) for word in self.phrases])
        rows = starts.repeat_interleave(self.num_vectors, dim=0)
        models.text_encoder.set_submodule(path, ExtendedEmbedding(table, rows, offset))
        models.tokenizer = copy.deepcopy(models.tokenizer)  # the base's own is shared by all trials
        models.tokenizer.add_tokens(tokens)
        models.placeholders = {**models.placeholders, **{word: token_of(word) for word in self.phrases}}

    def _tokens(self) -> list[str]:
        """All new tokens in the order of their rows, spelled as diffusers spells those of several vectors."""
        return [token for word in self.phrases for token in vector_tokens(token_of(word), self.num_vectors)]

    def _expect_room(self, models: DiffusionModels) -> None:
        room = models.tokenizer.model_max_length - models.tokenizer.num_special_tokens_to_add()
        rule = f"`num_vectors` must be at most the {room} tokens that the tokenizer takes of a caption"
        expect(self.num_vectors <= room, rule, str(self.num_vectors), "Try 8.")

    def _start(self, models: DiffusionModels, table: nn.Embedding, word: str) -> Tensor:
        """What a token's rows start at, float[d]."""
        source = self.initial_word or word
        ids = models.tokenizer(source, add_special_tokens=False).input_ids
        expect(
            bool(ids) and models.tokenizer.unk_token_id not in ids,
            f"`{'initial_word' if self.initial_word else 'words'}` must be in the base's vocabulary",
            repr(source),
            "Give an `initial_word` that its captions have.",
        )
        start: Tensor = table.weight[torch.tensor(ids, device=table.weight.device)].mean(dim=0)
        return start

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """The new rows, without weight decay."""
        return [group | {"weight_decay": 0.0} for group in super().param_groups(models, lr)]

    def merged(self, models: DiffusionModels) -> None:
        """Put the new rows at the end of the table, in place; the extended tokenizer belongs to it."""
        for path, layer in list(extended_embeddings(models.text_encoder)):
            models.text_encoder.set_submodule(path, layer.folded())
            models.text_encoder.config.vocab_size = layer.offset + len(layer.rows)


def checked_words(words: object) -> tuple[str, ...]:
    """Phrases as a tuple, whether they come from Python or from a list in JSON or YAML.

    Raises:
        ValueError: they are no phrases, or two of them would have the same token.
    """
    rule = "`words` must be a list of phrases, each with letters or digits and all different"
    remedy = "Try ['edema', 'pleural effusion'], or leave it out for the data's conditions."
    if not isinstance(words, tuple | list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{rule}, but got {words!r}. {remedy}")
    tokens = {token_of(word) for word in words}
    expect("<>" not in tokens and len(tokens) == len(words), rule, repr(words), remedy)
    return tuple(words)


def words_of(conditions: Iterable[str]) -> tuple[str, ...]:
    """Conditions as captions have them."""
    return tuple(condition.lower() for condition in conditions)


def token_of(word: str) -> str:
    """A phrase's token: `Pleural Effusion` has `<pleural-effusion>`."""
    return f"<{'-'.join(re.findall(r'[a-z0-9]+', word.lower()))}>"


def vector_tokens(token: str, num_vectors: int) -> list[str]:
    """The tokens of a token of several vectors: `<edema>`, `<edema>_1`, ..."""
    return [token, *(f"{token}_{number}" for number in range(1, num_vectors))]


def embedding_of(models: DiffusionModels) -> tuple[str, nn.Embedding]:
    """The text encoder's table of token embeddings, with its path.

    Raises:
        ValueError: it has rows of its own already.
    """
    table = models.text_encoder.get_input_embeddings()
    expect(
        isinstance(table, nn.Embedding),
        "`models` must be a base without new tokens",
        "one that is adapted already",
        "Attach to `models.fresh()` of the base.",
    )
    (path,) = (path for path, module in models.text_encoder.named_modules() if module is table)
    return path, table


def extended_embeddings(module: nn.Module) -> Iterator[tuple[str, ExtendedEmbedding]]:
    """All tables with trained rows inside a module, with their paths."""
    for path, layer in module.named_modules():
        if isinstance(layer, ExtendedEmbedding):
            yield path, layer


def token_vectors(models: DiffusionModels) -> dict[str, Tensor]:
    """The trained embeddings by token, each float32[num_vectors, d], in the tokenizer's order."""
    vectors: dict[str, list[Tensor]] = {}
    for _, layer in extended_embeddings(models.text_encoder):
        ids = range(layer.offset, layer.offset + len(layer.rows))
        for token, row in zip(models.tokenizer.convert_ids_to_tokens(ids), layer.rows.detach(), strict=True):
            vectors.setdefault(token.partition(">")[0] + ">", []).append(row)
    return {token: torch.stack(rows) for token, rows in vectors.items()}
