"""Weights give the same bits wherever in memory a file's tensors lie.

MKL's matrix-vector products round differently at different alignments on some processors, and a tensor in a safetensors
file lies at any multiple of 8 bytes. A header of another length moves them all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sagan_cli import load_generator
from sagan_cli.attention import compute_maps
from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import checkpoint, networks, sample
from sagan_cli.engine.model_file import read_file
from sagan_cli.engine.runtime import Runtime
from sagan_cli.export.single_file import to_bytes
from sagan_cli.export.trained_model import open_trained_model
from sagan_cli.files import sha256_of
from sagan_cli.ops.spectral_norm import normalised, power_iteration

CPU = Runtime(torch.device("cpu"), "fp32")
SPEC = ModelSpec(32, 32, num_classes=3, latent=20, base_width=8, attn_at=(8, 16))
OFFSETS = range(0, 128, 8)


def moved(data: bytes, by: int) -> bytes:
    """The same safetensors file with its tensors `by` bytes further on."""
    length = int.from_bytes(data[:8], "little")
    return (length + by).to_bytes(8, "little") + data[8 : 8 + length] + b" " * by + data[8 + length :]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network with attention."""
    players, ema = networks.create("sagan", SPEC, TrainConfig(), CPU.device)
    for network in (players.generator, players.discriminator, ema.module):
        for layer in network.attention_layers().values():
            nn.init.ones_(layer.gamma)
    about = {
        "arch": "sagan", "arch_package": "sagan-cli 0", "spec": SPEC, "class_names": ["a", "b", "c"],
        "data": {"source": "made", "digest": "0", "count": 1},
    }  # fmt: skip
    return checkpoint.save(tmp_path_factory.mktemp("run") / "checkpoints", 1, players, ema, about)


@pytest.fixture(scope="module")
def shifted(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same checkpoint once for each offset."""
    found = []
    for by in OFFSETS:
        path = tmp_path_factory.mktemp("shifted") / saved.name
        path.mkdir()
        facts = json.loads((saved / checkpoint.FACTS).read_text())
        del facts["digest"]
        for name in (checkpoint.MODEL, checkpoint.STATE):
            (path / name).write_bytes(moved((saved / name).read_bytes(), by))
            facts["sha256"][name] = sha256_of(path / name)
        (path / checkpoint.FACTS).write_text(json.dumps(facts))
        found.append(path)
    return found


def placed(values: Tensor, by: int) -> Tensor:
    """The same numbers, `by` bytes after a multiple of 64."""
    memory = torch.empty(4 * values.numel() + 192, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + by
    return memory[start : start + 4 * values.numel()].view(torch.float32).view(values.shape).copy_(values)


def floats(network: nn.Module) -> Tensor:
    z, y = sample.latents([sample.Request(seed) for seed in range(8)], SPEC, None)
    with torch.inference_mode():
        return network(z, y)


def assert_one(found: Iterator[dict[str, Tensor]]) -> None:
    first, *rest = found
    assert len(rest) == len(OFFSETS) - 1
    for other in rest:
        assert other.keys() == first.keys()
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


def test_the_files_hold_the_same_tensors_at_other_places(shifted: list[Path]) -> None:
    places = set()
    for path in shifted:
        tensors = load_file(path / checkpoint.MODEL)
        places.add(next(iter(tensors.values())).data_ptr() % 128)
    assert len(places) == len(OFFSETS)


def test_a_checkpoint_folds_and_draws_the_same(shifted: list[Path]) -> None:
    loaded = (sample.load(path, CPU).generator for path in shifted)
    assert_one({**network.state_dict(), "output": floats(network)} for network in loaded)


def test_a_discriminator_folds_the_same(shifted: list[Path]) -> None:
    pairs = (compute_maps.with_discriminator(compute_maps.open_generator(path, CPU), CPU) for path in shifted)
    assert_one(pair.network("D").state_dict() for pair in pairs)


def test_it_is_exported_to_the_same_file(shifted: list[Path]) -> None:
    subjects = (replace(open_trained_model(path, CPU), digests={}, source="") for path in shifted)
    assert len({to_bytes(subject) for subject in subjects}) == 1


def test_an_exported_file_and_a_pipe_draw_the_same(saved: Path, tmp_path: Path) -> None:
    data = to_bytes(open_trained_model(saved, CPU))
    for by in OFFSETS:
        (tmp_path / f"{by}.safetensors").write_bytes(moved(data, by))
    for source in (lambda by: tmp_path / f"{by}.safetensors", lambda by: io.BytesIO(moved(data, by))):
        loaded = (read_file(source(by)).generator for by in OFFSETS)
        assert_one({**network.state_dict(), "output": floats(network)} for network in loaded)


def test_training_goes_on_the_same(shifted: list[Path]) -> None:
    def spectral_norms(path: Path) -> dict[str, Tensor]:
        players, ema = networks.create("sagan", SPEC, TrainConfig(seed=1), CPU.device)
        checkpoint.restore(checkpoint.read_facts(path), players, ema)
        found = {}
        for network in (players.generator, players.discriminator):
            for name, layer in network.named_modules():
                if getattr(layer, "u", None) is not None:
                    power_iteration(layer.weight, layer.u, layer.v)
                    found[f"{type(network).__name__} {name}"] = normalised(layer.weight, layer.u, layer.v)
        assert len(found) > 20
        return found

    assert_one(map(spectral_norms, shifted))


def test_weights_that_a_module_was_given_are_brought_to_one_alignment() -> None:
    weight, bias = torch.randn(128, 64), torch.randn(128)
    for by in OFFSETS:
        layer = nn.Linear(64, 128, device="meta")
        layer.load_state_dict({"weight": placed(weight, by), "bias": placed(bias, by)}, assign=True)
        layer = networks.laid_out(layer, CPU.device)
        assert all(value.data_ptr() % 64 == 0 for value in layer.parameters())
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer.bias, bias)


def test_latents_of_a_caller_give_the_same_images_wherever_they_lie(saved: Path) -> None:
    generator = load_generator(saved)
    for count in (1, 2, 8):
        z, y = torch.randn(count, SPEC.latent), torch.arange(count) % SPEC.num_classes
        assert_one({"output": generator(placed(z, by), y)} for by in OFFSETS)
