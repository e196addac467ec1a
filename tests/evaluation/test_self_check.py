"""The self-check passes on a sound extractor and stops every broken one that it is there for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.inception_weights import constructed
from torch import Tensor

from sagan_cli.errors import SaganError
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.extractors.self_check import inception_difference, self_check


def real(count: int) -> Tensor:
    """Smooth pictures that differ: uint8 (n, 3, 24, 24)."""
    small = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(small, 24, mode="bilinear") * 255).to(torch.uint8)


def linear(pictures: Tensor, seed: int = 0, size: int = 24) -> Tensor:
    """A small network: resize, differences of neighbours, project, ReLU."""
    x = F.interpolate(pictures.float() / 255, size, mode="bilinear", antialias=True)
    x = torch.cat([x[..., 1:], 4 * x.diff(dim=3).abs()], dim=1).flatten(1)
    weight = torch.randn(x.shape[1], 32, generator=torch.Generator().manual_seed(seed)) / size
    return F.relu(x @ weight)


def extractor(features: Any = linear, **changes: Any) -> Extractor:
    layers = dict.fromkeys(("fid", "kid", "prc"), "features")
    made = Extractor(
        "tiny", "d" * 64, None, layers, "bilinear to 24x24", torch.device("cpu"),
        lambda pictures, wanted: {"features": features(pictures)},
    )  # fmt: skip
    return replace(made, **changes)


def check(made: Extractor, folder: Path) -> Any:
    return self_check(made, real, folder, lambda text: None)


def test_a_sound_extractor_passes_once_per_machine(tmp_path: Path) -> None:
    found = check(extractor(), tmp_path)
    assert found.known_images == 0
    assert found.order < 1e-5
    assert abs(found.floor) < 0.2
    assert check(extractor(), tmp_path) is None, "it is remembered"
    assert check(extractor(digest="e" * 64), tmp_path) is not None, "other weights are another extractor"


def test_other_features_under_the_same_digest_are_found(tmp_path: Path) -> None:
    check(extractor(), tmp_path)
    # Another library version looks again, and finds another resize.
    changed = extractor(lambda pictures: linear(pictures) * 1.01, resize="bilinear, again")
    with pytest.raises(SaganError, match="other features than before"):
        check(changed, tmp_path)


def test_a_network_in_training_mode_is_found(tmp_path: Path) -> None:
    def by_the_batch(pictures: Tensor) -> Tensor:
        x = linear(pictures)
        return (x - x.mean(0)) / (x.std(0, correction=0) + 1)

    with pytest.raises(SaganError, match="order of the images"):
        check(extractor(by_the_batch), tmp_path)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_dead_weights_are_found(value: float, tmp_path: Path) -> None:
    with pytest.raises(SaganError, match="wrong weights"):
        check(extractor(lambda pictures: torch.full((len(pictures), 32), value)), tmp_path)


def test_features_that_see_no_picture_are_found(tmp_path: Path) -> None:
    def hashed(pictures: Tensor) -> Tensor:
        rows = [np.random.default_rng(int(p.double().sum())).normal(size=32) for p in pictures]
        return torch.tensor(np.stack(rows), dtype=torch.float32)

    with pytest.raises(SaganError, match="noise only"):
        check(extractor(hashed), tmp_path)


def test_nothing_is_remembered_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(SaganError):
        check(extractor(lambda pictures: torch.zeros(len(pictures), 32)), tmp_path)
    assert not list(tmp_path.glob("passed*"))


def test_few_pictures_leave_the_halves_out(tmp_path: Path) -> None:
    found = self_check(extractor(), lambda limit: real(6), tmp_path, lambda text: None)
    assert found is not None
    assert found.floor is None


def test_inception_gives_the_expected_features_and_a_lost_resize_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = constructed()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert inception_difference(network) < 1e-4
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())

    from torch_fidelity import feature_extractor_inceptionv3 as module

    def another(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    monkeypatch.setattr(module, "interpolate_bilinear_2d_like_tensorflow1x", another)
    assert inception_difference(network) > 1e-2
    with pytest.raises(SaganError, match="known weights"):
        check(extractor(inception=network), tmp_path)
