"""Whether what a sweep asks for goes onto a cluster's nodes: arithmetic alone, without Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from sweep.config import ComputeConfig, ConfigError

UNIT: Final = 10_000
"""Ray counts resources in ten thousandths."""
BESIDE_WORKERS: Final = {"CPU": 0.01}
"""What a trial's own process holds beside a group of workers."""
EVALUATION: Final = "evaluation"
"""With this begin the names of evaluation actors' placement groups; those of trials have none."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster, and what it has in all.

    Attributes:
        node_id: Ray's name of it.
        cpus: CPUs that Ray may give away.
        gpus: GPUs that Ray may give away.
    """

    node_id: str
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """How a sweep goes onto nodes.

    Attributes:
        trials_at_once: how many trials there is room for, at most `compute.concurrent_trials`.
        evaluation_nodes: the node of each evaluation actor; None where it is not known yet.
    """

    trials_at_once: int
    evaluation_nodes: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """What runs already, and does not move.

    Attributes:
        evaluation: how many evaluation actors, by node.
        trial: the node of a trial's own process beside its workers; None where there is none yet.
    """

    evaluation: Counter[str] = field(default_factory=Counter)
    trial: str | None = None


NOTHING: Final = Running()


def fewest_workers(compute: ComputeConfig) -> int:
    """Workers without which no trial begins."""
    workers = compute.workers_per_trial
    return workers if isinstance(workers, int) else min(workers)


def most_workers(compute: ComputeConfig) -> int:
    """Workers of a trial where there is room; if they may be more than one, each is a process of its own."""
    workers = compute.workers_per_trial
    return workers if isinstance(workers, int) else max(workers)


def worker_resources(compute: ComputeConfig) -> dict[str, float]:
    """What a worker of a trial holds."""
    return _resources(compute.cpus_per_worker, compute.gpus_per_worker)


def trial_resources(compute: ComputeConfig) -> dict[str, float]:
    """What the trial's own process holds: the worker's share, or next to nothing beside a worker group."""
    return worker_resources(compute) if most_workers(compute) == 1 else dict(BESIDE_WORKERS)


def evaluation_resources(compute: ComputeConfig) -> dict[str, float]:
    """What an evaluation actor holds."""
    return _resources(compute.evaluation_cpus, compute.evaluation_gpus)


def _resources(cpus: float, gpus: float) -> dict[str, float]:
    """As Ray takes them, which asks a node for no GPU by saying nothing of GPUs."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def local_cpus(compute: ComputeConfig, here: int) -> int:
    """CPUs that a Ray instance of the sweep's own promises: those that are here, and no fewer than are asked for at once."""
    beside = 0 if most_workers(compute) == 1 else BESIDE_WORKERS["CPU"]
    trial = fewest_workers(compute) * compute.cpus_per_worker + beside
    asked = compute.concurrent_trials * trial + compute.evaluation_actors * compute.evaluation_cpus
    return max(here, math.ceil(round(asked, 4)))


def place(nodes: Sequence[Node], compute: ComputeConfig) -> Placement:
    """Lay the evaluation actors and as many trials as go beside them onto nodes; and where all do, as many workers.

    Args:
        nodes: with all that they have, as if nobody used it.
        compute: what is asked for. With `may_grow` whatever finds no room now is waited for.

    Raises:
        ConfigError: one trial does not go beside the evaluation actors, however they are laid; the message has the sum.
    """
    room, sought = 0, compute.concurrent_trials + 1
    actor_nodes = placed_evaluation(nodes, compute, 0)
    while sought - room > 1:  # halving works: where k trials find room, fewer do too
        middle = (room + sought) // 2
        if (laid := placed_evaluation(nodes, compute, middle)) is None:
            sought = middle
        else:
            room, actor_nodes = middle, laid
    if room == compute.concurrent_trials and most_workers(compute) > fewest_workers(compute):
        actor_nodes = placed_evaluation(nodes, compute, room, workers_of_trial(nodes, compute))
    if compute.may_grow:
        here = actor_nodes or (None,) * compute.evaluation_actors
        return Placement(trials_at_once=compute.concurrent_trials, evaluation_nodes=here)
    if room == 0 or actor_nodes is None:
        raise ConfigError(_shortage(nodes, compute))
    return Placement(trials_at_once=room, evaluation_nodes=actor_nodes)


