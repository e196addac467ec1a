"""`sagan export` as a user runs it: files, folders and pipes, cards, what it refuses, and where the result works."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cli import TINY, command, fails, ok, sagan
from support.fake_plugins import REPOSITORY
from support.idx_files import idx_folder

import sagan_cli
from sagan_cli import runs

RUN = "runs/001-idx-sagan16"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs: 001 conditional and scored, 002 (the newest) without classes."""
    home = tmp_path_factory.mktemp("home")
    data = idx_folder(home / "idx", count=60)
    args = ("train", "--data", data, "--size", 16, *TINY, "--set", "train.g_lr=0.01", "--steps", 6, "--save-every", 3)
    ok(*args, cwd=home)
    ok(*args, "--unconditional", cwd=home)
    ok("eval-fid", RUN, "--extractor", "classifier", "-n", 32, "--metrics", "fid,isc", cwd=home)
    return home


def npz(data: bytes) -> np.ndarray:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return archive["arr_0"]


def pictures(home: Path, target: object, *flags: object) -> bytes:
    return ok("sample", target, "--seeds", "0-10", "--out", "-", *flags, cwd=home)


@pytest.mark.parametrize("flags", [(), ("--raw",)], ids=["ema", "raw"])
@pytest.mark.parametrize("run", [RUN, "runs/002-idx-sagan16", f"{RUN}/checkpoints/00000003"])
def test_a_file_draws_what_its_run_draws(run: str, flags: tuple[str, ...], home: Path, tmp_path: Path) -> None:
    out = tmp_path / "there" / "model.safetensors"
    assert ok("export", run, "--out", out, *flags, cwd=home) == f"{out}\n".encode()
    assert pictures(tmp_path, out) == pictures(home, run, *flags)  # to the byte: even what the PNG says of itself
    g = sagan_cli.load_generator(out)
    want = npz(pictures(home, run, "--format", "npz", *flags))
    np.testing.assert_array_equal(g.draw(range(11)), want)
    if not flags:
        np.testing.assert_array_equal(sagan_cli.load_generator(home / run).draw(range(11)), want)
    if "3" not in run.rsplit("/", 1)[-1]:
        again = tmp_path / "again.safetensors"
        ok("export", run, "--out", again, *flags, cwd=home)
        assert again.read_bytes() == out.read_bytes()


def test_classes_and_truncation_work_on_files(home: Path, tmp_path: Path) -> None:
    ok("export", RUN, "--out", tmp_path / "m.safetensors", cwd=home)
    for flags in (("--class", "all", "-n", 6), ("--class", "1", "--seeds", "5,2"), ("--truncation", "0.5", "-n", 3)):
        a, b = (ok("sample", t, *flags, "--out", "-", cwd=home) for t in (RUN, tmp_path / "m.safetensors"))
        assert a == b


