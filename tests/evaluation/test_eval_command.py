"""`sagan eval-fid` as a user runs it: models and pictures, records, caches, protocols, limits and refusals."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import TINY, command, fails, ok, process, sagan
from support.idx_files import idx_folder, picture_folder
from support.inception_weights import random_inception

from sagan_cli.evaluation import records
from sagan_cli.evaluation.image_sets import PackedImages
from sagan_cli.quadrupeds import SPLITS, count_legs_batch

CLASSIFIER = ("--extractor", "classifier", "-n", 48)
RUN = "runs/001-idx-sagan16"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a conditional run, and the pictures it learnt from."""
    home = tmp_path_factory.mktemp("home")
    idx_folder(home / "idx", count=60)
    ok("train", "--data", home / "idx", "--size", 16, *TINY, "--set", "train.g_lr=0.01", "--steps", 8, cwd=home)
    return home


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


def record(*args: object, cwd: Path) -> dict[str, Any]:
    return records.check(json.loads(ok("eval-fid", *args, "--json", "--quiet", cwd=cwd)), "stdout")


def test_one_line_and_one_record(home: Path) -> None:
    done = sagan("eval-fid", *CLASSIFIER, cwd=home)
    assert done.returncode == 0, done.stderr.decode()
    name, value, extractor = done.stdout.decode().split()
    assert (name, extractor) == ("fid", "classifier")
    assert done.stdout.count(b"\n") == 1
    assert f"scoring {RUN}, step 8".encode() in done.stderr
    assert b"fewer than 2,048" in done.stderr
    (kept,) = records.read_records(home / RUN)[:1]
    assert f"{kept['value']:.4f}" == value
    found = record(*CLASSIFIER, cwd=home)
    expected = {
        "metric": "fid", "extractor": "classifier", "n_fake": 48, "n_real": 48, "protocol": "default", "seed": 0,
        "split": "train", "ema": True, "truncation": None, "precision": "fp32", "device": "cpu", "step": 8,
        "batch_norm": "running", "fake": RUN, "real_size": "16x16", "fit": "pad",
    }  # fmt: skip
    assert {k: found[k] for k in expected} == expected
    assert found["interval"][0] < found["value"] < found["interval"][1]
    assert {"torch", "torch-fidelity", "sagan"} <= found["versions"].keys()
    assert found["seconds"] > 0
    assert len(found["weights_sha256"]) == len(found["data_digest"]) == 64
    assert found["extractor_facts"]["classes"] == 3


