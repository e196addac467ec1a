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


# Variants of what another test shows on every run, and long ways round: minutes together, so only with -m slow.
SLOW = (
    "ablation/test_ablate_command.py::test_an_interrupted_ablation_goes_on_and_ends_with_the_same_bits",
    "ablation/test_ablate_command.py::test_a_structure_score_is_counted_and_pooled",
    "model/test_architectures.py::test_it_trains_resumes_to_the_bit_and_samples[sagan-dcgan",
    "model/test_architectures.py::test_it_trains_resumes_to_the_bit_and_samples[sagan-cifar",
    "model/test_architectures.py::test_it_trains_resumes_to_the_bit_and_samples[dcgan",
    "model/test_architectures.py::test_it_trains_resumes_to_the_bit_and_samples[sagan-tutorial-none",
    *(f"config/test_systems.py::test_each_trains_resumes_to_the_bit_and_samples[{name}]"
      for name in ("paper", "cifar", "rows", "nonlocal", "sngan", "sngan-d", "dcgan", "wgan-gp")),
    "objectives/test_objectives.py::test_each_trains_and_resumes_to_the_bit[--loss minimax",
    "objectives/test_objectives.py::test_each_trains_and_resumes_to_the_bit[--loss least-squares",
    "objectives/test_objectives.py::test_each_trains_and_resumes_to_the_bit[--loss wasserstein --clip",
    "commands/test_train_command.py::test_resuming_gives_the_bits_of_the_uninterrupted_run[flags1",
    "commands/test_train_command.py::test_resuming_gives_the_bits_of_the_uninterrupted_run[flags2",
    "commands/test_train_command.py::test_resuming_gives_the_bits_of_the_uninterrupted_run[flags3",
    "commands/test_train_command.py::test_a_signal_finishes_the_step_and_saves[15-143]",
    "importing/test_import.py::test_an_imported_run_is_scored_against_data",
    "evaluation/test_tracking.py::test_the_best_survives_a_resumption",
    "evaluation/test_eval_command.py::test_scoring_an_old_run_does_not_make_it_the_newest",
    "export/test_program.py::test_every_kind_of_generator_draws_the_same_as_a_program[several",
    "export/test_program.py::test_every_kind_of_generator_draws_the_same_as_a_program[grey",
    "export/test_onnx.py::test_every_kind_of_generator_draws_the_same_in_onnxruntime[sagan-128",
    "plugins/test_example_packages.py::test_every_example_is_used_by_flag_and_recorded",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `SLOW` lists; a line that names no test of a collected file is a mistake and ends the run."""
    collected = {item.nodeid.split("::")[0].removeprefix("tests/") for item in items}
    whole = all("::" not in argument for argument in items[0].config.args) if items else False
    for line in SLOW:
        found = [item for item in items if line in item.nodeid]
        for item in found:
            item.add_marker(pytest.mark.slow)
        if whole and not found and line.split("::")[0] in collected:
            raise pytest.UsageError(f"tests/conftest.py: SLOW names no test: {line}")
