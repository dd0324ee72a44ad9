"""Which films are generated: the prompt and the noise of each, and the real film that it stands against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.checks import unknown_name
from sweep.scoring.identity import plan_digest
from sweep.scoring.streaming import Chosen
from trainables.datasets.captions import PromptTemplate
from trainables.datasets.store import PreparedDataset, PreparedSplit


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationPlan:
    """The same prompts and noise for every model, so that models differ by their weights alone.

    Attributes:
        rows: int64[n], of each generated film the real one that it is compared with.
        labels: the scored conditions that each prompt names.
        prompts: one prompt a film.
        seeds: one a film, for its starting noise.
    """

    rows: NDArray[np.int64]
    labels: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """Hash of what is generated, for the caches."""
        return plan_digest(self.prompts, self.seeds)

    def table(self, conditions: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these conditions each prompt names, bool[n, c]."""
        return label_rows(self.labels, conditions)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """How many films of the same conditions come before each film, int64[n]."""
        seen: Counter[tuple[str, ...]] = Counter()
        places = np.empty(len(self), np.int64)
        for row, label in enumerate(self.labels):
            places[row] = seen[label]
            seen[label] += 1
        return places

    def only(self, chosen: Chosen) -> GenerationPlan:
        """The part of the plan that is chosen, in its order."""
        rows = np.flatnonzero(chosen)
        return GenerationPlan(
            rows=self.rows[rows],
            labels=tuple(self.labels[row] for row in rows),
            prompts=tuple(self.prompts[row] for row in rows),
            seeds=tuple(self.seeds[row] for row in rows),
        )


def plan_by_condition(
    data: PreparedSplit, conditions: Sequence[str], per_condition: int, *, seed: int, template: PromptTemplate
) -> GenerationPlan:
    """The films of a trial: of one condition each, as many as asked for or as real films show it, whichever is fewer.

    Args:
        data: the split that is compared with.
        conditions: those that are scored.
        per_condition: the most for one condition.
        seed: chooses the films and the noise.
        template: how the data's captions are made; what a prompt says beside the condition, such as the view, is that of
            the real film that the generated one is compared with.

    Raises:
        ValueError: a condition is on fewer than two films.
    """
    labels: list[tuple[str]] = []
    rows: list[NDArray[np.int64]] = []
    for number, condition in enumerate(conditions):
        films = _drawn(data, condition, (seed, number))
        require_two_films(condition, len(films))
        rows.append(films[:per_condition])  # in random order: an early evaluation takes the first ones
        labels += [(condition,)] * len(rows[-1])
    compared = np.concatenate(rows)
    return GenerationPlan(
        rows=compared,
        labels=tuple(labels),
        prompts=tuple(
            template.prompt(
                label, view=data.views[row], age=data.ages[row], sex=data.sexes[row], text=data.prompts[row]
            )
            for label, row in zip(labels, compared, strict=True)
        ),
        seeds=_noise(seed, len(labels)),
    )


def plan_by_caption(data: PreparedSplit, conditions: Sequence[str], per_condition: int, seed: int) -> GenerationPlan:
    """The films of a finalist: for captions of real ones, as many of each condition and of each combination.

    Args:
        data: the split that is mirrored.
        conditions: those that are scored; films with none of them are left out.
        per_condition: the most that are drawn for one condition; others that show it too come on top, and a film that
            shows several counts once.
        seed: chooses the films and the noise.
    """
    drawn = [_drawn(data, name, (seed, number))[:per_condition] for number, name in enumerate(conditions)]
    return _mirror(data, np.unique(np.concatenate(drawn)).astype(np.int64), conditions, (seed, len(data)))


def plan_by_distinct_caption(
    data: PreparedSplit, conditions: Sequence[str], seed: int, most: int | None = None
) -> GenerationPlan:
    """One film for each caption that a split has, however many films share it: what CheXGenBench generates.

    Args:
        data: the split that is mirrored; of films that share a caption the first stands against the generated one.
        conditions: those that labels may name.
        seed: chooses the noise, and the captions where there are more than `most`.
        most: the most captions; None: all.
    """
    _, first = np.unique(np.array(data.prompts), return_index=True)
    rows = np.sort(np.random.default_rng(seed).permutation(first)[:most]).astype(np.int64)
    return _mirror(data, rows, conditions, (seed, len(data)))