def workers_of_trial(
    nodes: Sequence[Node],
    compute: ComputeConfig,
    *,
    evaluation_nodes: Sequence[str | None] = (),
    here: str | None = None,
) -> int:
    """How many workers an attempt at a trial has: as many as all trials at once find room for, at most what is allowed.

    Ray Train's own elastic groups are not used: they count on all that the nodes have, also what evaluation holds, and wait
    for ever for a second worker where the room of the first is left (Ray 2.60).

    Args:
        nodes: that are alive, with all that they have.
        compute: what is asked for; as many trials run at once as it says.
        evaluation_nodes: where evaluation actors run already; those of nodes that are gone run anywhere.
        here: the node on which the trial's own process runs already, if it does.
    """
    few, most, trials = fewest_workers(compute), most_workers(compute), compute.concurrent_trials
    runs = Running(evaluation=Counter(node for node in evaluation_nodes if node is not None), trial=here)
    numbers = range(most, few, -1)
    return next(
        (number for number in numbers if placed_evaluation(nodes, compute, trials, number, runs) is not None), few
    )


def placed_evaluation(
    nodes: Sequence[Node],
    compute: ComputeConfig,
    num_trials: int,
    workers_per_trial: int | None = None,
    runs: Running = NOTHING,
) -> tuple[str, ...] | None:
    """The node of each evaluation actor so that a number of trials goes beside them; None where none will do.

    A trial has its fewest workers unless another number is given; what runs already stays where it is. Node by node it is
    kept, for every number of actors and workers laid so far, how many more processes that trials have beside their workers
    went with them at most. So no arrangement is missed.

    Args:
        nodes: the machines.
        compute: what actors and trials ask for.
        num_trials: how many trials are to run at once.
        workers_per_trial: workers of each; None: the fewest that they may have.
        runs: what runs already.
    """
    num_workers = num_trials * (workers_per_trial or fewest_workers(compute))
    num_beside = num_trials if most_workers(compute) > 1 else 0
    laid: dict[tuple[int, int], tuple[int, tuple[str, ...]]] = {(0, 0): (0, ())}
    for node in nodes:
        further: dict[tuple[int, int], tuple[int, tuple[str, ...]]] = {}
        for (actors, workers), (beside, where) in laid.items():
            for load in _loads(node, compute, compute.evaluation_actors - actors, num_workers - workers, num_beside):
                if load[0] < runs.evaluation[node.node_id] or (node.node_id == runs.trial and load[2] < 1):
                    continue
                key = (actors + load[0], workers + load[1])
                total = min(num_beside, beside + load[2])
                if total > further.get(key, (-1,))[0]:
                    further[key] = (total, (*where, *(node.node_id,) * load[0]))
        laid = further
    beside, where = laid.get((compute.evaluation_actors, num_workers), (-1, ()))
    return where if beside >= num_beside else None


