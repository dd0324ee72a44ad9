"""Films that several actors make together: the same bytes as one actor's, whoever is lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from patience import LONG_S, until
from ray import cloudpickle
from ray.exceptions import GetTimeoutError

from sweep.scoring import shards
from sweep.scoring.scorer import AdapterScorer, EvaluationSpec
from sweep.scoring.shards import (
    Answer,
    Ask,
    FilmJob,
    HelperLostError,
    arrived,
    helper,
    made_together,
    packed,
    shared_out,
    while_wanted,
)
from sweep.scoring.streaming import Drawn, as_grey, drawn
from trainables.base_models.models import load_base
from trainables.sampling import generate_batches


@given(num=st.integers(0, 50), among=st.integers(1, 8))
def test_parts_are_all_numbers_in_their_order_and_nearly_as_many_each(num: int, among: int) -> None:
    parts = shared_out(num, among)
    assert [number for part in parts for number in part] == list(range(num))
    assert len(parts) == min(num, among)
    sizes = [len(part) for part in parts]
    assert not sizes or (max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes))


def batch(number: int) -> Drawn:
    grey = torch.full((2, 4, 4), number, dtype=torch.uint8)
    return Drawn(grey, grey.numpy()[:1])


class Workshop:
    """Makes batches, and keeps whose they were."""

    def __init__(self) -> None:
        self.made_here: list[int] = []

    def make(self, batches: range) -> Iterator[Drawn]:
        for number in batches:
            self.made_here.append(number)
            yield batch(number)


@contextmanager
def helping(batches: range) -> Iterator[Answer]:
    yield lambda _: map(batch, batches)


@contextmanager
def lost(batches: range) -> Iterator[Answer]:
    def answer(timeout_s: float) -> Iterator[Drawn]:
        raise HelperLostError("its process has died")

    yield answer


@pytest.mark.parametrize(
    ("helpers", "made_here"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6]),
        ([helping, helping], [0, 1, 2]),
        ([lost, helping], [0, 1, 2, 3, 4]),
        ([lost, lost], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_batches_come_in_their_order_and_what_a_helper_does_not_bring_is_made_here(
    helpers: Sequence[Ask], made_here: list[int]
) -> None:
    workshop = Workshop()
    parts = list(made_together(workshop.make, helpers, 7))
    assert [int(part.grey[0, 0, 0]) for part in parts] == list(range(7)) and workshop.made_here == made_here


def test_a_helper_that_does_not_answer_is_waited_for_as_long_as_the_own_part_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, waited = [100.0], list[float]()
    monkeypatch.setattr("sweep.scoring.shards.time.monotonic", lambda: now_s[0])

    def make(batches: range) -> Iterator[Drawn]:
        for number in batches:
            now_s[0] += 10
            yield batch(number)

    @contextmanager
    def silent(batches: range) -> Iterator[Answer]:
        def answer(timeout_s: float) -> Iterator[Drawn]:
            waited.append(timeout_s)
            now_s[0] += timeout_s
            raise HelperLostError("no answer")

        yield answer

    parts = list(made_together(make, [silent, silent], 6))
    assert [int(part.grey[0, 0, 0]) for part in parts] == list(range(6))
    assert waited == [20 + shards.PATIENCE_S, 0]  # the second had as long


class FarAway:
    """Ray's own calls, of an actor on another node that has made what it was asked for."""

    def __init__(self, films: tuple[Any, Any]) -> None:
        self._films, self.cancelled = films, list[str]()
        self.films = SimpleNamespace(options=lambda **given: SimpleNamespace(remote=lambda *asked: "running"))

    def wait(self, running: list[str], *, timeout: float, fetch_local: bool) -> tuple[list[str], list[str]]:
        return ([], running) if fetch_local else (running, [])

    def get(self, running: str, *, timeout: float) -> tuple[Any, Any]:
        if timeout < 1:
            raise GetTimeoutError("it has not come yet")
        return self._films

    def cancel(self, running: str) -> None:
        self.cancelled.append(running)


def test_what_a_helper_on_another_node_has_made_is_fetched_also_when_no_time_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job: Any = None
    films = batch(3)
    far = FarAway((films.grey.numpy(), films.shown))
    monkeypatch.setattr(shards, "ray", far)
    with helper(far, job, torch.device("cpu"))(range(1)) as answer:
        (part,) = answer(0.0)
        assert torch.equal(part.grey, films.grey) and not far.cancelled
    assert far.cancelled == ["running"]


