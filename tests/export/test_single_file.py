"""One .safetensors file: the same function as the trained network, the same bytes each time, and who may come in."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.fake_plugins import REPOSITORY, install
from support.tiny_generators import tiny
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from sagan_cli import load_generator
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import model_file, networks, sample
from sagan_cli.engine.model_file import read_file
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import CheckpointError, SaganError, UsageError
from sagan_cli.export import trained_model
from sagan_cli.export.single_file import to_bytes, verify
from sagan_cli.export.trained_model import TrainedModel
from sagan_cli.model.layers import fold_network_
from sagan_cli.plugins import registry

UNSOUND = "not a safetensors file, or damaged or cut short: "
"""How every file begins to be described that the safetensors library refuses."""
CPU = Runtime(torch.device("cpu"), "fp32")
KINDS: dict[str, dict[str, Any]] = {
    "conditional": {"num_classes": 3, "channels": 3},
    "unconditional": {"channels": 3},
    "grey": {"channels": 1},
    "transparent": {"channels": 4},
    "without-attention": {"attn_at": ()},
    "256x64": {"height": 256, "width": 64, "attn_at": (32, 64)},
}


def drawn(sampler: Any) -> np.ndarray:
    requests = [sample.Request(seed) for seed in range(11)]
    return np.concatenate([p for p, _ in sample.pictures(sampler.generator, sampler.spec, requests, CPU)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_draws_the_same_pictures_to_the_bit(kind: str) -> None:
    made = tiny(**KINDS[kind])
    data = to_bytes(made)
    back = read_file(io.BytesIO(data))
    assert (back.spec, back.class_names, back.weights) == (made.spec, made.class_names, "ema")
    assert (back.facts.arch, back.facts.step, back.facts.data) == ("sagan", 7, made.data)
    np.testing.assert_array_equal(drawn(back), drawn(made))
    assert set(verify(data, made).differences.values()) == {0.0}
    assert not any("u" in name.rsplit(".", 1)[-1:] for name in back.generator.state_dict()), "no singular vectors"


def test_folding_keeps_the_training_form_s_outputs() -> None:
    spec = ModelSpec(32, 32, num_classes=3, latent=20, base_width=4, attn_at=(8, 16))
    torch.manual_seed(0)
    trained, _ = networks.build("sagan", spec)
    nn.init.ones_(trained.attention["16"].gamma)
    z, y = sample.latents([sample.Request(seed) for seed in range(5)], spec, None)
    with torch.inference_mode():
        before = trained.eval()(z, y)
        weights = {k: v.clone() for k, v in trained.state_dict().items()}
        after = fold_network_(trained)(z, y)
    assert (before - after).abs().max() <= 1e-5
    changed = [k for k, v in trained.state_dict().items() if not torch.equal(v, weights[k])]
    assert any("conv0.weight" in name for name in changed), "the stored weights are other numbers than the trained"


def test_equal_models_make_equal_bytes_and_other_programs_can_read_them(tmp_path: Path) -> None:
    made = tiny(num_classes=3)
    data = to_bytes(made)
    assert all(to_bytes(tiny(num_classes=3)) == data for _ in range(3))
    (tmp_path / "model.safetensors").write_bytes(data)
    with safe_open(tmp_path / "model.safetensors", framework="np") as f:
        assert set(f.metadata()) == {"sagan"}
        facts = json.loads(f.metadata()["sagan"])
        names = set(f.keys())
    assert names == set(made.generator.state_dict())
    assert facts["format"] == 1
    assert facts["spec"]["num_classes"] == 3
    assert facts["class_names"] == ["kind 0", "kind 1", "kind 2"]


def test_names_in_any_script_come_back() -> None:
    from dataclasses import replace

    names = ("кошка", 'a "b" \\ c', "犬 🐕")
    made = replace(tiny(num_classes=3), class_names=names)
    assert read_file(io.BytesIO(to_bytes(made))).class_names == names


def test_what_json_cannot_hold_is_said_before_anything_is_written() -> None:
    from dataclasses import replace

    made = tiny()
    odd = replace(made, spec=replace(made.spec, options={"x": float("nan")}))
    with pytest.raises(SaganError, match="cannot be described in a file's header"):
        to_bytes(odd)


def test_a_path_is_not_given_away(tmp_path: Path) -> None:
    assert trained_model.published(tiny()).data["source"] == "pictures/"
    assert trained_model.label("quadrupeds") == "quadrupeds"
    assert trained_model.label("./mnist") == "mnist/"  # a folder called like a data set
    assert trained_model.label("/data/set.zip") == "set.zip"
    assert trained_model.label("C-of-some-plugin") == "C-of-some-plugin"
    assert trained_model.label("pictures/") == "pictures/"
    assert trained_model.label("set.zip") == "set.zip"


# --- what a stranger may send ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> bytes:
    return to_bytes(tiny(num_classes=3))


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: dict[str, Any] | bytes, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + rest


def refused(data: bytes) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_file(io.BytesIO(data))
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    header, rest = split(data)
    change(header)
    return joined(header, rest)


def with_facts(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Changed facts whose digest is right again: a file that was made to deceive, not damaged."""
    header, rest = split(data)
    facts = json.loads(header["__metadata__"]["sagan"])
    change(facts)
    read = {k: v for k, v in header.items() if k != "__metadata__"}
    tensors = {
        k: torch.frombuffer(bytearray(rest[slice(*v["data_offsets"])]), dtype=torch.float32).view(v["shape"])
        for k, v in read.items()
    }
    facts["sha256"] = model_file.content_digest({k: v for k, v in facts.items() if k != "sha256"}, tensors)
    header["__metadata__"]["sagan"] = json.dumps(facts)
    return joined(header, rest)


