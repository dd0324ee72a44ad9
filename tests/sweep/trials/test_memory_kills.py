"""The kernel's counters of processes that it ended for want of memory, in every layout that they come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.trials.memory_kills import KernelKills, kernel_kill

EVENTS = "low 0\nhigh 3\nmax 7\noom 2\noom_kill {}\noom_group_kill 9\n"


@pytest.mark.parametrize(
    ("groups", "counter", "content"),
    [
        ("0::/user.slice/one.scope\n", "user.slice/one.scope/memory.events", EVENTS),
        ("0::/\n", "memory.events", EVENTS),
        ("0::/host/path/of/a/container\n", "memory.events", EVENTS),
        (
            "4:memory:/job 1\n0::/\n",
            "memory/job 1/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
        ("4:memory:/host/path\n", "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
    ],
)
def test_kills_since_it_was_last_asked(tmp_path: Path, groups: str, counter: str, content: str) -> None:
    (tmp_path / "groups").write_text(groups)
    file = tmp_path / "mounts" / counter
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content.format(2))
    kills = KernelKills(tmp_path / "groups", tmp_path / "mounts")
    assert kills() == 0
    file.write_text(content.format(5))
    assert (kills(), kills()) == (3, 0)
    file.unlink()
    assert kills() == 0


def test_without_a_counter_nothing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "groups").write_text("8:pids:/\n0::/\n")
    assert KernelKills(tmp_path / "groups", tmp_path)() == 0
    assert KernelKills(tmp_path / "none", tmp_path)() == 0


def test_what_is_said_of_it() -> None:
    assert kernel_kill(0) is None
    said = kernel_kill(2)
    assert said is not None and said.startswith("`memory`") and "got the kernel ending 2" in said
    assert "training.micro_batch" in said
