"""ONNX files: names, shapes and numbers in onnxruntime, and what is refused before anything is written."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_generators import Fixed, Plain, tiny, trained

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.attention_maps import record_maps
from sagan_cli.errors import SaganError
from sagan_cli.export import checking
from sagan_cli.export import onnx as exporting
from sagan_cli.export.onnx import write_onnx, write_script
from sagan_cli.export.portable import Portable
from sagan_cli.export.trained_model import TrainedModel

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'sagan-cli[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'sagan-cli[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'sagan-cli[onnx]'")

KINDS = {
    "grey-without-attention-or-classes": lambda: tiny(channels=1, attn_at=()),
    "sagan-128": lambda: tiny(128, 128, num_classes=7, attn_at=(32,), latent=5),
    "a-plugin": lambda: trained(Plain(spec := ModelSpec(12, 8, 3, 4, 6)), spec, "plain"),
}


@pytest.fixture(autouse=True)
def one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timed run instead of five."""
    monkeypatch.setattr(checking, "RUNS", 1)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def fed(made: TrainedModel, count: int) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Inputs that the export never saw, and what PyTorch draws from them."""
    rng = torch.Generator().manual_seed(count)
    z = torch.randn(count, made.spec.latent, generator=rng)
    y = torch.arange(count) % made.spec.num_classes if made.spec.num_classes else None
    feed = {"latent": z.numpy()} if y is None else {"latent": z.numpy(), "class": y.numpy()}
    with torch.no_grad():
        return feed, made.generator(z, y)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_generator_draws_the_same_in_onnxruntime(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made, said = KINDS[kind](), []
    found = write_onnx(made, tmp_path / "g.onnx", attention=False, notify=said.append)
    assert capfd.readouterr() == ("", "")
    assert said == []
    assert found.runtime == f"onnxruntime {onnxruntime.__version__}, CPU"
    assert set(found.differences) == set(found.milliseconds) == set(found.torch_milliseconds) == {1, 3, 64}
    assert 0 < max(found.differences.values()) < 1e-5
    assert min([*found.milliseconds.values(), *found.torch_milliseconds.values()]) > 0
    assert {p.name for p in tmp_path.iterdir()} == {"g.onnx", "g_draw.py"}

    spec, model = made.spec, session(tmp_path / "g.onnx")
    inputs = {i.name: (i.type, i.shape) for i in model.get_inputs()}
    assert inputs.pop("latent") == ("tensor(float)", ["batch", spec.latent])
    assert inputs == ({"class": ("tensor(int64)", ["batch"])} if spec.num_classes else {})
    outputs = [(o.name, o.type, o.shape) for o in model.get_outputs()]
    assert outputs == [("image", "tensor(float)", ["batch", spec.channels, spec.height, spec.width])]
    for count in (1, 2, 5):
        feed, want = fed(made, count)
        (have,) = model.run(None, feed)
        np.testing.assert_allclose(have, want.numpy(), atol=1e-5, rtol=0)
        assert have.std() > 0.01


def test_the_file_says_what_it_is_and_nothing_of_the_machine(tmp_path: Path) -> None:
    made = tiny(num_classes=3)
    write_onnx(made, tmp_path / "g.onnx", attention=True, notify=pytest.fail, script=False)
    facts = json.loads(session(tmp_path / "g.onnx").get_modelmeta().custom_metadata_map["sagan"])
    assert facts["spec"] == {
        "height": 16, "width": 16, "channels": 3, "num_classes": 3, "latent": 20, "base_width": 2, "attn_at": [8],
        "options": {},
    }  # fmt: skip
    assert facts["class_names"] == ["kind 0", "kind 1", "kind 2"]
    assert (facts["arch"], facts["step"], facts["weights"]) == ("sagan", 7, "ema")
    assert facts["data"] == {"source": "pictures/", "digest": "0" * 64, "count": 24}
    assert "blake2b" in facts["seed_rule"]
    data = (tmp_path / "g.onnx").read_bytes()
    for trace in (b"stack_trace", b".py", b"/home", str(Path.cwd()).encode()):
        assert trace not in data
    assert onnx.load_from_string(data).opset_import[0].version == exporting.OPSET
    write_onnx(made, tmp_path / "again.onnx", attention=True, notify=pytest.fail, script=False)
    assert (tmp_path / "again.onnx").read_bytes() == data
    assert {p.name for p in tmp_path.iterdir()} == {"g.onnx", "again.onnx"}


def test_attention_outputs_are_the_maps_of_the_pass_computed_once(tmp_path: Path) -> None:
    made = tiny(
        64, 32, attn_at=(16, 32), num_classes=2, channels=4, base_width=8,
        options={"qk_norm": "rms", "spectral_norm": "none"},
    )  # fmt: skip
    write_onnx(made, tmp_path / "g.onnx", attention=True, notify=pytest.fail)
    model = session(tmp_path / "g.onnx")
    shapes = {o.name: o.shape for o in model.get_outputs()}
    assert list(shapes) == ["image", "attention_16", "attention_32"]
    assert shapes["attention_16"] == ["batch", 128, 32]
    assert shapes["attention_32"] == ["batch", 512, 128]
    feed, _ = fed(made, 3)
    with record_maps(made.generator) as seen, torch.no_grad():
        made.generator(torch.from_numpy(feed["latent"]), torch.from_numpy(feed["class"]))
    for name, have in zip(("16", "32"), model.run(["attention_16", "attention_32"], feed), strict=True):
        np.testing.assert_allclose(have, seen[name].maps.numpy(), rtol=1e-5, atol=1e-6)
        assert have.std() > 1e-4  # not flat, or the comparison would say little
    graph = onnx.load(tmp_path / "g.onnx").graph
    maps = {n.output[0]: n for n in graph.node if n.op_type == "Softmax"}
    assert set(maps) == {"attention_16", "attention_32"}
    assert all(any(name in n.input and n.op_type == "MatMul" for n in graph.node) for name in maps)


def test_a_model_that_draws_something_else_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g.onnx"
    path.write_bytes(b"the old one")
    right = exporting.trace

    def wrong(network, made, *, batch):  # the traced weights are not those that PyTorch draws with
        network = copy.deepcopy(network)
        network.generator.to_image.bias[1] += 0.01
        return right(network, made, batch=batch)

    monkeypatch.setattr(exporting, "trace", wrong)
    with pytest.raises(SaganError, match=r"differs from PyTorch by 0\.0\d+ in 'image' of a batch of 1, at \(0, 1, \d"):
        write_onnx(tiny(), path, attention=False, notify=pytest.fail)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_refusals_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(made: TrainedModel, *, attention: bool = False) -> str:
        with pytest.raises(SaganError) as caught:
            write_onnx(made, tmp_path / "g.onnx", attention=attention, notify=pytest.fail)
        assert list(tmp_path.iterdir()) == []
        text = str(caught.value)
        assert "\n" not in text
        return text

    spec = ModelSpec(12, 8, 3, 4, 6)
    assert refused(trained(Fixed(spec), spec, "fixed")) == (
        "architecture 'fixed' cannot be exported: its forward pass fixes the size of the batch; "
        "len(x) and int(x.shape[0]) do that, x.shape[0] does not"
    )
    assert "has no attention layers" in refused(tiny(attn_at=()), attention=True)
    diverged = tiny()
    diverged.generator.to_image.bias.fill_(torch.nan)
    assert "not a number" in refused(diverged)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert 'pip install "sagan-cli[onnx]"' in refused(tiny())


def test_batches_that_do_not_fit_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    made = tiny()
    monkeypatch.setattr(checking, "_free_memory", lambda: 800_000.0)
    for attention in (False, True):  # 64 x 16 scores of 4 bytes, four times
        assert checking._batches(Portable(made, attention=attention), made, said.append) == [1, 3, 48]
    monkeypatch.setattr(checking, "_free_memory", lambda: 1_100_000.0)
    assert checking._batches(Portable(made), made, said.append) == [1, 3, 64]
    assert len(said) == 2
    assert "1, 3 and 48 instead of 64" in said[0]


def test_the_script_replaces_only_its_own_kind(tmp_path: Path) -> None:
    said: list[str] = []
    target = write_script(tmp_path / "g.onnx", said.append)
    assert target == tmp_path / "g_draw.py"
    assert write_script(tmp_path / "g.onnx", said.append) == target
    target.write_text("# mine\n")
    assert write_script(tmp_path / "g.onnx", said.append) is None
    assert target.read_text() == "# mine\n"
    assert len(said) == 1
    assert str(target) in said[0]