def test_the_tools_of_these_tests_make_files_that_are_read(good: bytes) -> None:
    assert read_file(io.BytesIO(with_facts(good, lambda f: f.update(step=8)))).facts.step == 8
    assert read_file(io.BytesIO(with_header(good, lambda h: None))).facts.step == 7


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", UNSOUND),
        (b"\x08\0\0", UNSOUND),
        (b"\xff" * 8 + b"{}", UNSOUND),
        ((1 << 40).to_bytes(8, "little") + b"{}", UNSOUND),
        ((100).to_bytes(8, "little") + b"{}", UNSOUND),
        (pickle.dumps({"state_dict": [1.0] * 9}), "looks like a pickle, which sagan never opens"),
        (b"PK\x03\x04\x14\0\0\0archive/data.pkl", "looks like a pickle, which sagan never opens"),
        (joined(b"not JSON", b""), UNSOUND),
        (joined(b"\xff\xfe{}", b""), UNSOUND),
        (joined(b"[1]", b""), UNSOUND),
        (joined(b'{"a": NaN}', b""), UNSOUND),
        (joined(b'{"a": 1e999}', b""), UNSOUND),
        (joined(b'{"a": 1, "a": 2}', b""), UNSOUND),
        (joined(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), UNSOUND),
        (joined(b'{"a": ' + b"9" * 5000 + b"}", b""), UNSOUND),
        (joined({"__metadata__": 3}, b""), UNSOUND),
        (joined({}, b""), "none that 'sagan export' wrote"),
        (joined({"__metadata__": {"format": "pt"}}, b""), "none that 'sagan export' wrote"),
        (joined({"__metadata__": {"sagan": "{"}}, b""), "the description in its header is not valid JSON"),
        (joined({"__metadata__": {"sagan": '{"a": NaN}'}}, b""), "NaN is not JSON"),
        (joined({"__metadata__": {"sagan": '{"a": 1e999}'}}, b""), "too large a number"),
        (joined({"__metadata__": {"sagan": '{"a": 1, "a": 2}'}}, b""), "a key occurs twice"),
        (joined({"__metadata__": {"sagan": "[" * 100_000}}, b""), "nested too deeply"),
        (joined({"__metadata__": {"sagan": "[]"}}, b""), "the description in its header is not a JSON object"),
        (joined({"__metadata__": {"sagan": "{}"}}, b""), "model format None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_such_file(data: bytes, says: str) -> None:
    assert says in refused(data)


def test_a_header_of_any_length_is_read(good: bytes, tmp_path: Path) -> None:
    """A header of 128 + 256 k bytes begins like a pickle."""
    header, rest = split(good)
    text = json.dumps(header).encode()
    data = joined(text + b" " * ((0x80 - len(text)) % 256), rest)
    assert data[0] == 0x80
    (tmp_path / "m.safetensors").write_bytes(data)
    for source in (tmp_path / "m.safetensors", io.BytesIO(data)):
        assert read_file(source).facts.step == 7


def entry(**own: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["linear.bias"].update(own)


def swapped(header: dict[str, Any]) -> None:
    a, b = header["linear.weight"], header["linear.bias"]
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (entry(dtype="F33"), UNSOUND),
        (entry(dtype=["F32"]), UNSOUND),
        (entry(shape=[3]), UNSOUND),
        (entry(shape=[-256]), UNSOUND),
        (entry(shape=[True] * 3), UNSOUND),
        (entry(shape=[2**40, 2**40]), UNSOUND),
        (entry(shape="256"), UNSOUND),
        (entry(shape=[1] * 9), UNSOUND),
        (entry(data_offsets=[0, 2**60]), UNSOUND),
        (entry(data_offsets=[0.0, 8.0]), UNSOUND),
        (entry(data_offsets=[0]), UNSOUND),
        (lambda h: h.update({"linear.bias": 5}), UNSOUND),
        (lambda h: h.pop("linear.bias"), UNSOUND),
        (swapped, UNSOUND),
        (lambda h: h.update(z={"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}), UNSOUND),
    ],
)
def test_tensors_that_the_header_cannot_mean(
    change: Callable[[dict[str, Any]], object], says: str, good: bytes
) -> None:
    assert says in refused(with_header(good, change))


def test_a_small_file_cannot_ask_for_much_memory() -> None:
    shape = [1 << 30, 1 << 16]
    header = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 1 << 48]}}
    assert UNSOUND in refused(joined(header, b"1234"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "model format 2; this version of sagan reads format 1"),
        ({"format": "1"}, "model format '1'"),
        ({"format": True}, "model format True"),
        ({"arch": "alien", "arch_package": "sagan-alien 1.2"}, "needs architecture 'alien' of package sagan-alien 1.2"),
        ({"arch": "os.system"}, "needs architecture 'os.system'"),
        ({"arch": "\x1b[31mred"}, "'arch' in its header is not a name"),
        ({"arch": 3}, "'arch' in its header"),
        ({"arch_package": "a\nb"}, "'arch_package'"),
        ({"class_names": ["a", "b"]}, "names 2 classes of 3"),
        ({"class_names": ["a", "b", "c\x07"]}, "'class_names' in its header is not a list of names"),
        ({"class_names": "abc"}, "'class_names'"),
        ({"weights": "best"}, "neither ema nor raw"),
        ({"step": -1}, "'step'"),
        ({"step": 1.5}, "'step'"),
        ({"data": []}, "'data'"),
        ({"data": {"source": 1}}, "'data.source'"),
        ({"data": {"source": "x", "digest": "../../x", "count": 1}}, "'data.digest'"),
        ({"data": {"source": "x", "digest": "ab", "count": "1"}}, "'data.count'"),
        ({"checkpoint": {"a": 1}}, "'checkpoint'"),
        ({"sagan": "0.1\r"}, "'sagan'"),
        ({"spec": None}, "'spec'"),
    ],
)  # fmt: skip
def test_facts_that_cannot_be(change: dict[str, Any], says: str, good: bytes) -> None:
    assert says in refused(with_facts(good, lambda facts: facts.update(change)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"height": 0}, "spec.height"),
        ({"height": 2**40}, "spec.height"),
        ({"width": 16.0}, "spec.width"),
        ({"height": 17}, "architecture 'sagan' refuses its description"),
        ({"attn_at": [5]}, "architecture 'sagan' refuses its description"),
        ({"attn_at": 8}, "spec.attn_at"),
        ({"attn_at": list(range(1000))}, "spec.attn_at"),
        ({"options": {"x": 1}}, "architecture 'sagan' refuses its description"),
        ({"options": []}, "spec.options"),
        ({"more": 1}, "'spec' in its header has other keys"),
        ({"base_width": 3}, "has shape"),
        ({"base_width": 1 << 16, "latent": 1 << 20}, "has shape"),
        ({"attn_at": []}, "it has no tensor 'attention.8."),
        ({"channels": 1}, "tensor 'to_image.weight' has shape (3, 2, 3, 3), not (1, 2, 3, 3)"),
    ],
)
def test_networks_that_do_not_fit(change: dict[str, Any], says: str, good: bytes) -> None:
    assert says in refused(with_facts(good, lambda facts: facts["spec"].update(change)))


