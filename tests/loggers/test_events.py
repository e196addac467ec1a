"""Events reach every logger; a plugin's logger that fails is dropped, a built-in one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagan_cli.contracts import Logger, RunInfo
from sagan_cli.engine.train import Events, open_events
from sagan_cli.errors import UsageError

RUN = RunInfo(Path("run"), {}, 5)


class Remembering(Logger):
    """Remembers steps, and fails at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__(RUN)
        self.steps: list[int] = []
        self.fails_at = fails_at

    def grid(self, step: int, path: Path) -> None:
        """Remember the step."""
        self.steps.append(step)
        if step == self.fails_at:
            raise OSError("disk full")


def test_a_plugin_logger_that_fails_is_dropped_with_one_warning() -> None:
    sound, broken = Remembering(), Remembering(fails_at=2)
    said: list[str] = []
    events = Events([("broken", broken, False), ("sound", sound, False)], said.append)
    for step in range(1, 5):
        events.send("grid", step, Path("x.png"))
    assert sound.steps == [1, 2, 3, 4]
    assert broken.steps == [1, 2]
    assert said == ["--logger broken: OSError: disk full; training continues without it"]


def test_a_built_in_logger_that_fails_ends_training() -> None:
    events = Events([("jsonl", Remembering(fails_at=1), True)], lambda text: None)
    with pytest.raises(OSError, match="disk full"):
        events.send("grid", 1, Path("x.png"))


def test_unknown_loggers_are_refused_and_followers_have_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--logger nothing: no such logger"):
        open_events("nothing", RUN, lambda text: None)
    followers = open_events("", RunInfo(tmp_path, {}, 5), lambda text: None, leads=False)
    followers.send("statistics", 1, {"d_loss": 1.0})
    assert list(tmp_path.iterdir()) == []
