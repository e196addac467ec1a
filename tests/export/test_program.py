"""pt2 programs: loaded without sagan, free in the batch, without a pickle and without weights that nobody reads."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_generators import Fixed, Plain, tiny, trained

from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import SaganError
from sagan_cli.export import checking
from sagan_cli.export import program as exporting
from sagan_cli.export.program import FACTS, pickled, write_pt2
from sagan_cli.ops import dot_product_attention as attention

KINDS = {
    "grey-without-attention-or-classes": lambda: tiny(channels=1, attn_at=()),
    "several-attentions-and-classes": lambda: tiny(32, 32, num_classes=5, attn_at=(8, 16), latent=5),
    "wide": lambda: tiny(32, 128, attn_at=(32,), num_classes=3, options={"qk_norm": "rms", "spectral_norm": "none"}),
    "a-plugin": lambda: trained(Plain(spec := ModelSpec(12, 8, 3, 4, 6)), spec, "plain"),
}

LOADED_ELSEWHERE = """
import sys
sys.modules["sagan_cli"] = None
import numpy as np, torch
program = torch.export.load(sys.argv[1]).module()
given = np.load(sys.argv[2])
for i in range(int(given["n"])):
    out, = program(torch.from_numpy(given[f"z{i}"]), torch.from_numpy(given[f"y{i}"]))
    assert np.abs(out.numpy() - given[f"x{i}"]).max() < 1e-6
"""


@pytest.fixture(autouse=True)
def one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timed run instead of five."""
    monkeypatch.setattr(checking, "RUNS", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_generator_draws_the_same_as_a_program(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made, path = KINDS[kind](), tmp_path / "g.pt2"
    found = write_pt2(made, path, notify=pytest.fail)
    assert found.runtime == f"torch.export {torch.__version__.partition('+')[0]}, CPU"
    assert set(found.differences) == {1, 3, 64}
    assert max(found.differences.values()) < 1e-6
    assert list(tmp_path.iterdir()) == [path]
    extra = {FACTS: ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra[FACTS])["spec"]["height"] == made.spec.height
    for count in (1, 2, 5):
        z = torch.randn(count, made.spec.latent, generator=torch.Generator().manual_seed(count))
        y = torch.arange(count) % made.spec.num_classes if made.spec.num_classes else None
        with torch.no_grad():
            (have,) = program(z) if y is None else program(z, y)
            torch.testing.assert_close(have, made.generator(z, y), atol=1e-6, rtol=0)
    assert capfd.readouterr() == ("", "")


def test_a_process_without_sagan_runs_it(tmp_path: Path) -> None:
    made = tiny(num_classes=3)
    write_pt2(made, tmp_path / "g.pt2", notify=pytest.fail)
    arrays: dict[str, np.ndarray] = {"n": np.array(2)}
    for i, count in enumerate((1, 4)):
        z, y = torch.randn(count, 20), torch.arange(count) % 3
        with torch.no_grad():
            arrays |= {f"z{i}": z.numpy(), f"y{i}": y.numpy(), f"x{i}": made.generator(z, y).numpy()}
    np.savez(tmp_path / "given.npz", **arrays)
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED_ELSEWHERE, "g.pt2", "given.npz"],
        cwd=tmp_path, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def test_the_archive_is_json_and_raw_numbers(tmp_path: Path) -> None:
    made, path = tiny(), tmp_path / "g.pt2"
    write_pt2(made, path, notify=pytest.fail)
    data = path.read_bytes()
    assert pickled(data) == []
    assert b"stack_trace" not in data or b".py" not in data
    assert str(Path(__file__).parents[2]).encode() not in data
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert files["data/sample_inputs/model.pt"] == b""
    weights = json.loads(files["data/weights/model_weights_config.json"])["config"]
    sizes = {name: [s["as_int"] for s in w["tensor_meta"]["sizes"]] for name, w in weights.items()}
    # Of a layer whose 3x3 kernel became a 4x4 one, only the latter is carried.
    assert sizes["generator.blocks.0.conv0.weight"] == [0]
    assert sizes["generator.blocks.0.conv1.weight"] == [4, 4, 3, 3]
    constants = json.loads(files["data/constants/model_constants_config.json"])["config"]
    assert "generator.blocks.0.conv0._resampling" in constants
    write_pt2(made, tmp_path / "again.pt2", notify=pytest.fail)
    assert (tmp_path / "again.pt2").read_bytes() == data
    assert made.generator.blocks[0].conv0.weight.shape == (4, 8, 3, 3)  # what was exported is as it was


def test_a_program_with_a_pickle_is_told_from_one_without() -> None:
    class Small(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    out = io.BytesIO()
    torch.export.save(torch.export.export(Small(), (torch.ones(2),)), out)
    assert [name.rpartition("/")[2] for name in pickled(out.getvalue())] == ["model.pt"]


@pytest.mark.parametrize(("limit", "fused"), [(64 * 2**20, False), (64 * 4 * 64 * 16 - 1, True)])
def test_large_maps_take_the_fused_route_whatever_the_batch(
    limit: int, fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "EXPLICIT_LIMIT", limit)
    write_pt2(tiny(), tmp_path / "g.pt2", notify=pytest.fail)
    operators = {str(node.target) for node in torch.export.load(tmp_path / "g.pt2").graph.nodes}
    assert ("aten.scaled_dot_product_attention.default" in operators) is fused
    assert ("aten.softmax.int" in operators) is not fused


def test_refusals_are_one_line_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(12, 8, 3, 4, 6)
    with pytest.raises(SaganError, match=r"^architecture 'fixed' cannot be exported: its forward pass fixes the size"):
        write_pt2(trained(Fixed(spec), spec, "fixed"), tmp_path / "g.pt2", notify=pytest.fail)

    class Chooser(Plain):
        def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return super().forward(z, y) if z.sum() > 0 else -super().forward(z, y)

    with pytest.raises(SaganError, match=r"^architecture 'chooser' cannot be exported: .*data-dependent[^\n]*$"):
        write_pt2(trained(Chooser(spec), spec, "chooser"), tmp_path / "g.pt2", notify=pytest.fail)

    monkeypatch.setattr(checking, "TOLERANCE", -1.0)
    with pytest.raises(SaganError, match=r"differs from PyTorch by [0-9.e-]+ in 'image' of a batch of 1, at \("):
        write_pt2(tiny(), tmp_path / "g.pt2", notify=pytest.fail)
    assert list(tmp_path.iterdir()) == []
    assert exporting.BATCHES == (1, 3, 64)
