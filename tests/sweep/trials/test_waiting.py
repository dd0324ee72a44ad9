"""What is said of a sweep that waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import ray
from patience import until
from ray.util.placement_group import placement_group, remove_placement_group

from sweep.trials.resources import EVALUATION
from sweep.trials.waiting import waiting_here, waiting_told


def test_a_line_comes_every_so_often_as_long_as_something_waits() -> None:
    said: list[str] = []
    began_s = time.monotonic()
    with waiting_told(said.append, look=lambda: ["2 x a trial's 1 CPU", "0 of 2 CPU free"], line_s=0.1):
        until(lambda: len(said) >= 3)
    assert len(said) * 0.1 <= time.monotonic() - began_s
    assert all(line.endswith("s: 2 x a trial's 1 CPU; 0 of 2 CPU free") for line in said)


def test_nothing_is_said_where_nothing_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial waits for a moment; each look that finds none begins the count anew."""
    said, looks = list[str](), list[float]()

    def look() -> Sequence[str]:
        looks.append(0.0)
        return ["a trial"] if len(looks) % 3 else []

    # Two looks are less than a line apart, and three are more.
    clock = SimpleNamespace(monotonic=lambda: 0.006 * len(looks))
    monkeypatch.setattr("sweep.trials.waiting.time", clock)
    with waiting_told(said.append, look=look, line_s=0.01):
        until(lambda: len(looks) >= 12)
    assert said == []


def test_a_head_that_does_not_answer_ends_nothing() -> None:
    said, looks = list[str](), list[float]()

    def look() -> Sequence[str]:
        looks.append(0.0)
        if len(looks) < 3:
            raise ConnectionError("the head does not answer")
        return ["a trial"]

    with waiting_told(said.append, look=look, line_s=0.05):
        until(lambda: said)


def test_nothing_more_is_asked_once_nobody_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends a process that asks after its connection is closed: exit code 1, without a word."""
    asked, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    questions: list[str] = []

    def groups() -> dict[str, object]:
        questions.append("groups")
        asked.set()
        assert goes_on.wait(300)
        return {"of the job": {"name": "", "state": "PENDING", "bundles": {0: {"CPU": 1.0}}}}

    def resources() -> dict[str, float]:
        questions.append("resources")
        return {"CPU": 1.0}

    answers = {"get_runtime_context": lambda: SimpleNamespace(get_job_id=str)}
    waiting = "sweep.trials.waiting"
    monkeypatch.setattr(
        f"{waiting}.ray", SimpleNamespace(**answers, cluster_resources=resources, available_resources=resources)
    )
    monkeypatch.setattr(f"{waiting}.placement_group_table", groups)
    looking = threading.Thread(target=waiting_here, args=(ended,))
    looking.start()
    assert asked.wait(300)
    ended.set()
    goes_on.set()
    looking.join()
    assert questions == ["groups"]


def test_a_head_that_answers_late_keeps_nobody_and_is_not_heard_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that is to end does not wait for a head that has died."""
    monkeypatch.setattr("sweep.trials.waiting.LAST_S", 0.1)
    asked, answer, answered = threading.Event(), threading.Event(), threading.Event()

    def look() -> Sequence[str]:
        asked.set()
        answer.wait(60)
        answered.set()
        return ["a trial"]

    said: list[str] = []
    with waiting_told(said.append, look=look, line_s=0.0):
        assert asked.wait(60)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30 and not answered.is_set()
    answer.set()
    assert answered.wait(60)
    time.sleep(0.1)
    assert said == []


def test_what_waits_is_named_by_whom_it_is_for(ray_cluster: None) -> None:
    everything = {"CPU": ray.cluster_resources()["CPU"]}
    groups = [placement_group([everything]), placement_group([everything], name=f"{EVALUATION} 0")]
    try:
        assert groups[0].wait(300)
        assert waits("an evaluation actor's") == "0 of"
        groups.append(placement_group([everything]))
        remove_placement_group(groups.pop(0))
        assert groups[0].wait(300)
        assert waits("a trial's") == "0 of"
    finally:
        for group in groups:
            remove_placement_group(group)
    until(lambda: not waiting_here(threading.Event()))


def waits(whose: str) -> str:
    """The beginning of what is free, once something waits alone that is told to be for them."""
    said: list[str] = []

    def is_seen() -> bool:
        said[:] = waiting_here(threading.Event())
        return len(said) == 2 and said[0].startswith(f"{whose} ")

    until(is_seen)
    return said[1][:4]
