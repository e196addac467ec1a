"""`sagan compare` as a user runs it: the ranking, the refusals, and what it says about which scores it took."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli import fails, ok, sagan
from support.fake_plugins import call
from support.score_records import record

from sagan_cli import runs

HEAVY = ("torch", "torchvision", "torch_fidelity", "numpy", "PIL", "safetensors", "rich")
REPORT = """
import sys
from sagan_cli.cli import main
try:
    main(sys.argv[1:])
finally:
    print("IMPORTED", *sorted(sys.modules), file=sys.stderr)
"""


def run_of(folder: Path, name: str, *lines: dict[str, Any]) -> str:
    """A run directory with these records, by its path within `folder`."""
    run = runs.create(folder / "runs", name)
    run.write({"status": "finished"})
    for line in lines:
        run.append_metrics({"step": line["step"], "d_loss": 1.0})
        run.append_metrics(line)
    return str(run.path.relative_to(folder))


def scored(fid: float, half: float = 0.5, **changes: Any) -> dict[str, Any]:
    """A record with an FID and its interval."""
    span = [fid - half, fid + half]
    return record(fid=fid, interval=span, intervals={"fid": span}, **changes)


def said(*args: object, cwd: Path) -> list[str]:
    """Lines on standard error of a call that succeeds."""
    done = sagan(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stderr.decode().splitlines()


def test_runs_are_ranked_best_first_in_an_aligned_table(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", scored(20.0, step=10000))
    b = run_of(tmp_path, "b", scored(9.5))
    c = run_of(tmp_path, "c", scored(20.75))
    lines = ok("compare", a, b, c, cwd=tmp_path).decode().splitlines()
    assert lines == [
        "RANK     FID      95 % INTERVAL       STEP   EXTRACTOR            NAME",
        "1        9.5000   9.0000 .. 10.0000   5000   inception-v3-compat  runs/002-b",
        "2        20.0000  19.5000 .. 20.5000  10000  inception-v3-compat  runs/001-a",
        "3     ~  20.7500  20.2500 .. 21.2500  5000   inception-v3-compat  runs/003-c",
    ]
    assert said("compare", a, b, c, cwd=tmp_path) == [
        "~ the 95 % interval overlaps that of the line above: the difference may be due to chance"
    ]
    assert said("compare", a, b, cwd=tmp_path) == []


def test_the_metric_decides_which_way_is_up(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", record(fid=1.0, isc=5.0, kid=0.002))
    b = run_of(tmp_path, "b", record(fid=2.0, isc=9.0, kid=0.001))
    for metric, best in {"fid": a, "isc": b, "kid": b}.items():
        report = json.loads(ok("compare", a, b, "--metric", metric, "--json", cwd=tmp_path))
        assert report["ranking"][0]["name"] == best
        assert report["better"] == ("higher" if metric == "isc" else "lower")


def test_json_is_one_object_with_what_was_shared(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", scored(3.0, seed=1))
    b = run_of(tmp_path, "b", scored(3.0, step=7))
    report = json.loads(ok("compare", a, b, "--json", "-q", cwd=tmp_path))
    assert set(report) == {"metric", "better", "ranking", "shared"}
    assert report["shared"]["n_fake"] == 50000
    assert "seed" not in report["shared"]
    first, second = report["ranking"]
    assert (first["rank"], second["rank"]) == (1, 1)  # no order among equals
    assert first == {
        "rank": 1, "name": a, "value": 3.0, "interval": [2.5, 3.5], "overlaps_previous": False,
        "extractor": "inception-v3-compat", "fake": "runs/001-x", "checkpoint": "runs/001-x/checkpoints/00005000",
        "step": 5000, "seed": 1, "protocol": "default", "time": "2026-11-02T10:00:00+00:00",
    }  # fmt: skip
    assert (second["step"], second["overlaps_previous"]) == (7, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_fake": 10000}, ["n_fake is 50000 for the first and 10000 for the second", "the same -n"]),
        ({"extractor": "classifier"}, ["extractor is inception-v3-compat", "classifier", "the same --extractor"]),
        ({"weights_sha256": "77" * 32}, ["weights_sha256 is abababababab", "777777777777 for", "the same --weights"]),
        ({"real_size": "64x64", "data_digest": "1" * 64}, ["real_size is 32x32", "--fit"]),
        ({"split": "test"}, ["split is train for the first and test for the second", "the same --split"]),
        ({"truncation": 0.5}, ["truncation is not given for the first and 0.5", "the same --protocol"]),
        ({"ema": False}, ["ema is True for the first and False for the second", "the same --protocol"]),
        ({"layers": {"fid": "768", "kid": "2048", "isc": "l", "prc": "2048"}}, ["layers.fid is 2048", "768"]),
    ],
    ids=str,
)
def test_scores_of_different_measurements_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    a, b = run_of(tmp_path, "a", record()), run_of(tmp_path, "b", record(**changes))
    for extra in ((), ("--json",)):
        line = fails(1, "compare", a, b, *extra, cwd=tmp_path)
        assert line.startswith(f"sagan: error: {a} and {b} cannot be ranked by fid: ")
        assert all(word in line for word in words), line


def test_pictures_between_two_models_do_not_hide_that_these_differ(tmp_path: Path) -> None:
    a, b = run_of(tmp_path, "a", record()), run_of(tmp_path, "b", record(ema=False))
    pictures = record(fid=3.0, fake="theirs/", fake_kind="folder", step=None, checkpoint=None, ema=None, labels=None)
    (tmp_path / "theirs.json").write_text(json.dumps(pictures))
    lines = ok("compare", a, "theirs.json", cwd=tmp_path).decode().splitlines()
    assert lines[1].split() == ["1", "3.0000", "12.0000", "..", "13.0000", "-", "inception-v3-compat", "theirs.json"]
    assert said("compare", a, "theirs.json", cwd=tmp_path)[0].startswith("theirs.json: sampling settings are unknown")
    assert "ema is True" in fails(1, "compare", a, "theirs.json", b, cwd=tmp_path)


def test_of_several_scores_the_newest_with_the_metric_is_taken_and_said(tmp_path: Path) -> None:
    bare = {"intervals": {}, "interval": None}
    a = run_of(
        tmp_path, "a", scored(30.0, step=100), scored(10.0, step=200),
        record(metric="isc", value=7.0, values={"isc": 7.0}, step=300, **bare),
    )  # fmt: skip
    b = run_of(tmp_path, "b", scored(20.0))
    assert ok("compare", a, b, "--metric", "fid", cwd=tmp_path).decode().splitlines()[1].endswith(a)
    assert said("compare", a, b, "--metric", "fid", cwd=tmp_path) == [
        f"{a}: the newest of 2 scores with fid, of step 200"
    ]
    assert said("compare", a, b, "--metric", "fid", "--quiet", cwd=tmp_path) == []
    # Without --metric the first one's newest score decides: IS, which both have.
    assert json.loads(ok("compare", a, b, "--json", cwd=tmp_path))["metric"] == "isc"


def test_one_run_ranks_its_own_checkpoints(tmp_path: Path) -> None:
    a = run_of(
        tmp_path, "a", scored(50.0, step=100, n_fake=1000), scored(45.0, step=100, n_fake=1000), scored(30.0, step=100),
        scored(9.0, step=200, fake="elsewhere/a"), scored(11.0, step=300), scored(10.0, step=300),
    )  # fmt: skip
    rows = [line.split() for line in ok("compare", a, cwd=tmp_path).decode().splitlines()[1:]]
    # Step 300 was scored twice with one seed: the newer score stands for it.
    assert [(r[0], r[-3], r[-1]) for r in rows] == [("1", "200", a), ("2", "300", a), ("3", "100", a)]
    assert f"{a}: 2 of 6 scores left out: n_fake 1000, not 50000" in said("compare", a, cwd=tmp_path)
    b = run_of(tmp_path, "b", scored(9.5, step=1), scored(20.0, step=2))
    assert len(ok("compare", a, b, "--all", cwd=tmp_path).splitlines()) == 1 + 5
    assert len(ok("compare", a, b, cwd=tmp_path).splitlines()) == 1 + 2


def test_a_checkpoint_stands_for_its_step(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", scored(30.0, step=100), scored(9.0, step=200))
    paths = []
    for step in (100, 200):
        folder = tmp_path / a / "checkpoints" / f"{step:08d}"
        folder.mkdir(parents=True)
        (folder / runs.CHECKPOINT_FACTS).write_text("{}")
        paths.append(str(folder.relative_to(tmp_path)))
    rows = ok("compare", *paths, cwd=tmp_path).decode().splitlines()[1:]
    assert [row.split()[-1] for row in rows] == paths[::-1]


def test_a_file_of_many_scores_names_each_by_what_was_scored(tmp_path: Path) -> None:
    scores = [scored(5.0, fake="one/", fake_kind="folder"), scored(4.0, fake="two/", fake_kind="folder")]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(s) + "\n" for s in scores))
    rows = ok("compare", "all.jsonl", cwd=tmp_path).decode().splitlines()[1:]
    assert [row.split()[-1] for row in rows] == ["two/", "one/"]


def test_standard_input_is_a_score_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = run_of(tmp_path, "a", scored(5.0))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(scored(4.0))))
    assert ok("compare", a, "-", cwd=tmp_path).decode().splitlines()[1].endswith("  -")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "stdin: has no score" in fails(1, "compare", a, "-", cwd=tmp_path)


def test_weights_that_nobody_else_has_are_said(tmp_path: Path) -> None:
    a, b = (run_of(tmp_path, n, scored(f, weights_published=False)) for n, f in (("a", 5.0), ("b", 9.0)))
    assert said("compare", a, b, cwd=tmp_path) == [
        "the extractor's weights are not the published ones: these scores cannot be compared with published ones"
    ]


def test_structure_scores_need_no_extractor(tmp_path: Path) -> None:
    bare = {"metric": "structure", "intervals": {}, "interval": None, "layers": {}, "extractor": None,
            "weights_sha256": None, "data_digest": None, "n_real": None}  # fmt: skip
    a, b = (run_of(tmp_path, n, record(value=v, values={"structure": v}, **bare)) for n, v in (("a", 0.5), ("b", 0.75)))
    rows = [line.split() for line in ok("compare", a, b, cwd=tmp_path).decode().splitlines()[1:]]
    assert rows == [["1", "0.7500", "-", "5000", "-", b], ["2", "0.5000", "-", "5000", "-", a]]


def test_wrong_command_lines_are_one_line(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", record())
    assert "no such metric (did you mean 'recall'?)" in fails(2, "compare", a, "--metric", "recal", cwd=tmp_path)
    assert "nothing: no such run, checkpoint or file" in fails(2, "compare", a, "nothing", cwd=tmp_path)
    assert "is given twice" in fails(2, "compare", a, a, cwd=tmp_path)
    assert "missing argument" in fails(2, "compare", cwd=tmp_path)


def test_what_is_wanting_in_the_scores_is_one_line(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", record())
    b = run_of(tmp_path, "b", record(values={"isc": 5.0}, metric="isc", value=5.0, intervals={}, interval=None))
    empty = run_of(tmp_path, "c")
    assert "only one score with fid to rank" in fails(1, "compare", a, cwd=tmp_path)
    assert f"{b}: has no score with fid, only isc; add it" in fails(1, "compare", a, b, cwd=tmp_path)
    assert f"{empty}: has no score yet; compute one with 'sagan eval-fid {empty}'" in fails(
        1, "compare", a, empty, cwd=tmp_path
    )
    odd = run_of(tmp_path, "d", record(metric="novel", value=1.0, values={"novel": 1.0}, intervals={}, interval=None))
    assert "no installed metric computes 'novel'" in fails(1, "compare", odd, a, cwd=tmp_path)
    (tmp_path / "bad.json").write_text(json.dumps(record(n_real=None)))
    assert "bad.json: not a sound score record: 'n_real'" in fails(1, "compare", a, "bad.json", cwd=tmp_path)


def test_neither_the_help_nor_the_work_imports_anything_heavy(tmp_path: Path) -> None:
    for name, fid in (("a.json", 1.0), ("b.json", 5.0)):
        (tmp_path / name).write_text(json.dumps(scored(fid)))
    for args in (("compare", "--help"), ("compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))):
        done = call(*args, code=REPORT)
        assert done.returncode == 0, done.stderr
        modules = set(done.stderr.split("IMPORTED", 1)[1].split())
        assert "sagan_cli.commands.compare" in modules
        assert not modules & set(HEAVY)
    assert "Rank scores; stop if they were measured differently." in call("--help").stdout