def test_the_pipeline(home: Path) -> None:
    first = subprocess.Popen(
        command("export", RUN, "--format", "safetensors", "--out", "-"), cwd=home, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    second = subprocess.run(
        command("sample", "-", "--seeds", "0-10", "--out", "-"), cwd=home, stdin=first.stdout, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    said = first.communicate(timeout=60)[1].decode()
    assert first.returncode == second.returncode == 0, (said, second.stderr)
    assert second.stdout == pictures(home, RUN)
    assert "differs from PyTorch by 0 at most" in said
    assert second.stderr == b""


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let the next command of this process find `data` on its standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_bytes_only_on_stdout_and_an_export_of_an_export(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ok("export", RUN, "--out", "-", cwd=home)
    (tmp_path / "a.safetensors").write_bytes(data)
    assert ok("export", "a.safetensors", "--out", "-", cwd=tmp_path) == data
    piped(monkeypatch, data)
    done = sagan("export", "-", "--out", "-", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors"]


def test_a_program_and_its_card(home: Path, tmp_path: Path) -> None:
    facts = json.loads(ok("export", RUN, "--out", tmp_path / "m.pt2", "--json", cwd=home))
    assert facts["format"] == "pt2"
    assert facts["checks"]["runtime"].startswith("torch.export")
    assert set(facts["checks"]["differences"]) == {"1", "3", "64"}
    assert 'torch.export.load("m.pt2")' in (tmp_path / "m.pt2.md").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"m.pt2", "m.pt2.md"}


def test_onnx_its_card_and_its_script(home: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'sagan-cli[onnx]'")
    ok("export", RUN, "--out", tmp_path / "m.onnx", cwd=home)
    assert "Loaded again, run in onnxruntime" in (tmp_path / "m.onnx.md").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "m.onnx.md", "m_draw.py"}
    assert ok("export", RUN, "--format", "onnx", "--out", "-", cwd=home) == (tmp_path / "m.onnx").read_bytes()


def test_json_says_what_was_done(home: Path, tmp_path: Path) -> None:
    facts = json.loads(ok("export", "--out", "m.safetensors", "--json", cwd=_linked(home, tmp_path)))
    data = (tmp_path / "m.safetensors").read_bytes()
    assert facts["format"] == "safetensors"
    assert facts["out"] == "m.safetensors"
    assert facts["bytes"] == len(data)
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert (facts["step"], facts["weights"]) == (6, "ema")
    assert facts["checks"]["differences"] == {"1": 0.0, "3": 0.0, "16": 0.0}


def _linked(home: Path, here: Path) -> Path:
    """A working directory with the same runs."""
    (here / "runs").symlink_to(home / "runs")
    return here


def test_without_out_it_is_called_after_its_format(home: Path, tmp_path: Path) -> None:
    assert ok("export", cwd=_linked(home, tmp_path)) == b"model.safetensors\n"
    assert ok("export", "--format", "hf", cwd=tmp_path) == b"model-hf\n"
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "model.safetensors", "model.safetensors.md", "model-hf"}


def test_the_card_tells_what_is_known(home: Path, tmp_path: Path) -> None:
    ok("export", RUN, "--out", tmp_path / "my.safetensors", cwd=home)
    card = (tmp_path / "my.safetensors.md").read_text()
    record = next(m for m in runs.Run(home / RUN).metrics() if m.get("kind") == "evaluation")
    assert card.startswith("# sagan 16x16 on idx\n")
    assert "class-conditional" in card
    assert 'load_generator("my.safetensors")' in card
    assert "60 images of **idx**" in card
    assert record["data_digest"] in card
    assert "| steps | 6 |" in card
    assert "| learning rate of G | 0.01 |" in card
    assert f"| fid (lower is better) | {record['value']:.4f} |" in card
    low, high = record["interval"]
    assert f"| {low:.4f} to {high:.4f} | classifier | 32 | 32 of train |" in card
    assert "isc (higher is better)" in card
    assert "Licence of the weights: not stated" in card
    assert "| 16 | 0 |" in card
    assert str(home) not in card, "paths of this machine are nobody's business"
    ok("export", "runs/002-idx-sagan16", "--out", tmp_path / "other.safetensors", cwd=home)
    assert "Not measured" in (tmp_path / "other.safetensors.md").read_text()


def test_the_lines_of_the_card_run(home: Path, tmp_path: Path) -> None:
    for run in (RUN, "runs/002-idx-sagan16"):
        ok("export", run, "--out", tmp_path / "m.safetensors", "--force", cwd=home)
        lines = (tmp_path / "m.safetensors.md").read_text().partition("```python\n")[2].partition("```")[0]
        names: dict[str, Any] = {}
        with chdir(tmp_path):
            exec(lines, names)
        assert names["images"].shape == (16, 16, 16, 1)
        assert names["x"].shape == (4, 1, 16, 16)


def test_a_hub_folder_is_whole_and_loads(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    assert ok("export", RUN, "--format", "hf", "--out", out, cwd=home) == f"{out}\n".encode()
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "config.json", "README.md", "samples.png"}
    config = json.loads((out / "config.json").read_text())
    assert config["spec"]["height"] == 16
    assert config["data"]["source"] == "idx/"
    with Image.open(out / "samples.png") as grid:
        assert grid.size == (8 * 18 - 2, 3 * 18 - 2)
    assert pictures(tmp_path, out) == pictures(home, RUN)
    np.testing.assert_array_equal(
        sagan_cli.load_generator(out).draw([3]), sagan_cli.load_generator(home / RUN).draw([3])
    )
    text = (out / "README.md").read_text()
    assert str(home) not in text
    assert "![Samples" in text


def test_the_yaml_header_is_yaml(home: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    ok("export", RUN, "--format", "hf", "--out", tmp_path / "hub", cwd=home)
    _, head, body = (tmp_path / "hub" / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["pipeline_tag"] == "unconditional-image-generation"
    assert facts["license"] == "unknown"
    assert facts["datasets"] == ["idx"]
    (model,) = facts["model-index"]
    metrics = {m["type"]: m["value"] for result in model["results"] for m in result["metrics"]}
    record = next(m for m in runs.Run(home / RUN).metrics() if m.get("kind") == "evaluation")
    assert metrics == record["values"]
    assert body.lstrip().startswith("# sagan 16x16 on idx")
    ok("export", "runs/002-idx-sagan16", "--format", "hf", "--out", tmp_path / "other", cwd=home)
    head = (tmp_path / "other" / "README.md").read_text().split("---\n", 2)[1]
    assert "model-index" not in yaml.safe_load(head)


def test_nothing_is_replaced_without_force_and_nothing_else_ever(home: Path, tmp_path: Path) -> None:
    args = ("export", RUN, "--out")
    ok(*args, tmp_path / "m.safetensors", cwd=home)
    before = (tmp_path / "m.safetensors").stat().st_mtime_ns
    assert "--force" in fails(2, *args, tmp_path / "m.safetensors", cwd=home)
    (tmp_path / "notes.safetensors.md").write_text("mine")
    assert "notes.safetensors.md exists already" in fails(2, *args, tmp_path / "notes.safetensors", cwd=home)
    ok(*args, tmp_path / "m.safetensors", "--force", cwd=home)
    assert (tmp_path / "m.safetensors").stat().st_mtime_ns > before
    folder = tmp_path / "hub"
    folder.mkdir()
    ok(*args, folder, "--format", "hf", cwd=home)  # into an empty one
    (folder / "mine.txt").write_text("mine")
    (folder / "README.md").write_text("old")
    assert "--force" in fails(2, *args, folder, "--format", "hf", cwd=home)
    assert (folder / "README.md").read_text() == "old"
    ok(*args, folder, "--format", "hf", "--force", cwd=home)
    assert (folder / "mine.txt").read_text() == "mine"
    assert (folder / "README.md").read_text().startswith("---\n")
    assert {p.name for p in tmp_path.iterdir()} == {"m.safetensors", "m.safetensors.md", "notes.safetensors.md", "hub"}


def test_a_failure_leaves_nothing_behind(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagan_cli.errors import SaganError
    from sagan_cli.export import card

    def failing(*args: object, **kwargs: object) -> str:
        raise SaganError("the card failed")

    monkeypatch.setattr(card, "card", failing)
    for out in ("m.safetensors", "m.pt2"):
        done = sagan("export", RUN, "--out", tmp_path / out, cwd=home)
        assert done.returncode == 1
        assert b"the card failed" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("runs/404",), 2, "runs/404"),
        (("idx",), 1, "idx"),
        (("missing.safetensors",), 2, "missing.safetensors"),
        (("--out", "a.bin"), 2, "--out a.bin: add --format hf or web for a folder"),
        (("--out", "folder/"), 2, "--format hf or web"),
        (("--format", "onx"), 2, "did you mean 'onnx'?"),
        (("--format", "onnx", "--out", "a.safetensors"), 2, "contradicts --out a.safetensors"),
        (("--format", "hf", "--out", "-"), 2, "is a folder, which cannot go to stdout"),
        (("--out", "-", "--json"), 2, "--json"),
        (("--attention",), 2, "--attention"),
        (("--push", "me/mine"), 2, "--push: not for --format"),
        (("--format", "hf", "--push", "mine"), 2, "--push mine: write user/name"),
        (("--runtime", "idx"), 2, "--runtime: not for --format"),
        (("--format", "web", "--runtime", "none-there"), 2, "--runtime none-there: no such folder"),
        (("--format", "safetensors", "--out", "idx"), 2, "is a directory"),
        (("--format", "hf", "--out", "a-file"), 2, "is a file"),
        (("--format", "hf", "--out", "idx"), 2, "not empty"),
    ],
)
def test_a_wrong_command_line_is_one_line(args: tuple[str, ...], code: int, says: str, home: Path) -> None:
    (home / "a-file").write_text("")
    before = sorted(p.name for p in home.iterdir())
    assert says in fails(code, "export", *args, "--quiet", cwd=home)
    assert sorted(p.name for p in home.iterdir()) == before


@pytest.mark.parametrize("harm", ["flip", "cut", "swap", "format", "missing"])
def test_a_damaged_checkpoint_is_named_and_not_exported(harm: str, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "00000006"
    shutil.copytree(home / RUN / "checkpoints/00000006", folder)
    file = folder / "model.safetensors"
    if harm == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif harm == "swap":
        shutil.copy(home / "runs/002-idx-sagan16/checkpoints/00000006/model.safetensors", file)
    elif harm == "missing":
        file.unlink()
    else:
        facts = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps({**facts, "format": 99}))
    line = fails(1, "export", folder, "--out", tmp_path / "x.safetensors", cwd=home)
    assert str(folder) in line
    assert ("format 99" in line) == (harm == "format")
    assert {p.name for p in tmp_path.iterdir()} == {"00000006"}


def test_a_damaged_file_is_named_by_every_command(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ok("export", RUN, "--out", tmp_path / "m.safetensors", cwd=home)
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-1])
    for args in (("sample", "--out", "x.png"), ("export", "--out", "x.pt2"), ("eval-fid", "--data", home / "idx")):
        line = fails(1, args[0], "cut.safetensors", *args[1:], "--quiet", cwd=tmp_path)
        assert "cut.safetensors: not a safetensors file, or damaged or cut short" in line
    for sent in (data[:-1], b"", data[4:]):
        piped(monkeypatch, sent)
        said = fails(1, "sample", "-", "--out", "-", cwd=tmp_path)
        assert "standard input: not a safetensors file, or damaged or cut short" in said


def test_raw_weights_cannot_be_had_of_an_averaged_file(home: Path, tmp_path: Path) -> None:
    ok("export", RUN, "--out", tmp_path / "m.safetensors", cwd=home)
    line = fails(2, "sample", "m.safetensors", "--raw", "--out", "x.png", cwd=tmp_path)
    assert "m.safetensors holds the moving average alone" in line


def test_a_terminal_is_no_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Keyboard())
    assert "standard input is a terminal" in fails(2, "sample", "-", "--out", "x.png", cwd=home)