def _loads(
    node: Node, compute: ComputeConfig, actors: int, workers: int, beside: int
) -> Iterator[tuple[int, int, int]]:
    """What may go onto a node: evaluation actors, workers and processes beside workers, no more than are left of each."""
    cpus, per_actor, per_worker = _units(node.cpus), _units(compute.evaluation_cpus), _units(compute.cpus_per_worker)
    process = _units(BESIDE_WORKERS["CPU"])
    for own_actors in range(min(actors, cpus // per_actor) + 1):
        left = cpus - own_actors * per_actor
        gpus = workers_on_gpus(
            int(node.gpus), own_actors, _units(compute.evaluation_gpus), _units(compute.gpus_per_worker)
        )
        most = min(workers, left // per_worker, workers if gpus is None else gpus)
        for own_workers in range(max(0, most - math.ceil(beside * process / per_worker)), most + 1):
            yield own_actors, own_workers, min(beside, (left - own_workers * per_worker) // process)


def workers_on_gpus(gpus: int, actors: int, per_actor: int, per_worker: int) -> int | None:
    """How many workers find their GPUs beside a number of evaluation actors; a share of a GPU is of one and the same.

    Args:
        gpus: that a node has.
        actors: evaluation actors on the node.
        per_actor: what each asks for, in `UNIT`s; more than one GPU in whole ones.
        per_worker: likewise.

    Returns:
        None where workers need none; -1 where not even the actors find theirs.
    """
    if per_actor == 0 or per_actor >= UNIT:
        left = gpus - actors * math.ceil(per_actor / UNIT)
        actors = 0
    elif per_worker == 0 or per_worker >= UNIT:
        left = gpus - math.ceil(actors / (UNIT // per_actor))
        actors = 0
    else:
        return _on_shared_gpus(gpus, actors, per_actor, per_worker)
    if left < 0:
        return -1
    if per_worker == 0:
        return None
    return left * (UNIT // per_worker) if per_worker < UNIT else left // math.ceil(per_worker / UNIT)


@lru_cache(maxsize=4096)
def _on_shared_gpus(gpus: int, actors: int, per_actor: int, per_worker: int) -> int:
    """The same where actors and workers ask for shares: GPU by GPU, with every number of actors on it."""
    if gpus == 0:
        return 0 if actors == 0 else -1
    best = -1
    for count in range(min(actors, UNIT // per_actor) + 1):
        others = _on_shared_gpus(gpus - 1, actors - count, per_actor, per_worker)
        if others >= 0:
            best = max(best, others + (UNIT - count * per_actor) // per_worker)
    return best


def _units(amount: float) -> int:
    return round(amount * UNIT)


def _shortage(nodes: Sequence[Node], compute: ComputeConfig) -> str:
    gpus = " Set compute.gpus_per_worker and compute.evaluation_gpus to 0.5 each to share one GPU."
    return (
        f"`compute` must find room for a trial beside the evaluation actors, but got {_asked(compute)}, where there "
        f"{_there(nodes)}, which does not hold them at once. Lower what a trial or evaluation asks for, give the "
        "compute.address of a larger cluster, or set compute.may_grow=true where the cluster adds nodes by itself."
        f"{gpus if compute.gpus_per_worker + compute.evaluation_gpus else ''}"
    )


def _asked(compute: ComputeConfig) -> str:
    """The sum, such as `2 x 1 CPU for evaluation + 2 x 1 CPU and 0.01 CPU for a trial = 4.01 CPU`."""
    actors, workers = compute.evaluation_actors, fewest_workers(compute)
    beside = BESIDE_WORKERS["CPU"] if most_workers(compute) > 1 else 0.0
    cpus = actors * compute.evaluation_cpus + workers * compute.cpus_per_worker + beside
    gpus = actors * compute.evaluation_gpus + workers * compute.gpus_per_worker
    evaluation = f"{actors} x {_amounts(compute.evaluation_cpus, compute.evaluation_gpus)} for evaluation"
    trial = f"{workers} x {_amounts(compute.cpus_per_worker, compute.gpus_per_worker)}"
    more = f" and {beside:g} CPU" if beside else ""
    return f"{evaluation} + {trial}{more} for a trial = {_amounts(cpus, gpus)}"


def _there(nodes: Sequence[Node]) -> str:
    kinds = Counter(_amounts(node.cpus, node.gpus, always=True) for node in nodes)
    listed = ", ".join(f"{count} node{'s' if count > 1 else ''} of {amounts}" for amounts, count in kinds.items())
    return f"{'is' if len(nodes) == 1 else 'are'} {listed or 'no nodes'}"


def _amounts(cpus: float, gpus: float, *, always: bool = False) -> str:
    return f"{round(cpus, 4):g} CPU" + (f" and {round(gpus, 4):g} GPU" if gpus or always else "")
