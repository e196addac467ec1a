"""A plugin's metric is listed, computed, recorded with its knobs, compared and judged, by its name alone."""

from __future__ import annotations

import json
from pathlib import Path

from support.cli import TINY
from support.fake_plugins import call, install
from support.idx_files import idx_folder

SPREAD = """
from sagan_cli.contracts import Metric, Score

def measure(images):
    return images.reshape(len(images), -1).std(axis=1)

def compute(inputs):
    assert inputs.fake.rows.shape[1] == inputs.real.rows.shape[1] == 1
    gap = float(abs(inputs.fake.rows.mean() - inputs.real.rows.mean())) * inputs.knobs["spread_scale"]
    yield Score("spread", gap, (gap / 2, 2 * gap))

METRIC = Metric("difference of mean contrast", {"spread": DIRECTION}, compute, None, "rows",
                knobs={"spread_scale": 1}, measure=measure)
"""


def test_a_plugins_metric_is_computed_recorded_and_compared(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(
        site, "fake-spread", "[sagan.metrics]\nspread = spread_metric:METRIC\n",
        spread_metric=SPREAD.replace("DIRECTION", "'lower'"),
    )  # fmt: skip
    idx_folder(tmp_path / "idx", count=60)

    def sagan(*args: object) -> str:
        done = call(*map(str, args), path=site, SAGAN_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    run, idx = tmp_path / "run", tmp_path / "idx"
    sagan("train", "--data", idx, "--size", 16, *TINY, "--steps", 2, "--out", run, "--quiet")
    flags = ("eval-fid", run, "--metrics", "spread", "-n", 16, "--json", "--quiet")
    record = json.loads(sagan(*flags))
    assert record["extractor"] is None, "it needs no network"
    assert (record["metric"], record["spread_scale"], record["n_real"]) == ("spread", 1, 16)
    assert record["interval"] == [record["value"] / 2, record["value"] * 2]
    again = json.loads(sagan(*flags, "--seed", 100))
    ranking = json.loads(sagan("compare", run, "--metric", "spread", "--json"))
    assert ranking["better"] == "lower"
    assert [e["value"] for e in ranking["ranking"]] == sorted([record["value"], again["value"]])
    sagan(*flags, "--knob", "spread_scale=3")
    alone = call("compare", str(run), path=site)
    assert "2 of 3 scores left out: spread_scale 1, not 3" in alone.stderr
    assert "only one score with spread" in alone.stderr
    assert call(*map(str, flags), "--max", str(record["value"] / 2), path=site).returncode == 1
    assert call("compare", str(run), "--metric", "spread").returncode == 2, "unknown without the plugin"


def test_a_metric_without_a_direction_is_refused(tmp_path: Path) -> None:
    install(
        tmp_path, "fake-spread", "[sagan.metrics]\nspread = spread_metric:METRIC\n",
        spread_metric=SPREAD.replace("DIRECTION", "'up'"),
    )  # fmt: skip
    done = call("eval-fid", "nowhere", "--metrics", "spread", path=tmp_path)
    assert done.returncode != 0
    assert "'lower' or 'higher'" in done.stderr