def test_helpers_are_asked_no_longer_where_the_own_part_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    job: Any = None
    far = FarAway((None, None))
    monkeypatch.setattr(shards, "ray", far)

    def broken(batches: range) -> Iterator[Drawn]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        list(made_together(broken, [helper(far, job, torch.device("cpu"))] * 2, 6))
    assert far.cancelled == ["running"] * 2


class Endless:
    """A helper that goes on as long as it is wanted."""

    def films(self, begun: Path, batches: range) -> Any:
        return packed(while_wanted(self._parts(begun)))

    def _parts(self, begun: Path) -> Iterator[Drawn]:
        while True:
            time.sleep(0.1)
            yield batch(0)
            begun.touch()

    def is_free(self) -> bool:
        return True


def test_a_helper_that_is_not_done_in_time_ends_what_it_is_at(ray_cluster: None, tmp_path: Path) -> None:
    """Ray itself ends no task of an actor that runs."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    actor, begun = ray.remote(Endless).options(num_cpus=0).remote(), tmp_path / "begun"
    job: Any = begun
    with helper(actor, job, torch.device("cpu"))(range(1)) as answer:
        until(begun.exists)
        with pytest.raises(HelperLostError, match="not done in time"):
            answer(0.0)
        assert ray.get(actor.is_free.remote(), timeout=LONG_S)
    ray.kill(actor)


@pytest.mark.slow
def test_batches_made_apart_are_those_of_one_process_to_the_bit() -> None:
    """Of prompts of many lengths, of which each part has only some."""
    prompts = [f"a chest film with edema{' and more' * (number % 5)}" for number in range(7)]
    options: Any = {"num_steps": 2, "guidance_scale": 3.0, "batch_size": 2}
    models = load_base("mini")
    whole = list(generate_batches(models, prompts, range(7), **options))
    apart = [
        films
        for part in shared_out(4, 3)
        for films in generate_batches(models, prompts, range(7), **options, chosen=part)
    ]
    assert [len(films) for films in whole] == [2, 2, 2, 1]
    assert torch.equal(torch.cat(whole), torch.cat(apart))


def test_films_arrive_as_they_were_sent() -> None:
    films = torch.randint(0, 255, (150, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = np.random.default_rng(0).random(150) < 0.2
    grey, kept = packed(drawn(films.split(7), shown))
    grey.flags.writeable = False  # as Ray gives them
    parts = list(arrived(grey, kept, torch.device("cpu")))
    assert torch.equal(torch.cat([part.grey for part in parts]), as_grey(films)) and len(parts) == 3
    assert np.array_equal(np.concatenate([part.shown for part in parts]), films.numpy()[shown])


class Noting(AdapterScorer):
    """A scorer that notes which batches it makes."""

    def __init__(self, spec: EvaluationSpec) -> None:
        super().__init__(spec)
        self.made: list[range] = []

    def _make(self, job: FilmJob, batches: range) -> Iterator[Drawn]:
        self.made.append(batches)
        return super()._make(job, batches)


class Dies(AdapterScorer):
    """A scorer whose process ends when it is asked to help."""

    def films(self, *of: object) -> Any:
        ray.actor.exit_actor()


@pytest.mark.slow
def test_an_evaluation_with_helpers_of_which_one_dies_is_the_one_without(
    ray_cluster: None, spec: EvaluationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(shards, "PATIENCE_S", 300.0)  # their processes have yet to start
    small = replace(spec, config=spec.config.model_copy(update={"batch_size": 2}))
    alone = AdapterScorer(small)
    scores = alone.score(None, tmp_path / "alone.png")
    scorer = Noting(replace(small, cache_folder=tmp_path / "elsewhere"))
    helpers = [ray.remote(kind).options(num_cpus=0).remote(small) for kind in (AdapterScorer, Dies)]
    assert scorer.score(None, tmp_path / "together.png", 1.0, *helpers) == scores
    assert scorer.made == [range(1), range(2, 3)]  # its own, and that of the one that died
    apart, together = (each.features.get(each.generated_key(None, each.plan, small.config)) for each in (alone, scorer))
    assert apart is not None and together is not None and np.array_equal(apart, together)
    assert (tmp_path / "together.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    for actor in helpers:
        ray.kill(actor)