def test_the_second_time_touches_no_real_picture_and_agrees_to_the_bit(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ("--metrics", "fid,kid,isc,prc", *CLASSIFIER)
    first = record(*metrics, cwd=home)

    def refused(*_: object) -> None:
        raise AssertionError("a real picture was read")

    with monkeypatch.context() as patched:  # undo() would also undo the test session's cache directory
        patched.setattr(PackedImages, "batches", refused)
        second = record(*metrics, cwd=home)
    assert second["values"] == first["values"]
    assert second["intervals"] == first["intervals"]
    shutil.rmtree(Path(cache()) / "statistics")
    assert record(*metrics, cwd=home)["values"] == first["values"]


def cache() -> str:
    from sagan_cli.data.packing.pack import cache_dir

    return str(cache_dir())


def test_samples_in_a_pipe_score_as_the_model_does(home: Path) -> None:
    model = record(RUN, *CLASSIFIER, cwd=home)
    samples = ok("sample", RUN, "-n", 48, "--format", "npz", "--out", "-", "--quiet", cwd=home)
    done = process("eval-fid", "-", "--data", "idx", *CLASSIFIER, "--json", cwd=home, stdin=samples)
    assert done.returncode == 0, done.stderr.decode()
    found = records.check(json.loads(done.stdout), "stdout")
    assert found["value"] == model["value"]
    assert (found["fake_kind"], found["data_digest"]) == ("stdin", model["data_digest"])


def test_per_class_is_the_plain_loop(home: Path) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found = record(RUN, *CLASSIFIER, "--n-real", "all", "--per-class", cwd=home)
    extractor, pack = classifier(home)
    with np.load(io.BytesIO(ok("sample", RUN, "-n", 48, "--format", "npz", "--out", "-", "-q", cwd=home))) as npz:
        pictures, labels = npz["arr_0"], npz["arr_1"]
    assert set(labels) == {0, 1, 2}
    expected = {}
    for label, name in enumerate(pack.class_names):
        sides = [extractor(pictures[labels == label]), extractor(np.array(pack.images)[pack.labels == label])]
        statistics = [fid_features_to_statistics(side) for side in sides]
        expected[name] = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert found["per_class"] == pytest.approx(expected, rel=1e-4)
    assert found["values"]["intra_fid"] == pytest.approx(np.mean(list(expected.values())), rel=1e-4)
    assert found["value"] == record(RUN, *CLASSIFIER, "--n-real", "all", cwd=home)["value"]


def classifier(home: Path) -> Any:
    """The cached classifier as a function of uint8 (N, H, W, C), and the pack that it was trained on."""
    import contextlib

    import torch

    from sagan_cli.config.schema import DataConfig
    from sagan_cli.evaluation.extractors.classifier import open_classifier
    from sagan_cli.evaluation.extractors.extractor import three_channels
    from sagan_cli.evaluation.image_sets import fitted_images

    def silent(label: str, total: int) -> Any:
        return contextlib.nullcontext(lambda done, total=None: None)

    data = DataConfig(data=str(home / "idx"))
    pack = fitted_images(data, 16, 16, 1, silent, lambda line: None).pack
    assert pack is not None
    folder = Path(cache()) / "classifiers"
    extractor = open_classifier(
        pack.images, pack.labels, pack.class_names, pack.digest, folder=folder, device=torch.device("cpu"),
        progress=silent, notify=lambda line: None,
    )  # fmt: skip
    return lambda pictures: extractor(three_channels(pictures), ("features",))["features"], pack


def test_limits_are_exit_codes_for_pipelines(home: Path) -> None:
    value = record(RUN, *CLASSIFIER, cwd=home)["value"]
    assert ok("eval-fid", RUN, *CLASSIFIER, "--max", value + 1, cwd=home)
    done = sagan("eval-fid", RUN, *CLASSIFIER, "--max", value / 2, "--quiet", cwd=home)
    assert done.returncode == 1
    assert done.stdout.startswith(b"fid ")
    assert b"is above --max" in done.stderr
    assert sagan("eval-fid", RUN, *CLASSIFIER, "--min", value + 1, cwd=home).returncode == 1


def test_protocols_and_flags_are_in_the_record_and_in_the_number(home: Path) -> None:
    plain = record(RUN, *CLASSIFIER, cwd=home)
    raw = record(RUN, *CLASSIFIER, "--raw", cwd=home)
    assert (raw["ema"], raw["protocol"], raw["departures"]) == (False, "default", ["ema", "extractor", "n_fake"])
    standing = record(RUN, *CLASSIFIER, "--protocol", "biggan", "--metrics", "fid", cwd=home)
    assert standing["batch_norm"] == "standing"
    from_data = record(RUN, *CLASSIFIER, "--protocol", "stylegan", "--metrics", "fid", cwd=home)
    assert from_data["labels"] == "data"
    truncated = record(RUN, *CLASSIFIER, "--truncation", 0.5, cwd=home)
    assert truncated["truncation"] == 0.5
    seeded = record(RUN, *CLASSIFIER, "--seed", 1000, cwd=home)
    values = [r["value"] for r in (plain, raw, standing, from_data, truncated, seeded)]
    assert len(set(values)) == len(values)


def test_records_compare_or_say_why_not(home: Path, tmp_path: Path) -> None:
    for name, flags in (("a", ()), ("b", ("--seed", 500)), ("c", ("--truncation", 0.7))):
        (tmp_path / f"{name}.json").write_bytes(ok("eval-fid", RUN, *CLASSIFIER, *flags, "--json", "-q", cwd=home))
    table = ok("compare", tmp_path / "a.json", tmp_path / "b.json", cwd=home).decode()
    assert "classifier" in table
    assert len(table.splitlines()) >= 3
    done = sagan("compare", tmp_path / "a.json", tmp_path / "c.json", "--quiet", cwd=home)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"truncation" in done.stderr


def test_scoring_an_old_run_does_not_make_it_the_newest(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "idx", tmp_path / "idx")
    for seed in (0, 1):
        ok("train", "--data", "idx", "--size", 16, *TINY, "--steps", 1, "--seed", seed, cwd=tmp_path)
    ok("eval-fid", RUN, *CLASSIFIER, cwd=tmp_path)
    assert b"002-idx" in sagan("sample", "-n", 1, "--out", tmp_path / "x.png", cwd=tmp_path).stderr


def test_structure_is_the_share_of_four_legs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPLITS, "train", (0, 120))  # drawing 20,000 pictures takes longer than all the rest
    ok("train", *TINY, "--size", 16, "--steps", 1, cwd=tmp_path)
    done = ok("eval-fid", "--metrics", "structure", *CLASSIFIER[2:], cwd=tmp_path).decode()
    with np.load(io.BytesIO(ok("sample", "-n", 48, "--format", "npz", "--out", "-", "-q", cwd=tmp_path))) as npz:
        share = float((count_legs_batch(npz["arr_0"]) == 4).mean())
    assert done.split() == ["structure", f"{share:.4f}" if share >= 0.1 else f"{share:.6f}"]


