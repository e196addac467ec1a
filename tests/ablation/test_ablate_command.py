"""`sagan ablate`: runs that differ in attention only, intervals of their differences, and verdicts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cli import fails, ok, sagan
from support.idx_files import idx_folder, picture_folder

from sagan_cli.ablation import measures, report, trials
from sagan_cli.ablation.curves import Bar, Panel, curves
from sagan_cli.ablation.statistics import Comparison, compare, t_interval, t_quantile, wilson
from sagan_cli.ablation.trials import parameters, spec_of, specs_of
from sagan_cli.ablation.variants import parse_variants
from sagan_cli.attention.plotting import encode
from sagan_cli.config.schema import Config, ModelConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError
from sagan_cli.evaluation import records
from sagan_cli.evaluation.image_sets import RealImages
from sagan_cli.loggers import Progress

TINY = ("--size", 16, "--width", 2, "--batch", 4, "--set", "model.latent=4", "--device", "cpu")
WITHOUT_FID = ("--extractor", "none", "-n", 24)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idx_folder(tmp_path_factory.mktemp("data") / "idx", count=60)


def tiny(data: Path, *more: object) -> tuple[object, ...]:
    return ("ablate", "--data", data, *TINY, *more)


def checkpoints(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every checkpoint file of every run: when it was written, and what is in it."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.glob("*/checkpoints/*/*.safetensors"))
    }


def test_two_variants_and_two_seeds_from_end_to_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = tiny(data, "--attn", "none,8", "--seeds", 2, "--steps", 2, "-n", 24, "--out", "a")
    done = sagan(*flags, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "a/ablation.json").read_text())
    assert [(r["variant"], r["seed"]) for r in result["runs"]] == [("none", 0), ("8", 0), ("none", 1), ("8", 1)]
    names = ["attn-8-seed0", "attn-8-seed1", "attn-none-seed0", "attn-none-seed1"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_dir()) == names
    none, eight = result["variants"]
    assert none["gamma"] == {}
    assert set(eight["gamma"]) == set(eight["strength"]) == {"G8", "D8"}
    assert none["g_parameters"] < eight["g_parameters"]
    for run in result["runs"]:
        assert {"fid", "spread", "distinct", "images_per_second"} <= set(run["values"])
        (record,) = records.read_records(tmp_path / run["run"])
        assert record["value"] == run["values"]["fid"]
        assert record["n_fake"] == 24
        record = json.loads((tmp_path / run["run"] / "run.json").read_text())
        assert record["status"] == "finished"
        assert record["config"]["model"]["attn_at"] == run["variant"]
        assert record["sources"]["train.seed"] == "sagan ablate"
    fid = [r["values"]["fid"] for r in result["runs"] if r["variant"] == "8"]
    assert eight["values"]["fid"]["mean"] == pytest.approx(np.mean(fid))
    assert [v["measure"] for v in result["verdicts"]] == ["fid", "spread"]
    assert result["verdicts"][0]["sentence"].encode() in done.stderr
    text = (tmp_path / "a/ablation.md").read_text()
    assert result["verdicts"][0]["sentence"] in text
    assert report.table(result["variants"]) in text
    figure = Image.open(tmp_path / "a/ablation.png")
    assert figure.width > 400
    assert len(figure.getcolors(1 << 20) or []) > 10

    # Again: nothing is trained, nothing is measured.
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished run was touched")

    before = checkpoints(tmp_path / "a")
    assert len(before) == 8
    with monkeypatch.context() as patch:
        patch.setattr(trials, "train", never)
        patch.setattr(measures, "score_generator", never)
        patch.setattr(measures, "pictures", never)
        begun = time.monotonic()
        assert ok(*flags, "-q", cwd=tmp_path).decode().rstrip("\n") == report.table(result["variants"])
        assert time.monotonic() - begun < 10
    assert checkpoints(tmp_path / "a") == before

    # More of both goes on from there, and asks for no other budget by the way.
    ok(*tiny(data, "--attn", "8", "--seeds", 1, "--steps", 3, "--out", "a"), *WITHOUT_FID, "-q", cwd=tmp_path)
    assert [p.name for p in (tmp_path / "a/attn-8-seed0/checkpoints").iterdir() if p.name > "00000002"] == ["00000003"]
    assert "has 3 steps already: give --steps 3" in fails(2, *flags, cwd=tmp_path)
    assert "--width 2, not 4" in fails(2, *flags, "--steps", 3, "--width", 4, cwd=tmp_path)


def test_runs_differ_in_attention_alone(data: Path, tmp_path: Path) -> None:
    ok(*tiny(data, "--attn", "8", "--seeds", 1, "--steps", 2, "--out", "a"), *WITHOUT_FID, cwd=tmp_path)
    flags = ("--latent", 4, "--attn-at", 8, "--seed", 0, "--steps", 2, "--out", "b")
    ok("train", "--data", data, *TINY, *flags, cwd=tmp_path)
    files = [tmp_path / run / "checkpoints/00000002/model.safetensors" for run in ("a/attn-8-seed0", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interrupted_ablation_goes_on_and_ends_with_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = tiny(data, "--attn", "none,8", "--seeds", 1, "--steps", 3, *WITHOUT_FID)
    ok(*flags, "--out", "whole", cwd=tmp_path)
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 4:  # the first step of the second run
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", interrupt)
        done = sagan(*flags, "--out", "parts", cwd=tmp_path)
    assert done.returncode == 130
    assert done.stdout == b""
    assert b"the same command resumes" in done.stderr
    assert sorted(checkpoints(tmp_path / "parts")) == [
        f"{run}/checkpoints/{step}/{kind}.safetensors"
        for run, step in (("attn-8-seed0", "00000001"), ("attn-none-seed0", "00000003"))
        for kind in ("model", "state")
    ]
    assert not (tmp_path / "parts/ablation.json").exists()
    first = checkpoints(tmp_path / "parts")["attn-none-seed0/checkpoints/00000003/model.safetensors"]
    ok(*flags, "--out", "parts", cwd=tmp_path)
    whole, parts = checkpoints(tmp_path / "whole"), checkpoints(tmp_path / "parts")
    assert parts["attn-none-seed0/checkpoints/00000003/model.safetensors"] == first
    for name, (_, content) in whole.items():
        assert parts[name][1] == content, name
    assert (tmp_path / "parts/ablation.json").exists()


def test_a_structure_score_is_counted_and_pooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_folder(tmp_path / "pictures")

    def structure(pictures: np.ndarray) -> np.ndarray:
        return np.asarray(pictures.reshape(len(pictures), -1).mean(axis=1) > 127.5)

    monkeypatch.setattr(RealImages, "measure", lambda self, name: structure)
    flags = ("ablate", "--data", tmp_path / "pictures", *TINY, *WITHOUT_FID, "--attn", "none,residual", "--seeds", 2)
    result = json.loads(ok(*flags, "--steps", 1, "--json", cwd=tmp_path))
    for variant in result["variants"]:
        own = [r for r in result["runs"] if r["variant"] == variant["variant"]]
        pooled = variant["values"]["structure"]["pooled"]
        assert pooled["hits"] == sum(r["structure_hits"] for r in own)
        assert pooled["count"] == 48
        assert pooled["interval"] == list(wilson(pooled["hits"], 48))
        for run in own:
            assert run["intervals"]["structure"] == list(wilson(run["structure_hits"], 24))
            assert run["values"]["structure"] == run["structure_hits"] / 24
            assert "fid" not in run["values"]
    assert {v["measure"] for v in result["verdicts"]} == {"structure", "spread"}
    assert result["verdicts"][0]["variant"] == "residual"
    assert "pooled over seeds" in result["verdicts"][0]["sentence"]


def test_the_plan_trains_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    flags = tiny(data, "--attn", "none,residual,paper@8,nonlocal@8", "--seeds", 2, "--steps", 100, "--plan")
    plan = json.loads(ok(*flags, "--json", cwd=tmp_path))
    assert [t["variant"] for t in plan["twins"]] == ["none", "residual", "paper@8", "nonlocal@8"]
    assert all(t["steps_left"] == 200 and t["seconds_per_step"] > 0 for t in plan["twins"])
    assert plan["seconds_left"] == pytest.approx(sum(200 * t["seconds_per_step"] for t in plan["twins"]))
    assert not list(tmp_path.iterdir())
    lines = ok(*flags, cwd=tmp_path).decode().splitlines()
    assert len(lines) == 6
    assert lines[2].startswith("| none | 1,369 | 1,251 | 2 | 200 |")


@pytest.mark.parametrize(
    ("attn", "complaint"),
    [
        ("9", "--attn 9: images of 16 have feature maps 8, not 9"),
        ("none,8+9", "--attn 8+9: images of 16 have feature maps 8, not 9"),
        ("foo@16", "--attn foo@16: no such variant; write none, auto, a side"),
        ("papr@8", "--attn papr@8: no such variant (did you mean 'paper'?)"),
        ("residul", "--attn residul: no such variant (did you mean 'residual'?)"),
        ("8+8", "--attn 8+8: names a map twice"),
        ("paper@", "--attn paper@: no such variant"),
        ("none@8", "--attn none@8: no such variant"),
        ("0", "--attn 0: no such variant"),
        (" , ", "--attn: no variant"),
        ("8,official@8", "--attn: 8 and 8 are the same variant"),
        ("residual,residual@8", "--attn: residual and residual@8 are the same variant"),
    ],
)
def test_wrong_variants_are_named(attn: str, complaint: str, data: Path, tmp_path: Path) -> None:
    assert complaint in fails(2, *tiny(data, "--attn", attn), cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_refusals_name_the_flag(data: Path, tmp_path: Path) -> None:
    assert "--extractor clasifier" in fails(2, *tiny(data, "--attn", "none", "--extractor", "clasifier"), cwd=tmp_path)
    own = ("--set", "model.attn_at=8")
    assert "--set model.attn_at: is set by --attn here" in fails(2, *tiny(data, "--attn", "none", *own), cwd=tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    assert "--out run: is a single run" in fails(2, *tiny(data, "--attn", "none", "--out", "run"), cwd=tmp_path)


def test_the_port_is_compared_with_its_own_controls(data: Path, tmp_path: Path) -> None:
    flags = tiny(data, "--system", "port", "--seeds", 1, "--steps", 1, *WITHOUT_FID, "--out", "a")
    flags = (*flags, "--size", 32)
    result = json.loads(ok(*flags, "--json", cwd=tmp_path))
    assert (result["arch"], result["system"]) == ("sagan-dcgan", "port")
    rows = {row["variant"]: row for row in result["variants"]}
    assert list(rows) == ["none", "residual", "port"]
    assert [rows[name]["sides"] for name in rows] == [[], [16], [16]]
    assert set(rows["port"]["gamma"]) == {"G16", "D4"}, "the published stages"
    assert rows["none"]["g_parameters"] < rows["port"]["g_parameters"]
    # Attention is compared with the control at the same stages.
    assert ("port", "residual") in {(v["variant"], v["against"]) for v in result["verdicts"]}
    records = {name: json.loads((tmp_path / f"a/attn-{name}-seed0/run.json").read_text()) for name in rows}
    assert {name: r["config"]["model"]["attn_at"] for name, r in records.items()} == {
        "none": "none", "residual": "auto", "port": "auto",
    }  # fmt: skip
    assert records["port"]["model"]["options"] == {"attention": "port", "places": "published"}
    assert records["residual"]["config"]["train"]["beta1"] == 0.0
    assert b"system      port\n" in ok("info", "a/attn-port-seed0", cwd=tmp_path)
    # Such a run equals the run that the system trains, and resumes as one.
    ok("train", "--resume", "a/attn-port-seed0", "--steps", 2, cwd=tmp_path)
    with_train = ("--system", "port", "--size", 32, "--latent", 4, "--width", 2, "--batch", 4, "--device", "cpu")
    ok("train", "--data", data, *with_train, "--steps", 2, "--out", "b", cwd=tmp_path)
    files = [tmp_path / run / "checkpoints/00000002/model.safetensors" for run in ("a/attn-port-seed0", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("base", "attn", "complaint"),
    [
        (("--arch", "dcgan"), "none,8", "--attn 8: --attn-at 8: architecture 'dcgan' has no attention"),
        (
            ("--arch", "dcgan"),
            "none,auto",
            "--attn auto: architecture 'dcgan' has no default map for images of 16",
        ),
        (("--arch", "dcgan"), "paper@8", "--attn paper@8: --attention paper: architecture 'dcgan' has no such option"),
        (("--system", "cifar"), "none,9", "--attn 9: images of 16 have feature maps 8, not 9"),
        (("--system", "cifar"), "auto,8", "--attn: official and 8 are the same variant"),
        (("--system", "papr"), "none", "--system papr: no such system (did you mean 'paper'?)"),
        (("--arch", "sagan-dcgn"), "none", "--arch sagan-dcgn: no such architecture (did you mean 'sagan-dcgan'?)"),
    ],
)
def test_what_an_architecture_cannot_do_is_said_before_anything_is_trained(
    base: tuple[str, str], attn: str, complaint: str, data: Path, tmp_path: Path
) -> None:
    assert complaint in fails(2, *tiny(data, *base, "--attn", attn), cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_architecture_has_a_variant_without_attention(data: Path, tmp_path: Path) -> None:
    for arch in ("dcgan", "sagan-tutorial", "sagan-cifar"):
        plan = json.loads(ok(*tiny(data, "--arch", arch, "--attn", "none", "--plan", "--json"), cwd=tmp_path))
        assert [t["sides"] for t in plan["twins"]] == [[]]
        assert plan["out"].endswith(f"-{arch}16")


def test_variants_have_one_name_each() -> None:
    found = specs_of(
        parse_variants("none, 16+8, official@32, residual, Paper@16, nonlocal"), ModelSpec(64, 64), Config()
    )
    assert [(v.name, v.attention, spec.attn_at) for v, spec in found.items()] == [
        ("none", "official", ()), ("8+16", "official", (8, 16)), ("32", "official", (32,)),
        ("residual", "residual", (32,)), ("paper@16", "paper", (16,)), ("nonlocal", "nonlocal", (32,)),
    ]  # fmt: skip
    assert [spec.options["attention"] for spec in found.values()] == [v.attention for v in found]
    with pytest.raises(UsageError, match=r"^--attn residual: architecture 'sagan' has no default map for .* 12x68;"):
        specs_of(parse_variants("residual"), ModelSpec(12, 68), Config())


def test_a_side_alone_means_the_block_that_the_networks_come_with() -> None:
    said = parse_variants("none, auto, 16, port@8, auto@32, official, official@16", "port")
    assert [(v.name, v.attention, v.sides) for v in said] == [
        ("none", "port", ()), ("port", "port", None), ("16", "port", (16,)), ("8", "port", (8,)),
        ("32", "port", (32,)), ("official", "official", None), ("official@16", "official", (16,)),
    ]  # fmt: skip
    # A plugin's own block has no name here.
    assert [(v.name, v.attention, v.sides) for v in parse_variants("auto,16,paper@8", "auto")] == [
        ("auto", "auto", None), ("16", "auto", (16,)), ("paper@8", "paper", (8,)),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("side", [8, 16])
def test_the_control_has_as_many_parameters_as_attention(width: int, side: int) -> None:
    """The networks to 1 %; the blocks by themselves to 10 %, which is as near as whole channels come at 32 and 64."""
    base = ModelSpec(32, 32, num_classes=6, base_width=width)

    def count(text: str) -> np.ndarray:
        (variant,) = parse_variants(text)
        return np.array(
            parameters("sagan", spec_of(base, variant, Config(model=ModelConfig(attention=variant.attention))))
        )

    none, attention, control = (count(text) for text in ("none", str(side), f"residual@{side}"))
    blocks = (control - none) / (attention - none)
    assert (abs(control / attention - 1) < 0.01).all()
    assert (abs(blocks - 1) < 0.1).all(), blocks


@pytest.mark.parametrize(
    ("hits", "count", "interval"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_is_as_published(hits: int, count: int, interval: tuple[float, float]) -> None:
    assert wilson(hits, count) == pytest.approx(interval, abs=6e-5)
    low, high = wilson(count - hits, count)
    assert (1 - high, 1 - low) == pytest.approx(interval, abs=6e-5)


@pytest.mark.parametrize(
    ("freedom", "level", "t"),
    # Abramowitz and Stegun 1964, table 26.10
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (3, 0.95, 3.182), (4, 0.99, 4.604), (9, 0.95, 2.262), (120, 0.95, 1.980)],
)
def test_t_is_as_tabled(freedom: int, level: float, t: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(t, abs=5.01e-4)


def test_t_and_wilson_equal_the_exact_series_of_earlier_versions() -> None:
    want = {
        (0.95, 1): 12.706204736174659,
        (0.95, 2): 4.302652729749458,
        (0.95, 5): 2.570581835636314,
        (0.99, 4): 4.604094871349981,
        (0.9, 29): 1.6991270265334957,
    }
    for (level, freedom), t in want.items():
        assert t_quantile(level, freedom) == pytest.approx(t, rel=1e-13)
    assert wilson(352, 510) == pytest.approx((0.6487670233015302, 0.728781336547138), rel=1e-14)
    assert (wilson(0, 24)[0], wilson(24, 24)[1]) == (0.0, 1.0)


def test_t_interval_of_numbers_worked_by_hand() -> None:
    # mean 2, standard deviation 1, 4.3027 / sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    assert t_interval([5.0]) is None
    paired = compare({0: 0.9, 1: 0.8, 2: 0.7, 7: 0.0}, {2: 0.5, 0: 0.7, 1: 0.6})
    assert paired is not None
    assert (paired.difference, paired.seeds, paired.sign) == (pytest.approx(0.2), 3, 1)
    assert paired.interval == pytest.approx((0.2, 0.2))
    assert compare({0: 1.0}, {1: 1.0}) is None


def rows(
    name: str, sides: list[int], fid: list[float], hits: list[int] | None = None, n: int = 100
) -> list[dict[str, Any]]:
    """Runs as the command collects them."""
    return [
        {
            "variant": name, "attention": "residual" if name == "residual" else "official", "sides": sides,
            "options": {}, "seed": seed, "n": n, "g_parameters": 10, "d_parameters": 20, "gamma": {}, "strength": {},
            "values": {"fid": value, **({"structure": hits[seed] / n} if hits else {})},
            **({"structure_hits": hits[seed]} if hits else {}),
        }
        for seed, value in enumerate(fid)
    ]  # fmt: skip


def sentences(*found: list[dict[str, Any]]) -> dict[tuple[str, str, str], tuple[str, str]]:
    runs = [row for some in found for row in some]
    variants = report.summary(list(dict.fromkeys(r["variant"] for r in runs)), runs)
    return {
        (v["variant"], v["against"], v["measure"]): (v["verdict"], v["sentence"])
        for v in report.verdicts(variants, runs)
    }


def test_verdicts_on_equal_and_on_clearly_different_numbers() -> None:
    said = sentences(
        rows("none", [], [30.0, 31.0, 32.0], [50, 52, 48]),
        rows("residual", [16], [31.0, 30.0, 32.0], [52, 48, 50]),
        rows("16", [16], [20.0, 20.5, 22.0], [90, 91, 89]),
        rows("8", [8], [40.0, 41.5, 42.0], [50, 52, 48]),
    )
    verdict, text = said["16", "none", "fid"]
    assert verdict == "better"
    assert text == "16 against none, FID: better by 10.2 (interval 9.45 to 10.9)"
    verdict, text = said["16", "none", "structure"]
    assert verdict == "better"
    assert text.startswith("16 against none, correct images: better by 40.0 points (interval 37.5 to 42.5)")
    assert text.endswith("pooled over seeds 90.0% (86.1% to 92.9%) and 50.0% (44.4% to 55.6%), which do not overlap")
    assert said["8", "none", "fid"][0] == "worse"
    assert "worse by 10.2 (interval 9.45 to 10.9)" in said["8", "none", "fid"][1]
    verdict, text = said["8", "none", "structure"]
    assert verdict == "noise"
    assert "the difference is within the noise of 3 seeds (+0.0 points, interval 0.0 to 0.0)" in text
    assert "which overlap" in text
    assert said["residual", "none", "fid"][0] == "noise"
    assert "within the noise of 3 seeds (0, interval -2.48 to 2.48)" in said["residual", "none", "fid"][1].replace(
        "+0", "0"
    )
    # Attention is compared with the control at the same map only.
    assert ("16", "residual", "fid") in said
    assert ("8", "residual", "fid") not in said


def test_one_seed_gives_no_verdict_and_no_baseline_says_so() -> None:
    said = sentences(rows("none", [], [30.0]), rows("16", [16], [20.0]))
    assert said["16", "none", "fid"] == ("unknown", "16 against none, FID: -10 with one seed, so its noise is unknown")
    assert sentences(rows("16", [16], [20.0])) == {}
    assert report.outcome(Comparison(1.0, (0.5, 1.5), 3), "spread") == "more"
    assert report.outcome(Comparison(-1.0, (-1.5, -0.5), 3), "spread") == "less"


def test_diversity_tells_collapse_from_variety() -> None:
    rng = np.random.default_rng(0)
    real = {0: measures.spread_of(rng.integers(0, 255, (40, 16, 16, 3), dtype=np.uint8))}
    alike = measures.spread_of(np.repeat(rng.integers(0, 255, (1, 16, 16, 3), dtype=np.uint8), 40, axis=0))
    assert measures.relative({0: alike}, real) == {"spread": 0.0, "distinct": 0.0}
    other = measures.spread_of(rng.integers(0, 255, (40, 16, 16, 3), dtype=np.uint8))
    found = measures.relative({0: other}, real)
    assert found["spread"] == pytest.approx(1, abs=0.02)
    assert found["distinct"] > 0.8
    twice = np.repeat(rng.integers(0, 255, (20, 16, 16, 3), dtype=np.uint8), 2, axis=0)
    assert measures.relative({0: measures.spread_of(twice)}, real)["distinct"] == 0.0
    assert measures.relative({0: measures.spread_of(twice[:1])}, real) == {}


def test_the_figure_shows_every_seed_and_names_every_variant() -> None:
    panels = [
        Panel("built right", "", [Bar("none", (0.5, 0.5, 0.6), (0.4, 0.7)), Bar("16", (0.9,), None)], percent=True),
        Panel("FID", "", [Bar("none", (), None), Bar("16", (20.0, 22.0), (10.0, 30.0))]),
    ]
    plot = curves(panels, title="t", lines=["a line"])
    first, second = plot.figure.axes
    dots = [[line.get_xydata() for line in axes.lines if line.get_marker() == "o"] for axes in (first, second)]
    assert [[len(values) for values in panel] for panel in dots] == [[3, 1], [0, 2]]
    for axes, panel in zip((first, second), dots, strict=True):
        inside = axes.transData.transform(np.concatenate(panel))
        assert (inside > axes.bbox.min).all()
        assert (inside < axes.bbox.max).all()
        assert len(np.unique(inside, axis=0)) == len(inside), "seeds of equal values are visible"
    np.testing.assert_array_equal(dots[0][0][:, 0], [0.5, 0.5, 0.6])
    assert dots[0][0][:, 1].mean() == pytest.approx(0)
    intervals = [line.get_xdata() for line in second.lines if line.get_linestyle() == "-"]
    np.testing.assert_array_equal(intervals, [[10.0, 30.0]])
    words = [text.get_text() for text in plot.figure.texts]
    assert words.count("none") == words.count("16") == 1
    assert "none 53.3 %, 16 90 %" in plot.description
    assert "none unknown" in plot.description
    encode(plot, "png", {}, scale=2)
    ticks = [label.get_text() for label in first.get_xticklabels()]
    assert {"40 %", "60 %", "80 %"} <= set(ticks)
    renderer = plot.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in plot.figure.texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