def test_missing_and_foreign_tensors_are_named() -> None:
    from safetensors.torch import load, save

    header, _ = split(data := to_bytes(tiny()))
    tensors = load(data)
    less = {k: v for k, v in tensors.items() if k != "norm.gain"}
    assert "tensor 'norm.gain' is missing" in refused(save(less, header["__metadata__"]))
    more = {**tensors, "evil.weight": torch.zeros(3)}
    assert "it has no tensor 'evil.weight'" in refused(save(more, header["__metadata__"]))
    half = {**tensors, "linear.bias": tensors["linear.bias"].half()}
    assert "tensor 'linear.bias' has type F16, not F32" in refused(save(half, header["__metadata__"]))


def test_any_flipped_bit_and_any_cut_is_found(good: bytes) -> None:
    rng = random.Random(0)
    header = 8 + int.from_bytes(good[:8], "little")
    places = [*rng.sample(range(header * 8), 100), *rng.sample(range(header * 8, len(good) * 8), 12)]
    for place in [*range(64), *places]:
        flipped = bytearray(good)
        flipped[place // 8] ^= 1 << place % 8
        refused(bytes(flipped))
    for length in (1, 8, 9, header - 1, header, header + 1, len(good) - 1):
        assert UNSOUND in refused(good[:length])
    assert UNSOUND in refused(good + b"\0")


def test_a_stream_is_held_to_its_header(good: bytes, tmp_path: Path) -> None:
    for data, says in ((good[:-1], UNSOUND), (good + b"\0", UNSOUND)):
        (tmp_path / "stream").write_bytes(data)
        with (tmp_path / "stream").open("rb") as f, pytest.raises(CheckpointError, match=f"^standard input: .*{says}"):
            read_file(f)


# --- architectures from elsewhere -----------------------------------------------------------------------------------

NORMED = """
    import torch
    from torch import nn
    from torch.nn.utils import parametrizations
    from sagan_cli.errors import UsageError

    class G(nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.shape = (4, spec.height, spec.width)
            self.embed = nn.Embedding(max(spec.num_classes, 1), spec.latent)
            self.linear = parametrizations.spectral_norm(nn.Linear(spec.latent, 4 * spec.height * spec.width))
            self.paint = parametrizations.weight_norm(nn.Conv2d(4, spec.channels, 3, padding=1))
            self.norm = nn.BatchNorm2d(4)
            self.register_buffer("bias", torch.full((4, 1, 1), 0.25), persistent=False)
            self.scale = torch.tensor(0.5) if spec.options.get("loose") else 0.5

        def forward(self, z, y):
            if y is not None:
                z = z + self.embed(y)
            x = self.norm(self.linear(z).reshape(z.shape[0], *self.shape)) * self.scale + self.bias
            return torch.tanh(self.paint(x))

    def build(spec):
        if spec.attn_at:
            raise UsageError("--attn-at: normed has no attention")
        return G(spec), nn.Linear(1, 1)
"""


@pytest.fixture
def normed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An architecture with PyTorch's own parametrisations, and a buffer that no file carries."""
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "sagan-normed", "[sagan.architectures]\nnormed = normed_arch:build\n", normed_arch=NORMED)
    registry.refresh()
    yield tmp_path
    registry.refresh()


