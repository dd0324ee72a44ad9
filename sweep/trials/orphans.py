"""Groups of workers whose trial's own process has died: what they hold is given back."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

import ray
from ray import tune
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group

LOOK_S: Final = 2.0
"""How often they are looked for; a look takes milliseconds."""


class OrphanedGroups(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Removes orphaned groups while Tune works, so that the next attempt at their trial finds room."""

    def __init__(self) -> None:
        """No look has been taken."""
        self._looked_s = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune calls this several times a second."""
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._looked_s = time.monotonic()
            self.remove()

    def remove(self) -> None:
        """Remove those that there are now."""
        with suppress(RuntimeError, ConnectionError, RayError):  # a head that does not answer is told of by others
            remove_orphaned_groups()


def remove_orphaned_groups() -> None:
    """Remove the placement groups of this program that an actor made which has died, with the workers in them.

    Ray keeps a placement group until its job ends, and Ray Train removes those of a controller that has died by asking the
    dashboard, which many clusters do not run, and a sweep's own Ray does not (Ray 2.60).
    """
    job = ray.get_runtime_context().get_job_id()
    nobody = ray.ActorID.nil().binary()  # the maker of Tune's groups, of which each holds a trial's own process
    rows = state._connect_and_get_accessor().get_placement_group_table()
    for group in map(PlacementGroupTableData.FromString, rows):
        is_orphan = group.creator_actor_dead and group.creator_actor_id != nobody
        if is_orphan and group.creator_job_id.hex() == job and group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
