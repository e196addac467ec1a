"""Fixtures for all tests: a clean environment, one thread, and the helpers beside this file on the path."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

for name in [n for n in os.environ if n.startswith("SAGAN_")]:
    del os.environ[name]
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it
# A job in the background of a script ignores Ctrl-C, and so would every process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, no colours, and one cache for the session instead of the user's."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
