"""What is said of a sweep that waits."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import ray
from patience import until
from ray import cloudpickle

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
        return {}

    def others(**which: object) -> dict[str, object]:
        questions.append("actors")
        return {}

    waiting = "sweep.trials.waiting"
    monkeypatch.setattr(f"{waiting}.ray", SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(get_job_id=str)))
    monkeypatch.setattr(f"{waiting}.placement_group_table", groups)
    monkeypatch.setattr(f"{waiting}.actors", others)
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


class Idle:
    """An actor that tells of its process."""

    def process(self) -> int:
        return os.getpid()


def test_an_actor_that_has_died_and_finds_no_room_again_is_named(ray_cluster: None) -> None:
    """Another one takes its place: whichever of them waits, one does."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not import test modules
    actor = ray.remote(Idle).options(num_cpus=ray.cluster_resources()["CPU"], max_restarts=1)
    first = actor.remote()
    process = ray.get(first.process.remote())
    second = actor.remote()
    try:
        assert waits() == ["an evaluation actor", "0 of"]
        os.kill(process, signal.SIGKILL)
        assert ray.get(second.process.remote()) > 0
        assert waits() == ["an evaluation actor", "0 of"]
    finally:
        ray.kill(first)
        ray.kill(second)
    assert waits(0) == []


def waits(num_waiting: int = 1) -> list[str]:
    """What waits once so much does, and the beginning of what is free."""
    said: list[str] = []

    def is_seen() -> bool:
        said[:] = waiting_here(threading.Event())
        return said[:-1] == ["an evaluation actor"] * num_waiting

    until(is_seen)
    return [text[:4] if "free" in text else text for text in said]