def test_without_weights_and_network_one_message_before_any_sampling(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("SAGAN_OFFLINE", "1")
    line = fails(1, "eval-fid", RUN, "--quiet", cwd=home)
    assert "--weights" in line
    assert "SAGAN_FID_WEIGHTS" in line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("samples.zip",), "--data"),
        (("-",), "--data"),
        (("nowhere",), "nowhere"),
        (("--metrics", "fdi"), "did you mean 'fid'"),
        (("--metrics", ","), "--metrics"),
        (("--protocol", "papr"), "--protocol papr"),
        (("--extractor", "inceptoin-v3-compat"), "did you mean 'inception-v3-compat'"),
        (("--weights", "nofile.pth"), "--weights nofile.pth"),
        (("--extractor", "classifier", "--weights", "idx/train-labels-idx1-ubyte.gz"), "--weights"),
        (("--truncation", "-1"), "--truncation"),
        (("--n-real", "few"), "--n-real few"),
        (("--data", "jpgs", "--split", "test"), "--split test"),
        (("--metrics", "structure", "--extractor", "classifier"), "structure"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_wrong_command_lines(args: tuple[str, ...], said: str, home: Path) -> None:
    if not (home / "jpgs").exists():
        picture_folder(home / "jpgs")
        (home / "samples.zip").write_bytes(b"")
    assert said in fails(2, "eval-fid", *args, "--quiet", cwd=home)


def test_content_found_wanting(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAN_SELF_CHECK", "skip")
    picture_folder(tmp_path / "a")
    picture_folder(tmp_path / "b")
    assert "classes" in fails(1, "eval-fid", "a", "--data", "b", "--extractor", "classifier", "-q", cwd=tmp_path)
    assert "-n 99" in fails(2, "eval-fid", "idx", "--data", "idx", *CLASSIFIER[:2], "-n", 99, "-q", cwd=home)
    (tmp_path / "b" / "003.jpg").write_bytes(b"no picture")
    line = fails(1, "eval-fid", "b", "--data", "a", "--weights", "w.pth", "-q", cwd=with_weights(tmp_path))
    assert "003.jpg" in line


def with_weights(folder: Path) -> Path:
    if not (folder / "w.pth").exists():
        random_inception(folder / "w.pth")
    return folder


def test_equal_to_torch_fidelitys_own_command(tmp_path: Path, weights: Path) -> None:
    """The whole way from folders to numbers, through the real Inception with seeded weights."""
    rng = np.random.default_rng(3)
    for name, count in (("a", 14), ("b", 17)):
        from PIL import Image

        (tmp_path / name).mkdir()
        for i in range(count):
            blocks = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(6, 0).repeat(7, 1)
            Image.fromarray(blocks).save(tmp_path / name / f"{i:02d}.{'png' if i % 3 else 'jpg'}")
    found = record("a", "--data", "b", "--weights", weights, "--metrics", "fid,kid,isc,prc", cwd=tmp_path)
    theirs = subprocess.run(
        [sys.executable, "-c", "from torch_fidelity.fidelity import main; main()",
         "--cpu", "--silent", "--json", "--fid", "--kid", "--isc", "--prc",
         "--input1", "a", "--input2", "b", "--kid-subset-size", "14", "--feature-extractor", "inception-v3-compat",
         "--feature-extractor-weights-path", str(weights), "--no-cache"],
        cwd=tmp_path, capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    numbers = json.loads(theirs.stdout)
    names = {
        "fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean", "isc": "inception_score_mean",
        "precision": "precision", "recall": "recall",
    }  # fmt: skip
    assert found["values"] == pytest.approx({ours: numbers[key] for ours, key in names.items()}, rel=1e-6)
    assert found["weights_published"] is False
    assert found["kid_subset_size"] == 14


def test_an_interrupt_leaves_no_broken_cache(home: Path, tmp_path: Path) -> None:
    import os

    env = {**os.environ, "SAGAN_CACHE": str(tmp_path / "cache")}
    args = command("eval-fid", RUN, "--extractor", "classifier", "-n", 200_000)
    with subprocess.Popen(args, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as running:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "cache").glob("self-checks/passed*")):
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err.decode()
    assert out == b""
    assert b"Traceback" not in err
    left = [p for p in (tmp_path / "cache").rglob("*") if ".tmp" in p.name]
    assert left == []
    assert ok("eval-fid", RUN, *CLASSIFIER, cwd=home, env={"SAGAN_CACHE": env["SAGAN_CACHE"]})