@pytest.mark.parametrize("loose", [False, True])
def test_pytorch_s_own_parametrisations_are_folded(normed: Path, loose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(12, 8, 3, 2, 6, attn_at=(), options={"loose": loose})
    torch.manual_seed(1)
    g, _ = networks.build("normed", spec)
    g.norm(torch.randn(8, *g.shape))
    z, y = sample.latents([sample.Request(seed) for seed in range(5)], spec, None)
    with torch.inference_mode():
        want = g.eval()(z, y)
    made = TrainedModel(
        sample.ready(g, torch.device("cpu")), spec, ("a", "b"), "normed", "sagan-normed 1.0", "ema", 3,
        {"source": "x", "digest": "ab", "count": 1}, "here",
    )  # fmt: skip
    data = to_bytes(made)
    back = read_file(io.BytesIO(data))
    with torch.inference_mode():
        assert (back.generator(z, y) - want).abs().max() <= 1e-6
    assert not any(parametrize.is_parametrized(m) for m in back.generator.modules())
    assert not any("original" in name for name in back.generator.state_dict())
    assert back.generator.bias.unique().tolist() == [0.25]
    monkeypatch.setenv("SAGAN_PLUGINS", "")
    assert "needs architecture 'normed' of package sagan-normed 1.0; install it" in refused(data)


def test_the_example_plugin_goes_into_a_file_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(REPOSITORY / "plugins" / "sagan-tiny")
    install(tmp_path, "sagan-tiny", "[sagan.architectures]\ntiny = sagan_tiny:build\n")
    registry.refresh()
    for classes in (0, 3):
        spec = ModelSpec(24, 32, 3, classes, 6, 8, (16,), {"heads": 2})
        torch.manual_seed(1)
        g, _ = networks.build("tiny", spec)
        nn.init.ones_(g.attention_layers()["16"].gamma)
        g.blocks[0][2].running_mean.normal_()
        made = TrainedModel(
            sample.ready(g, torch.device("cpu")), spec, tuple("abc"[:classes]), "tiny", "sagan-tiny 0.1.0", "raw", 3,
            {"source": "x", "digest": "ab", "count": 1}, "here",
        )  # fmt: skip
        back = read_file(io.BytesIO(to_bytes(made)))
        assert back.weights == "raw"
        np.testing.assert_array_equal(drawn(back), drawn(made))


def test_folding_leaves_networks_without_anything_to_fold_as_they_are() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    assert all(torch.equal(v, before[k]) for k, v in fold_network_(plain).state_dict().items())
    with torch.device("meta"):
        normed = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))).eval()
        assert set(fold_network_(normed).state_dict()) == {"0.weight", "0.bias"}


