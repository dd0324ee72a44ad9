"""MOASHA in the replay: it decides as it is published, its fault included."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.replay import moasha
from benchmarks.replay.moasha import MoashaStopping
from benchmarks.replay.problems import NUM_EPOCHS, OBJECTIVES, synthetic
from benchmarks.replay.simulator import Search, Simulator
from benchmarks.search_replay import ways
from sweep.search.ladder import Ladder
from sweep.trials.ends import FINAL
from sweep.trials.suggestions import Suggestion

needs_package = pytest.mark.skipif(not moasha.is_installed(), reason="Syne Tune is not installed")


def arrivals(fids: list[float], *, epoch: int = 0) -> list[bool]:
    """Whether MOASHA stops each of some trials that come to a rung in that order, and are alike but for their distance."""
    stopping = MoashaStopping(Ladder(epochs=(1, 3)), OBJECTIVES, eta=3, num_epochs=NUM_EPOCHS)
    stopped = []
    for number, fid in enumerate(fids):
        trial_id = str(number)
        stopping.on_start(Suggestion(trial_id=trial_id, number=number, choice={"strategy": {"name": "lora"}}))
        end = stopping.decide(trial_id, report(fid, epoch))
        stopped.append(end is not None)
        assert end is None or (end.kind, end.rung) == ("stopped", [0, 2].index(epoch))
    return stopped


def report(fid: float, epoch: int) -> dict[str, Any]:
    costs = {"trainable_parameters": 1000, "epoch_s": 2.0}
    return {"epoch": epoch, FINAL: False, "early_fid_mini": fid, "early_vendi_mini": 3.0, **costs}


@needs_package
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_newcomer_goes_on_where_the_worst_of_the_rung_was_among_the_first_third(epoch: int) -> None:
    """Its index in a list of n, of which it is the last by merit, over n: the published order read as a rank."""
    fids = [5.0, 3.0, 8.0, 1.0, 9.0, 2.0, 4.0, 7.0]
    so_far = [fids[: count + 1] for count in range(len(fids))]
    assert arrivals(fids, epoch=epoch) == [seen.index(max(seen)) / len(seen) > 1 / 3 for seen in so_far]


@needs_package
def test_its_fault_stops_the_best_of_a_rung() -> None:
    assert arrivals([2.0, 3.0, 4.0, 1.0])[-1], "halving by right ranks lets it go on"


@needs_package
def test_what_a_rung_lacks_and_the_last_report_are_no_questions_to_it() -> None:
    stopping = MoashaStopping(Ladder(epochs=(1, 3)), OBJECTIVES, eta=3, num_epochs=NUM_EPOCHS)
    stopping.on_start(Suggestion(trial_id="a", number=0, choice={"strategy": {"name": "lora"}}))
    assert stopping.decide("a", {"epoch": 1, FINAL: False}) is None
    assert stopping.decide("a", {**report(9.0, 0), "early_fid_mini": float("nan")}) is None
    assert stopping.decide("a", {"epoch": 8, FINAL: True, "fid_mini": 9.0}) is None


@needs_package
def test_a_replayed_search_by_it_depends_on_its_seed_alone() -> None:
    def finished(seed: int) -> tuple[int, int, list[Any]]:
        search = Search(sampler="random", scheduler=moasha.MOASHA, num_workers=4, seed=seed)
        run = Simulator(synthetic(0, 16), search)
        run.run()
        return run.num_stopped, run.num_trials, run.finished

    first, again, other = map(finished, (0, 0, 1))
    assert first == again != other and 0 < first[0] == first[1] - len(first[2])
    assert ("random", moasha.MOASHA) in ways()


def test_without_its_package_the_replay_leaves_it_out_or_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moasha, "find_spec", lambda name: None)
    assert ("random", moasha.MOASHA) not in ways()
    with pytest.raises(ValueError, match="pip install --no-deps syne-tune"):
        Simulator(synthetic(0, 8), Search(sampler="random", scheduler=moasha.MOASHA, num_workers=1, seed=0))