def repeated(plan: GenerationPlan, times: int, seed: int) -> GenerationPlan:
    """A plan's films several times, one after the other, with noise that differs between them but not between prompts.

    Args:
        plan: of one film a prompt.
        times: how often.
        seed: of the noise.
    """
    return GenerationPlan(
        rows=np.repeat(plan.rows, times),
        labels=tuple(labels for labels in plan.labels for _ in range(times)),
        prompts=tuple(prompt for prompt in plan.prompts for _ in range(times)),
        seeds=_noise((seed, times), times) * len(plan),
    )


def _mirror(
    data: PreparedSplit, rows: NDArray[np.int64], conditions: Sequence[str], seed: tuple[int, int]
) -> GenerationPlan:
    """Films for the captions of these rows.

    Args:
        data: the split of the rows.
        rows: int64[n].
        conditions: those that labels may name.
        seed: of the noise.
    """
    return GenerationPlan(
        rows=rows,
        labels=tuple(tuple(name for name in data.conditions[row] if name in conditions) for row in rows),
        prompts=tuple(data.prompts[row] for row in rows),
        seeds=_noise(seed, len(rows)),
    )


def _drawn(data: PreparedSplit, condition: str, seed: tuple[int, int]) -> NDArray[np.int64]:
    """The rows of all films with a condition, in random order."""
    return np.random.default_rng(seed).permutation(data.indices_with(condition))


def _noise(seed: int | tuple[int, int], count: int) -> tuple[int, ...]:
    return tuple(int(value) for value in np.random.SeedSequence(seed).generate_state(count, np.uint32))


def known_rows(
    data: PreparedSplit, conditions: Sequence[str], rows: Sequence[int] | NDArray[np.int64] | None = None
) -> list[int]:
    """The films by which a classifier can be trained or judged: those whose labels leave none of the conditions open.

    Args:
        data: a split.
        conditions: those that matter.
        rows: of the split, to choose from; None: all.
    """
    chosen = range(len(data)) if rows is None else map(int, rows)
    return [row for row in chosen if not set(conditions) & set(data.unknown[row])]


def label_rows(labels: Sequence[Sequence[str]], conditions: Sequence[str]) -> NDArray[np.bool_]:
    """Names as a table, bool[n, c]."""
    return np.array([[name in label for name in conditions] for label in labels], bool).reshape(
        len(labels), len(conditions)
    )


def two_sided(tables: Sequence[NDArray[np.bool_]], conditions: Sequence[str]) -> tuple[str, ...]:
    """The conditions that every table has on some films and lacks on others."""
    fits = np.all([table.any(axis=0) & ~table.all(axis=0) for table in tables], axis=0)
    return tuple(name for name, both in zip(conditions, fits, strict=True) if both)


def conditions_to_score(dataset: PreparedDataset, split: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The conditions named in the configuration, or all that at least two films of the split show.

    Args:
        dataset: the prepared films.
        split: whose films are compared with.
        wanted: those that are named; None: none is.

    Raises:
        ValueError: a named condition is unknown to the data set or has fewer than two films, or none has two.
    """
    require_known_conditions(wanted or (), dataset.conditions)
    held_out = dataset.split(split)
    counts = {condition: len(held_out.indices_with(condition)) for condition in wanted or dataset.conditions}
    for condition in wanted or ():
        require_two_films(condition, counts[condition])
    chosen = tuple(condition for condition, count in counts.items() if count >= 2)
    if not chosen:
        raise ValueError(f"`{split}` must show a condition on at least 2 films, but got {counts}. Prepare more films.")
    return chosen


def require_known_conditions(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Refuse conditions that the data do not have.

    Raises:
        ValueError: there is one.
    """
    for condition in wanted:
        if condition not in known:
            raise ValueError(unknown_name("data.conditions", condition, known))


def require_two_films(condition: str, num_films: int) -> None:
    """Refuse a condition that no metric can be computed for.

    Raises:
        ValueError: it has fewer than two held-out films.
    """
    if num_films < 2:
        raise ValueError(
            f"`conditions` must have at least 2 held-out films each, but got {num_films} of {condition!r}. "
            "Prepare more films, or leave the condition out with --set data.conditions=[...]."
        )