# --- load_generator -------------------------------------------------------------------------------------------------


def test_load_generator_draws_and_computes(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(good)
    g = load_generator(str(tmp_path / "m.safetensors"))
    made = tiny(num_classes=3)
    assert g.spec == made.spec
    assert g.class_names == ("kind 0", "kind 1", "kind 2")
    np.testing.assert_array_equal(g.draw(range(11)), drawn(made))
    np.testing.assert_array_equal(g.draw([4, 9]), g.draw(range(11))[[4, 9]])
    np.testing.assert_array_equal(g.draw([4], label=1), g.draw([4], label="kind 1"))
    assert g.draw([]).shape == (0, 16, 16, 3)
    z, y = torch.randn(5, 20), torch.tensor([0, 1, 2, 0, 1])
    x = g(z, y)
    assert x.shape == (5, 3, 16, 16)
    assert bool((x.abs() <= 1).all())
    assert torch.equal(x, made.generator(z, y))
    x.requires_grad_()  # an ordinary tensor


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: g(torch.zeros(2, 20)), "3 classes: give y"),
        (lambda g: g(torch.zeros(2, 21), torch.zeros(2, dtype=torch.long)), r"z is \(2, 21\): this generator takes"),
        (lambda g: g(torch.zeros(2, 20), torch.zeros(3, dtype=torch.long)), r"y is \(3,\)"),
        (lambda g: g(torch.zeros(2, 20), torch.zeros(2)), "class indices"),
        (lambda g: g(torch.zeros(2, 20), torch.tensor([0, 3])), "classes are 0 to 2"),
        (lambda g: g.draw([1], label=3), "label 3: classes are 0 to 2"),
        (lambda g: g.draw([1], label="kind 9"), r"no such class \(did you mean"),
    ],
)
def test_a_wrong_call_is_said_in_a_line(call: Callable[[Any], Any], says: str, tmp_path: Path, good: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(good)
    with pytest.raises(UsageError, match=says):
        call(load_generator(tmp_path / "m.safetensors"))


def test_load_generator_says_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="no such file, run or checkpoint"):
        load_generator(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match=r"x\.bin: not a \.safetensors file, run or checkpoint"):
        load_generator(tmp_path / "x.bin")
    with pytest.raises(SaganError, match="not a run directory"):
        load_generator(tmp_path)