def test_a_checkpoint_s_own_file_means_the_checkpoint(home: Path) -> None:
    folder = f"{RUN}/checkpoints/00000003"
    assert pictures(home, f"{folder}/model.safetensors") == pictures(home, folder)
    assert sagan_cli.load_generator(home / folder / "model.safetensors").sampler.facts.step == 3


def test_a_file_is_scored_like_its_run(home: Path, tmp_path: Path) -> None:
    args = ("--extractor", "classifier", "-n", 32, "--json")
    ok("export", RUN, "--out", tmp_path / "m.safetensors", cwd=home)
    lines = len(runs.Run(home / RUN).metrics())
    want = json.loads(ok("eval-fid", RUN, *args, cwd=home))
    found = json.loads(ok("eval-fid", "m.safetensors", "--data", home / "idx", *args, cwd=tmp_path))
    for key in ("value", "interval", "step", "checkpoint_sha256", "ema", "data_digest"):
        assert found[key] == want[key], key
    assert found["checkpoint"] == "m.safetensors"
    assert len(runs.Run(home / RUN).metrics()) == lines + 1, "the file's score is not its run's"
    line = fails(2, "eval-fid", "m.safetensors", "--extractor", "classifier", "--quiet", cwd=tmp_path)
    assert "m.safetensors: was trained on idx/: name the folder of those images with --data" in line


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, sagan_cli; sagan_cli.load_generator; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == b"set()\n"


