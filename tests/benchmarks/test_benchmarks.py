"""The instruments of `benchmarks/`: interleaving and ratios, the gate's judgement, the document's tables."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from support.benchmarks_path import BENCHMARKS  # isort: split

import gate
import measuring
import performance_tables
import performance_targets
import precision_quality
import pytest
import speed
import torch
from parts import attention_time, peaks, pipeline
from parts.implementations import AGAIN, DEFAULT, EXACT, SIDES, TEXTBOOK
from parts.step_profile import flops
from parts.systems import SYSTEMS
from parts.worker import Worker

from sagan_cli.ops.resample import FOLD_FROM

CPU = torch.device("cpu")


def test_rounds_interleave_and_each_begins_with_another_work() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return {"a": 2.0, "b": 1.0, "c": 4.0}[name] * len(order)

    found = measuring.interleaved({n: lambda n=n: work(n) for n in "abc"}, rounds=3, warm=1)  # type: ignore[misc]
    assert "".join(order) == "abcbcacababc"
    assert {len(v) for v in found.values()} == {3}


def test_a_ratio_is_taken_within_its_round() -> None:
    # The machine is ten times slower in the middle round: a ratio of medians would not know.
    slow = [1.0, 10.0, 1.0, 1.0, 1.0]
    rounds = {"ours": [0.5 * s for s in slow], "theirs": slow}
    assert measuring.ratio(rounds, "ours", "theirs") == {
        "median": 0.5, "q1": 0.5, "q3": 0.5, "least": 0.5, "most": 0.5, "rounds": 5,
    }  # fmt: skip


def test_a_summary_knows_its_quartiles() -> None:
    assert measuring.summary([4, 1, 3, 2, 5]) == {
        "median": 3, "q1": 2, "q3": 4, "least": 1, "most": 5, "rounds": 5,
    }  # fmt: skip
    assert measuring.summary([7.0])["q3"] == 7


def test_peak_memory_counts_mebibytes_of_this_process() -> None:
    held = torch.ones(2**25)  # 128 MiB, all of them touched
    assert held.numel() * 4 / 2**20 < measuring.peak_mib() < 1024 * measuring.machine(CPU)["memory_gib"]


def test_the_clock_tells_our_own_time_from_others() -> None:
    clock = measuring.Clock()
    began = sum(1 for _ in range(3_000_000))
    found = clock.read()
    assert began
    assert found["seconds"] >= 0
    assert 0 <= found["steal"] <= 1
    assert found["others_cores"] < measuring.machine(CPU)["cores"] + 1


SAME = {TEXTBOOK: [1.0, 1.1, 0.9, 1.0], AGAIN: [1.02, 1.1, 0.91, 0.99]}


@pytest.mark.parametrize(("value", "off"), [(0.49, False), (0.52, False), (0.60, True)])
def test_the_gate_allows_for_the_noise_and_no_more(value: float, off: bool) -> None:
    seconds = SAME | {EXACT: [value * s for s in SAME[TEXTBOOK]]}
    (found,) = gate.judge("net", seconds, {EXACT: 0.5})
    assert found.off is off
    assert ("SLOWER" in str(found)) is off
    assert "net exact" in str(found)


def test_the_gate_grows_lenient_with_noise() -> None:
    noisy = {TEXTBOOK: [1.0] * 4, AGAIN: [0.8, 1.2, 1.4, 0.9], EXACT: [0.6] * 4}
    (found,) = gate.judge("net", noisy, {EXACT: 0.5})
    assert found.margin > 0.2
    assert not found.off


@pytest.mark.parametrize(("values", "code"), [([0.9, 0.5], 0), ([0.9, 0.9], 1), ([0.5], 0)])
def test_the_gate_fails_only_what_is_off_twice(
    values: list[float], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = iter(values)
    monkeypatch.setattr(
        gate, "measure", lambda name, row, runtime: [gate.Ratio(f"{name} exact", next(turns), 0.6, 0.05)]
    )
    monkeypatch.setattr(gate.tomllib, "loads", lambda text: {"net": {}})
    assert gate.main() == code
    assert capsys.readouterr().out.count("\n") == 1


def test_the_gates_limits_name_systems_and_settings() -> None:
    for name, row in tomllib.loads(gate.LIMITS.read_text(encoding="utf-8")).items():
        assert name in SYSTEMS
        assert 0 < row[DEFAULT] <= row[EXACT] < 1


def test_operations_of_a_convolution_are_those_that_pytorch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SHAPES", {"small": (2, 8, 6)})
    forward = peaks.convolution(torch.float32, CPU, "small")
    both = peaks.convolution_both_ways(torch.float32, CPU, "small")
    assert flops(forward, CPU) == peaks.operations(CPU, "small")
    assert flops(both, CPU) == 3 * peaks.operations(CPU, "small")


def test_all_forms_of_attention_are_one_function() -> None:
    grads = {form: attention_time.pass_of(form, 64, CPU)() for form in attention_time.FORMS}
    for form, other in itertools.pairwise(grads):
        for a, b in zip(grads[form], grads[other], strict=True):
            assert torch.allclose(a, b, atol=1e-5), (form, other)


def test_the_pipeline_is_measured_on_files_that_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "KINDS", (("20x24", (20, 24), 16),))
    monkeypatch.setattr(pipeline, "QUICK", (70, 1))
    (row,) = pipeline.measure(CPU, quick=True)
    assert row["side"] == 16
    assert row["bytes"] > 100
    assert row["read"]["median"] > row["decode"]["median"] > 0


def test_a_section_is_merged_and_leaves_the_others(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    speed.merge(out, "steps", "a", 1)
    speed.merge(out, "peaks", "rates", 2)
    speed.merge(out, "steps", "b", 3)
    speed.merge(out, "steps", "a", 4)
    assert json.loads(out.read_text()) == {"steps": {"a": 4, "b": 3}, "peaks": {"rates": 2}}


def test_the_document_holds_the_tables_of_the_committed_results() -> None:
    text = performance_tables.DOCUMENT.read_text(encoding="utf-8")
    assert performance_tables.render(text) == text, "run python benchmarks/performance_tables.py"


def test_the_document_has_a_place_for_every_cpu_table() -> None:
    text = performance_tables.DOCUMENT.read_text(encoding="utf-8")
    for name in performance_tables.TABLES:
        assert f"<!-- cpu {name} -->" in text


def test_every_table_renders_what_was_measured() -> None:
    whole = _results()
    text = "".join(f"<!-- cpu {name} --><!-- end -->\n" for name in performance_tables.TABLES)
    once = performance_tables.render(text, {"cpu": whole})
    assert "Not measured" not in once
    assert performance_tables.render(once, {"cpu": whole}) == once
    assert "| SAGAN-32, CIFAR-10's network, batch 16 | as run | 1,000 | 500 | 250 | 0.50 (0.50 to 0.50) |" in once
    assert "200 / 100 / 100" in once


def test_targets_say_what_is_missed_by_how_much_and_what_holds_it() -> None:
    lines = performance_targets.rows(_results()).splitlines()
    assert "| SAGAN-32, batch 16 | exact fp32 | 0.58 | 0.50 | reached |" in lines
    assert "| DCGAN-shaped, 64 pixels, batch 16 | exact fp32 | 0.42 | 0.50 | 0.08 |" in lines
    assert "| SAGAN-32, share of the convolution's peak | exact fp32 | 70 % | 60 % | 10 % |" in lines
    assert "| SAGAN-128, batch 4 | default | 0.30 | not measured |  |" in lines
    assert "- DCGAN-shaped, 64 pixels, batch 16, exact fp32: `bmm` 50%." in lines


def test_settings_are_compared_seed_by_seed_within_a_length() -> None:
    scores = {("exact", 0): 0.5, ("default", 0): 0.4, ("exact", 1): 0.9, ("default", 1): 0.8}
    rows = [
        {"data": "set", "steps": steps, "setting": setting, "seed": seed, "structure": score + shift}
        for steps, shift in ((10, 0.0), (20, 0.05))
        for (setting, seed), score in scores.items()
    ]
    short, long = precision_quality.verdicts([*rows, {**rows[0], "seed": 7, "structure": 0.1}])
    assert (short["steps"], long["steps"], short["seeds"]) == (10, 20, 2)
    assert short["difference"] == pytest.approx(-0.1)
    assert long["exact"] == pytest.approx(0.75)
    assert long["inside"], "seeds differ by 0.28, the settings by 0.1"
    (line,) = precision_quality.table({"verdicts": [long]}).splitlines()[2:]
    assert line.startswith("| set | 20 | four legs | 0.75 | 0.65 | -0.1 (")
    assert precision_quality.verdicts(rows[:1]) == []


def test_a_document_without_results_says_how_to_get_them() -> None:
    text = performance_tables.render("<!-- cuda steps --><!-- end -->", {})
    assert "speed.py --device cuda --only steps" in text
    assert "precision_quality.py` does" in performance_tables.render("<!-- cpu quality --><!-- end -->", {})


@pytest.mark.slow
def test_a_worker_takes_steps_counts_them_and_ends() -> None:
    # Of so many images every layer folds its resampling in bf16 too, so that both of our sides count the same.
    batch = FOLD_FROM[torch.bfloat16] // 4**2
    with Worker(system="laptop-32", sides=SIDES, device="cpu", allocator="kept", batch=batch, width=4) as worker:
        assert all(0 < worker.step(name) < 60 for name in SIDES)
        counts = {name: worker.ask("flops", name) for name in SIDES}
        assert counts[EXACT] == counts[DEFAULT] < 0.8 * counts[TEXTBOOK], counts
        assert counts[AGAIN] == counts[TEXTBOOK]
        told = worker.ask("profile", EXACT)
        assert sum(o["share"] for o in told["operators"]) <= 1.001
        assert worker.ask("memory", EXACT) > worker.hello["imported_mib"]
    assert worker.process.returncode == 0


@pytest.mark.slow
def test_the_gate_passes_on_this_machine() -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / "gate.py"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def _results() -> dict[str, Any]:
    """Made-up results in the form of `speed.py`: exact takes half of the textbook's second, default a quarter."""

    def told(value: float) -> dict[str, float]:
        return measuring.summary([value] * 3)

    reading = {
        "seconds": {TEXTBOOK: told(1.0), EXACT: told(0.5), DEFAULT: told(0.25), AGAIN: told(1.0)},
        "ratio": {EXACT: told(0.5), DEFAULT: told(0.25), AGAIN: told(1.0)},
    }
    share = {s: {"of": "float32", "share": told(0.6), "gflops": 200, "peak_gflops": 400} for s in SIDES[:3]}
    systems = {
        name: {
            "title": SYSTEMS[name].title, "batch": SYSTEMS[name].batch, "parameters": [1, 1], "unequal": ["a", "b"],
            "precision": "bf16", "together": reading, "as_run": reading, "share_of_peak": share,
            "flops": {TEXTBOOK: 200e9, EXACT: 100e9, DEFAULT: 100e9},
            "profile": {s: {"operators": [{"name": "aten::bmm", "share": 0.5}], "kernels": None} for s in SIDES[:3]},
            "memory": {s: {"peak_mib": 1000} for s in SIDES[:3]},
        }
        for name in ("dcgan-64", "sagan-32")
    }  # fmt: skip
    forms = list(attention_time.FORMS)
    drawn = (TEXTBOOK, "folded fp32", "folded bf16", "`sagan sample`", "textbook again")
    point = {"seconds": reading["seconds"], "peak_mib": {TEXTBOOK: 2, DEFAULT: 1}, "ratio": reading["ratio"]}
    started = ("import torch", "checkpoint", "exported file", "import torch again")
    conditions = {"seconds": 1.0, "others_cores_before": 0.1, "others_cores": 0.0, "steal": 0.0, "quick": False}
    return {
        "machine": {"facts": measuring.machine(CPU)},
        "quality": {"verdicts": [{"data": "set", "steps": 10, "measure": "fid", "exact": 2.0, "default": 2.1,
                                  "difference": 0.1, "interval": [0.0, 0.2], "deviation_of_seeds": 0.3,
                                  "inside": True}]},
        "steps": {**systems, "conditions": conditions},
        "peaks": {"rates": {"rows": [
            {"what": f"{k}, matrix product", "gflops": told(400.0)} for k in peaks.KINDS]}, "conditions": conditions},
        "sampling": {
            "sagan-32": [{"batch": 64, "pictures_per_second": {k: told(100.0) for k in drawn},
                          "ratio": {k: told(0.5) for k in drawn[1:]}}],
            "start": [{"title": SYSTEMS["sagan-32"].title, "seconds": {k: told(1.0) for k in started},
                       "ratio": {k: told(1.5) for k in started[1:]}}],
        },
        "curves": {
            "attention": [
                {"positions": 1024, "seconds": {f: told(0.01) for f in forms}, "mib": dict.fromkeys(forms, 4.0)}
            ],
            "batch": [{"batch": 4, **point}], "width": [{"width": 16, **point}],
            "processes": [{"processes": 2, "seconds": told(0.2), "batch": 32}],
            "folding": [{"channels": 64, "batch": 4, "side": 8, "ratio": {
                f"{way} {kind}": told(0.5) for way in ("up", "down") for kind in ("fp32", "bf16")}}],
        },
        "data": {"rates": [{"files": "64x64", "side": 64, "bytes": 2900, "pillow": told(1.0), "decode": told(1.0),
                            "pack_two_processes": 2.0, "read": told(9.0)}]},
    }  # fmt: skip
