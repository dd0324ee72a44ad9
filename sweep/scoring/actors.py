"""The processes that score adapters beside the trials, and what a trial holds of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OwnerDiedError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from analysis.run_folder import BASELINE_SHEET, REFERENCE_SHEET, SAMPLES_SHEET
from sweep.config import ComputeConfig
from sweep.scoring.desk import ALIVE, DEAD, Desk, state_of
from sweep.scoring.scorer import AdapterScorer, EvaluationSpec
from sweep.trials.ends import EvaluatorLostError
from sweep.trials.full_disks import is_full
from sweep.trials.relay import root_message
from sweep.trials.resources import EVALUATION, evaluation_resources
from trainables.datasets.store import DataChangedError
from trainables.trial import EvaluationError

ATTEMPTS = 2
MAX_DEATHS = 3
"""How often the process of an evaluation actor may die; what it was scoring is scored again by its successor."""
AWAY_S = 120.0
"""How long an actor may be away: so long Ray may take to see that its node has died, and a successor to load its models."""
GROWING_S = 1800.0
"""The same where a cluster adds nodes: a machine takes minutes to come."""
LOOK_S = 5.0
"""How often it is looked whether an actor that does not answer is alive."""


@dataclass(frozen=True)
class ActorEvaluator:
    """What a trial holds of the evaluation actors; picklable."""

    actors: tuple[Any, ...]
    """Ray's handles of the actors."""
    nodes: tuple[str | None, ...] = ()
    """Ray's id of the node where each actor should run; None: anywhere."""
    away_s: float = AWAY_S
    """How long an actor may be away, in seconds, before a trial that waits for it is broken off."""
    desk: Any = None
    """Ray's handle of what chooses among several actors, and has idle ones help; None: the first one scores all."""
    places: tuple[PlacementGroup, ...] = ()
    """What holds the actors' resources for them."""

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        """Score an exported adapter, a second time where the first fails; leaves `samples.png` beside its folder.

        Raises:
            EvaluationError: it failed again.
            EvaluatorLostError: all evaluation actors are dead for good.
            DataChangedError: the films are not those that the sweep began with.
            OSError: a disk is full.
            ActorUnavailableError: its node was lost, and there is no room for a successor, perhaps because of this trial.
        """
        return self._scores(lambda: self._begin(adapter, adapter.parent / SAMPLES_SHEET, share_done))

    def prepare(self, out: Path) -> None:
        """Wait until the actors can work, and hear now of what they lack; leaves the held-out films' `reference.png`."""
        ray.get([actor.prepare.remote(out / REFERENCE_SHEET) for actor in self.actors])

    def score_base(self, out: Path) -> Any:
        """Have the un-adapted base model scored, beside the trials; leaves `baseline.png`, returns what is running."""
        return self._begin(None, out / BASELINE_SHEET)

    def base_scores(self, running: Any, out: Path) -> dict[str, float]:
        """Wait for what `score_base` began, and try once more where it failed.

        Raises:
            EvaluationError: it failed again.
            EvaluatorLostError: all evaluation actors are dead for good.
            DataChangedError: the films are not those that the sweep began with.
            OSError: a disk is full.
            ActorUnavailableError: its node was lost, and there is no room for a successor.
        """
        return self._scores(lambda: self.score_base(out), running)

    def _begin(self, *what: Any) -> tuple[Any, Any]:
        """The actor that scores it, the one with the fewest evaluations, and Ray's reference of the scores."""
        if self.desk is None:
            return self.actors[0], self.actors[0].score.remote(*what)
        number, [scores] = ray.get(self.desk.score.remote(*what))
        return self.actors[number], scores

    def _scores(self, start: Callable[[], tuple[Any, Any]], running: Any = None) -> dict[str, float]:
        """Wait for an evaluation, the running one if there is one; start it again where it fails or its actor is away."""
        failures, away_s = 0, 0.0
        while True:
            try:
                running = running or start()
                actor, scores = running
                if ray.wait([scores], timeout=LOOK_S)[0]:
                    return dict(ray.get(scores))
                if state_of(actor) == ALIVE:
                    continue
                lost: RayError = ActorUnavailableError("no node has had room for it", actor._actor_id.binary())
            except (ActorUnavailableError, OwnerDiedError) as error:  # the latter: the desk's process was lost
                lost, running = error, None
                time.sleep(LOOK_S)
            except RayError as error:
                failures, running = failures + 1, None
                cause = getattr(error, "cause", error)
                if isinstance(cause, DataChangedError):
                    raise cause from error
                if failures == ATTEMPTS:
                    raise self._failure(str(cause)) from error
                continue
            away_s += LOOK_S
            if away_s >= self.away_s:
                raise lost

    def _failure(self, cause: str) -> Exception:
        if all(state_of(actor) == DEAD for actor in self.actors):
            return EvaluatorLostError(
                f"`evaluation` must have a process that Ray can start, but got none after {MAX_DEATHS} deaths of each: "
                f"{root_message(cause)} Free memory there, or lower compute.concurrent_trials, and go on."
            )
        return (OSError if is_full(cause) else EvaluationError)(cause)

    def stop(self) -> None:
        """End the actors' processes; what they hold of the cluster is free again."""
        for actor in (*self.actors, *([self.desk] if self.desk is not None else [])):
            ray.kill(actor)
        for place in self.places:
            with suppress(RuntimeError, ConnectionError, RayError):  # of a head that is gone nothing is held
                remove_placement_group(place)


def start_evaluators(
    spec: EvaluationSpec, compute: ComputeConfig, nodes: Sequence[str | None] | None = None
) -> ActorEvaluator:
    """Start the evaluation actors of a sweep, with as many threads as they have CPUs.

    Args:
        spec: what they score against.
        compute: how many there are, and what each holds.
        nodes: where each should run, so that trials find room beside them; elsewhere if that node is lost or busy.
    """
    nodes = tuple(nodes or [None] * compute.evaluation_actors)
    places = tuple(_place(number, node, compute) for number, node in enumerate(nodes))
    options = {
        "num_cpus": compute.evaluation_cpus,
        "num_gpus": compute.evaluation_gpus,
        "max_restarts": MAX_DEATHS,
        "max_task_retries": MAX_DEATHS,
    }
    remote_class = ray.remote(**options)(AdapterScorer)
    strategies = [PlacementGroupSchedulingStrategy(place, 0) for place in places]
    actors = tuple(remote_class.options(scheduling_strategy=strategy).remote(spec) for strategy in strategies)
    desk = start_desk(actors) if len(actors) > 1 else None
    return ActorEvaluator(actors, nodes, GROWING_S if compute.may_grow else AWAY_S, desk, places)


def start_desk(actors: Sequence[Any]) -> Any:
    """Ray's handle of a desk of these actors, on this process's node: no other node that is lost can take it along."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Desk).options(scheduling_strategy=here, **options).remote(*actors)


def _place(number: int, node: str | None, compute: ComputeConfig) -> PlacementGroup:
    """What an actor holds, in a placement group: Ray gives the group of a lost node room before all that is asked for later.

    An actor by itself would find the room taken by the trials that are tried again, and they would wait for its scores.

    Args:
        number: of the actor.
        node: where it should be.
        compute: what it holds.
    """
    name = f"{EVALUATION} {number} {secrets.token_hex(4)}"  # Ray refuses a second group of a name
    return placement_group([evaluation_resources(compute)], "STRICT_PACK", name=name, _soft_target_node_id=node)