# --- the Hub --------------------------------------------------------------------------------------------------------


class Hub:
    """A stand-in for the Hub's client that keeps what it is sent."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.sent: list[Any] = []
        self.failure = failure

    def create_repo(self, **given: Any) -> str:
        if self.failure is not None:
            raise self.failure
        self.sent.append(given)
        return f"https://hub.example/{given['repo_id']}"

    def upload_folder(self, **given: Any) -> None:
        given["there"] = sorted(p.name for p in Path(given["folder_path"]).iterdir())
        self.sent.append(given)


def test_push_uploads_the_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagan_cli.export import hub

    client = Hub()
    monkeypatch.setattr(hub, "ready_to_push", lambda repository: client)
    args = ("export", RUN, "--format", "hf", "--out", tmp_path / "m", "--push", "me/mine")
    assert ok(*args, cwd=home).decode().split() == [str(tmp_path / "m"), "https://hub.example/me/mine"]
    created, uploaded = client.sent
    assert created == {"repo_id": "me/mine", "repo_type": "model", "exist_ok": True}
    assert set(uploaded["there"]) == set(uploaded["allow_patterns"]) == set(hub.FILES)
    facts = json.loads(ok(*args, "--force", "--json", cwd=home))
    assert facts["pushed"] == "https://hub.example/me/mine"


def test_the_hub_s_failures_are_one_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagan_cli.export import hub

    unreachable = type("ConnectError", (Exception,), {"__module__": "httpx"})("no route\nto host")
    for failure in (unreachable, OSError("403 Forbidden")):
        monkeypatch.setattr(hub, "ready_to_push", lambda repository, failure=failure: Hub(failure))
        args = ("export", RUN, "--format", "hf", "--out", tmp_path / "m", "--push", "me/mine", "--force", "--quiet")
        line = fails(1, *args, cwd=home)
        assert "--push me/mine: " in line
        assert "is written and can be uploaded later" in line
        assert (tmp_path / "m" / "README.md").is_file()
    with pytest.raises(ZeroDivisionError):  # a bug of ours is not the network's
        hub.push(Hub(ZeroDivisionError()), tmp_path, "me/mine")


def test_push_is_refused_before_any_work(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    args = ("export", RUN, "--format", "hf", "--out", tmp_path / "m", "--push", "me/mine", "--quiet")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(get_token=lambda: None))
    assert "not logged in to Hugging Face" in fails(1, *args, cwd=home)
    assert list(tmp_path.iterdir()) == []
