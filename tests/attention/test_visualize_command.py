"""`sagan visualize-attn`: every kind of output, whose attention it is, and what it refuses."""

from __future__ import annotations

import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load as load_safetensors
from support.cli import TINY, fails, ok, process, sagan
from support.fake_plugins import install
from support.idx_files import idx_folder

from sagan_cli.plugins import registry

RUN = "runs/001-idx-sagan32"
PLAIN = "runs/002-idx-sagan16"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: 001 conditional with three checkpoints and attention at two places, 002 (newest) without attention."""
    home = tmp_path_factory.mktemp("home")
    data = idx_folder(home / "idx", side=28)
    args = ("train", "--data", data, "--size", 32, *TINY, "--set", "train.g_lr=0.02", "--steps", 6)
    ok(*args, "--attn-at", "8,16", "--save-every", 2, "--keep", 9, cwd=home)
    plain = ("train", "--data", data, "--size", 16, *TINY, "--steps", 1, "--attn-at", "none", "--unconditional")
    ok(*plain, cwd=home)
    return home


def report(*args: object, cwd: Path) -> dict:
    return json.loads(ok("visualize-attn", *args, "--json", "-f", cwd=cwd))


def test_the_figure_is_the_default(home: Path, tmp_path: Path) -> None:
    done = sagan("visualize-attn", home / RUN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"attn.png\n"
    with Image.open(tmp_path / "attn.png") as image:
        width, height = image.size
        about = json.loads(image.text["sagan"])
    assert width == 32 + 6 * 192 + 5 * 12
    assert height > 4 * 192
    assert (about["step"], about["seeds"], about["weights"]) == (6, [0, 1, 2, 3], "ema")
    assert "exists already" in fails(2, "visualize-attn", home / RUN, cwd=tmp_path)


def test_every_kind_of_file(home: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.svg", "a.pdf", "a.npz", "a.safetensors"):
        assert ok("visualize-attn", RUN, "-n", 2, "--out", tmp_path / name, cwd=home).decode().strip().endswith(name)
    ET.parse(tmp_path / "a.svg")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        maps = {k: archive[k] for k in archive.files}
    assert {k.split("/")[0] for k in maps} == {"G8", "G16", "D8", "D16", "pictures", "about"}
    assert maps["G16/maps"].shape == (2, 256, 64)
    np.testing.assert_allclose(maps["G16/maps"].sum(-1), 1, atol=1e-5)
    assert json.loads(str(maps["about"]))["seeds"] == [0, 1]
    back = load_safetensors((tmp_path / "a.safetensors").read_bytes())
    np.testing.assert_array_equal(back["D8/maps"], maps["D8/maps"])
    ok("sample", RUN, "-n", 2, "--out", tmp_path / "sample.npz", cwd=home)
    with np.load(tmp_path / "sample.npz") as archive:
        np.testing.assert_array_equal(archive["arr_0"], maps["pictures"])


@pytest.mark.parametrize("writable", [False, True])
def test_no_message_of_matplotlib_reaches_stderr(writable: bool, home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home") if writable else "/dev/null")
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = process("visualize-attn", RUN, "-n", 1, "--layer", "G8", "-q", "--out", tmp_path / "a.pdf", cwd=home)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_page(home: Path, tmp_path: Path) -> None:
    ok("visualize-attn", RUN, "-n", 2, "--out", tmp_path / "a.html", cwd=home)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert "001-idx-sagan32" in text


def test_bytes_on_stdout(home: Path) -> None:
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("npz", b"PK")):
        assert ok("visualize-attn", RUN, "-n", 1, "--out", "-", "--format", kind, cwd=home).startswith(magic)
    assert ok("visualize-attn", RUN, "-n", 1, "--out", "-", cwd=home).startswith(b"\x89PNG")
    assert "both write to stdout" in fails(2, "visualize-attn", RUN, "--out", "-", "--json", cwd=home)


def test_json_sums_up_every_layer(home: Path, tmp_path: Path) -> None:
    facts = report(RUN, "--seeds", "3,5", "--out", tmp_path / "a.png", cwd=home)
    assert (facts["out"], facts["step"], facts["seeds"]) == (str(tmp_path / "a.png"), 6, [3, 5])
    assert [(own["network"], own["layer"]) for own in facts["layers"]] == [
        ("G", "8"), ("G", "16"), ("D", "16"), ("D", "8"),
    ]  # fmt: skip
    for own in facts["layers"]:
        side = int(own["layer"])
        assert (own["query_grid"], own["key_grid"]) == ([side, side], [side // 2, side // 2])
        assert 0 <= own["entropy"] <= 1.0001
        assert own["idle"] == (own["strength"] < 0.01)
        assert own["distance"] > 0
    assert [len(points) for points in facts["queries"]] == [5, 5]
    with np.load(
        io.BytesIO(ok("visualize-attn", RUN, "--seeds", "3,5", "--out", "-", "--format", "npz", cwd=home))
    ) as a:
        assert a["G8/strength"].mean() == pytest.approx(facts["layers"][0]["strength"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (["16"], ["G 16"]), (["g8"], ["G 8"]), (["D 16"], ["D 16"]), (["d:8", "G16"], ["D 8", "G 16"]),
        (["all"], ["G 8", "G 16", "D 16", "D 8"]), (["G16", "16"], ["G 16"]),
        (["D"], ["D 16", "D 8"]), (["g"], ["G 8", "G 16"]), (["D8", " d "], ["D 8", "D 16"]),
    ],
)  # fmt: skip
def test_layers_by_name(words: list[str], want: list[str], home: Path, tmp_path: Path) -> None:
    flags = [part for word in words for part in ("--layer", word)]
    facts = report(RUN, *flags, "-n", 1, "--out", tmp_path / "a.svg", cwd=home)
    assert sorted(f"{own['network']} {own['layer']}" for own in facts["layers"]) == sorted(want)
    text = (tmp_path / "a.svg").read_text()
    places = [text.index(f">{name}: ") for name in want]
    assert places == sorted(places), "drawn in the order in which they were asked for"


def test_points(home: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "a.png")
    facts = report(RUN, "--query", "3,12", "--query", "0,0", "-n", 2, *out, cwd=home)
    assert facts["queries"] == [[[3.5, 12.5], [0.5, 0.5]]] * 2
    assert report(RUN, "-n", 2, *out, cwd=home)["queries"] == report(RUN, "-n", 2, *out, cwd=home)["queries"]
    assert [len(p) for p in report(RUN, "-n", 2, "--queries", 7, *out, cwd=home)["queries"]] == [7, 7]
    a, b, c = (
        report(RUN, "--random-queries", "-n", 1, "--seed", s, *out, cwd=home)["queries"] for s in (4, 4, 5)
    )  # fmt: skip
    assert a == b != c


def test_classes(home: Path, tmp_path: Path) -> None:
    facts = report(RUN, "--class", "all", "--out", tmp_path / "a.png", cwd=home)
    assert facts["captions"] == ["seed 0, 0", "seed 0, 1", "seed 0, 2"]
    facts = report(RUN, "--class", "2", "--seeds", "7,1", "--out", tmp_path / "a.png", cwd=home)
    assert facts["captions"] == ["seed 7, 2", "seed 1, 2"]


def test_training_followed_over_its_checkpoints(home: Path, tmp_path: Path) -> None:
    facts = report(RUN, "--steps", "--out", tmp_path / "a.png", cwd=home)
    assert [at["step"] for at in facts["steps"]] == [2, 4, 6]
    assert facts["seeds"] == [0]
    gammas = [at["layers"][0]["gamma"] for at in facts["steps"]]
    assert len(set(gammas)) == 3
    with Image.open(tmp_path / "a.png") as strip:
        assert 3 * 192 < strip.height < 4 * 226
    for kind in ("gif", "webp"):
        ok("visualize-attn", RUN, "--steps", "-n", 1, "--out", tmp_path / f"a.{kind}", cwd=home)
        with Image.open(tmp_path / f"a.{kind}") as film:
            assert film.n_frames == 3
    ok("visualize-attn", RUN, "--steps", "-n", 1, "--out", tmp_path / "a.npz", "--layer", "D8", cwd=home)
    with np.load(tmp_path / "a.npz") as archive:
        assert {"00000002/D8/maps", "00000006/D8/maps"} < set(archive.files)
    ok("visualize-attn", RUN, "--steps", "-n", 1, "--out", tmp_path / "a.html", cwd=home)


def test_an_exported_file_shows_its_generator_s_attention(home: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    ok("export", RUN, "--out", model, cwd=home)
    facts = report(model, "-n", 2, "--out", tmp_path / "a.npz", cwd=home)
    assert (facts["step"], facts["weights"], facts["checkpoint"]) == (6, "ema", str(model))
    assert [own["network"] for own in facts["layers"]] == ["G", "G"]
    ok("visualize-attn", RUN, "-n", 2, "--layer", "G", "--out", tmp_path / "b.npz", cwd=home)
    with np.load(tmp_path / "a.npz") as file, np.load(tmp_path / "b.npz") as run:
        np.testing.assert_array_equal(file["pictures"], run["pictures"])
        np.testing.assert_allclose(file["G16/maps"], run["G16/maps"], atol=1e-5)
    ok("visualize-attn", model, "--out", tmp_path / "a.png", cwd=home)
    ok("visualize-attn", model, "-n", 2, "--out", tmp_path / "a.html", cwd=home)
    out = ("--out", tmp_path / "c.png")
    for flags in (("--layer", "D"), ("--image", tmp_path / "a.png")):
        line = fails(1, "visualize-attn", model, *flags, *out, cwd=home)
        assert f"{model}: holds the generator only; name a run or checkpoint to show layers of D" in line
    assert "lies in no run" in fails(2, "visualize-attn", model, "--steps", *out, cwd=home)
    assert "--raw" in fails(2, "visualize-attn", model, "--raw", *out, cwd=home)


def test_own_pictures_through_d(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("b.png", (28, 28)), ("a.png", (40, 20))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / "c.png").write_bytes(b"not a picture")
    done = sagan("visualize-attn", RUN, "--image", folder, "--out", tmp_path / "a.npz", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    assert b"c.png: left out: " in done.stderr
    assert b"depends on the class" not in done.stderr
    facts = json.loads(done.stdout)
    assert (facts["images"], facts["seeds"], facts["captions"]) == (["a.png", "b.png"], None, ["a.png", "b.png"])
    assert {own["network"] for own in facts["layers"]} == {"D"}
    with np.load(tmp_path / "a.npz") as archive:
        pictures = archive["pictures"]
    assert pictures.shape == (2, 32, 32, 1)
    # As training does for IDX pictures of 28 pixels: a border of 2, no resizing.
    assert (pictures[1, :2] == 0).all()
    gray = np.asarray(Image.open(folder / "b.png").convert("L"))
    np.testing.assert_array_equal(pictures[1, 2:30, 2:30, 0], gray)
    both = report(RUN, "--image", folder / "b.png", "--layer", "D", "--out", tmp_path / "d.png", cwd=home)
    assert [(own["network"], own["layer"]) for own in both["layers"]] == [("D", "16"), ("D", "8")]
    ok("visualize-attn", RUN, "--image", folder / "b.png", "--fit", "stretch", "--class", "1",
       "--out", tmp_path / "a.png", cwd=home)  # fmt: skip
    steps = report(RUN, "--image", folder / "b.png", "--steps", "--out", tmp_path / "b.png", cwd=home)["steps"]
    assert len(steps) == 3


def test_pictures_are_cropped_where_the_run_s_data_has_gone(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved"
    shutil.copytree(home / RUN, run)
    record = json.loads((run / "run.json").read_text())
    record["config"]["data"]["data"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(record))
    Image.fromarray(np.arange(20 * 40, dtype=np.uint8).reshape(20, 40)).save(tmp_path / "x.png")
    args = ("visualize-attn", run, "--image", tmp_path / "x.png", "--out", tmp_path / "a.npz")
    done = sagan(*args, cwd=home)
    assert done.returncode == 0
    assert b"fitted by 'crop'" in done.stderr


def test_an_idle_layer_is_warned_of(home: Path, tmp_path: Path) -> None:
    data = home / "idx"
    ok("train", "--data", data, "--size", 16, *TINY, "--steps", 1, "--out", tmp_path / "fresh", cwd=tmp_path)
    done = sagan("visualize-attn", tmp_path / "fresh", "-n", 1, cwd=tmp_path)
    assert done.returncode == 0
    text = done.stderr.decode()
    assert "warning: attention layer G 16 is idle: it adds 0.0" in text or "attention layer G 8 is idle" in text
    for word in ("train longer", "--attn-at", "gamma_g", "metrics.jsonl"):
        assert word in text
    assert sagan("visualize-attn", tmp_path / "fresh", "-n", 1, "-q", "-f", cwd=tmp_path).stderr == b""


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--layer", "64"), "--layer 64: no such attention layer; there are G8, G16, D16, D8"),
        (("--layer", "G 61"), "--layer G 61: no such attention layer (did you mean 'G16'?)"),
        (("--query", "32,0"), "--query 32,0: outside the images, which are 32 wide and 32 high"),
        (("--query", "left"), "--query left: write X,Y in whole pixels from the top left, as in 12,20"),
        (("--query", "1,1", "--queries", 3), "--query lists every query"),
        (("--query", "1,1", "--random-queries"), "--query lists every query"),
        (("--query", "1,1") * 8, "--query: 8 queries; the limit is 7"),
        (("--out", "a.jpg"), "--out a.jpg: '.jpg' is not one of .png .svg .pdf .html"),
        (("--out", "attn"), "--out attn: end it in .png, .svg,"),
        (("--out", "a.gif"), "a gif shows a run's checkpoints one after the other: add --steps"),
        (("--out", "a.svg", "--format", "png"), "--format png contradicts --out a.svg"),
        (("--format", "pgn"), "--format pgn: choose one of png, svg, pdf, html, npz, safetensors, gif, webp (did you"),
        (("--scale", "log"), "--scale log: choose one of auto, zero, range"),
        (("--fit", "crop"), "--fit is for --image"),
        (("--image", "nowhere.png"), "--image nowhere.png: no such file or folder"),
        (("--image", "x", "--seeds", "1"), "--image shows your own images: leave out --seeds"),
        (("--image", "idx", "--layer", "G16"), "--layer G16: --image shows layers of D only; they are"),
        (("--seeds", "1", "-n", 2), "--seeds lists every seed"),
        (("--class", "9"), "--class 9: not one of"),
    ],
)  # fmt: skip
def test_one_plain_line_for_what_cannot_be(args: tuple[object, ...], complaint: str, home: Path) -> None:
    assert complaint in fails(2, "visualize-attn", RUN, *args, cwd=home)


def test_content_found_wanting(home: Path, tmp_path: Path) -> None:
    line = fails(1, "visualize-attn", PLAIN, cwd=home)
    assert "Generator has no attention layers to show: train with --attn-at" in line
    assert "no attention layers" in fails(1, "visualize-attn", PLAIN, "--layer", "D8", cwd=home)
    (tmp_path / "x.png").write_bytes(b"")
    line = fails(1, "visualize-attn", RUN, "--image", tmp_path / "x.png", "--out", tmp_path / "a.png", cwd=home)
    assert line.endswith("x.png: empty file")
    (tmp_path / "none").mkdir()
    line = fails(1, "visualize-attn", RUN, "--image", tmp_path / "none", "--out", tmp_path / "a.png", cwd=home)
    assert f"--image {tmp_path / 'none'}: empty" in line
    lone = tmp_path / "00000006"
    shutil.copytree(home / RUN / "checkpoints" / "00000006", lone)
    assert "lies in no run" in fails(2, "visualize-attn", lone, "--steps", cwd=home)
    (lone / "state.safetensors").unlink()
    ok("visualize-attn", lone, "--out", tmp_path / "a.png", cwd=home)  # G's attention needs no D
    ok("visualize-attn", lone, "--layer", "G", "--out", tmp_path / "g.png", cwd=home)
    ok("visualize-attn", lone, "--out", tmp_path / "a.npz", cwd=home)
    for flags in (("--layer", "D8"), ("--image", tmp_path / "a.png")):
        assert "state.safetensors: missing" in fails(1, "visualize-attn", lone, *flags, cwd=home)


PLUGIN = """
    import torch
    from torch import nn
    from sagan_cli.model.sagan import SAGANDiscriminator, SAGANGenerator, build

    class Bare(SAGANGenerator):
        def attention_layers(self): return {}

    class Blind(nn.Module):
        def forward(self, x): return x

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.share = nn.Parameter(torch.tensor(0.5))
        def forward(self, x): return x * (1 + self.share)
        def maps(self, x): return torch.full((len(x), x.shape[2] * x.shape[3], 3), 1 / 3)
        def key_grid(self, h, w): return 1, 3

    class Hosting(SAGANGenerator):
        def __init__(self, spec):
            super().__init__(spec)
            self.attention["8"] = Own()
        def attention_layers(self): return {"last block": self.attention["8"]}

    class Wrong(Hosting):
        def attention_layers(self): return {"last block": Blind()}

    def only_d(spec): return Bare(spec), build(spec)[1]
    def hosting(spec): return Hosting(spec), SAGANDiscriminator(spec)
    def wrong(spec): return Wrong(spec), SAGANDiscriminator(spec)
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ("only_d", "hosting", "wrong")
    lines = "".join(f"{name} = fake_attention:{name}\n" for name in names)
    install(tmp_path / "site", "fake-attention", f"[sagan.architectures]\n{lines}", fake_attention=PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    registry.refresh()
    yield
    registry.refresh()


def test_plugins_that_declare_their_layers_get_all_of_it(plugins: None, home: Path, tmp_path: Path) -> None:
    def trained(arch: str) -> Path:
        ok("train", "--data", home / "idx", "--size", 16, *TINY, "--steps", 1, "--arch", arch, "--attn-at", "8",
           "--out", tmp_path / arch, cwd=tmp_path)  # fmt: skip
        return tmp_path / arch

    # G without and D with attention: D's is meant.
    facts = report(trained("only_d"), "-n", 2, "--out", tmp_path / "a.png", cwd=tmp_path)
    assert [(own["network"], own["layer"]) for own in facts["layers"]] == [("D", "8")]
    report(tmp_path / "only_d", "-n", 2, "--layer", "D8", "--out", tmp_path / "a.svg", cwd=tmp_path)
    # A layer of its own name and grid of keys.
    hosting = trained("hosting")
    facts = report(hosting, "--layer", "last block", "-n", 1, "--out", tmp_path / "b.png", cwd=tmp_path)
    (own,) = facts["layers"]
    assert (own["layer"], own["gamma"], own["query_grid"], own["key_grid"]) == ("last block", None, [8, 8], [1, 3])
    assert own["strength"] == pytest.approx(0.5, abs=0.05)
    for name in ("c.html", "c.npz", "c.svg"):
        ok("visualize-attn", hosting, "-n", 1, "--out", tmp_path / name, cwd=tmp_path)
    line = fails(1, "visualize-attn", trained("wrong"), "--out", tmp_path / "d.png", cwd=tmp_path)
    assert "the attention layer 'last block' of Wrong shows no maps: it has no method maps(x)" in line


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from sagan_cli.cli import run; run(['visualize-attn', '--help']); "
        "assert not {'torch', 'numpy', 'PIL', 'safetensors', 'matplotlib'} & set(sys.modules)"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b"--random-queries" in done.stdout
    assert process("visualize-attn", cwd=tmp_path).returncode == 2
