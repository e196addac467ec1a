"""The Frechet distance, moments and the cache of features, against closed forms, plain NumPy and torch-fidelity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from sagan_cli.errors import SaganError
from sagan_cli.evaluation import features as features_module
from sagan_cli.evaluation.features import (
    FeatureRows,
    FeatureSums,
    Moments,
    moments_of,
    moments_of_array,
)
from sagan_cli.evaluation.image_sets import CachedFeatures, FeatureCache
from sagan_cli.evaluation.metrics.fid import distance, rank_note


def features(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.4, 0.3, (count, width)).astype(np.float32)


def filled(array: np.ndarray, folder: Path | None = None) -> FeatureRows:
    rows = FeatureRows(*array.shape, folder)
    for start in range(0, len(array), 7):
        rows.put(start, array[start : start + 7])
    return rows


def exact(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two sets by their singular values: tr sqrt(S1 S2) is the nuclear norm of A B^T, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    x, y = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross)


def test_gaussians_with_known_moments() -> None:
    # Diagonal covariances commute: the distance is |m|^2 plus the squared differences of the deviations.
    a = Moments(np.array([1, 2, 3], np.float32), np.diag([1.0, 4.0, 9.0]), 10_000)
    b = Moments(np.array([0, 2, 5], np.float32), np.diag([4.0, 4.0, 1.0]), 10_000)
    assert distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 4, rel=1e-12)
    assert distance(a, a) == pytest.approx(0, abs=1e-12)
    # A rotation changes nothing.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    c, d = (Moments((turn @ m.mean).astype(np.float32), turn @ m.covariance @ turn.T, 10_000) for m in (a, b))
    assert distance(c, d) == pytest.approx(10, rel=1e-6)


@pytest.mark.parametrize(("n", "width"), [(200, 16), (40, 64), (2, 5)])
def test_it_is_the_distance_and_torch_fidelitys_number(n: int, width: int) -> None:
    import torch

    a, b = features(n, width, 1), features(n + 3, width, 2) + 0.1
    ours = distance(moments_of(filled(a)), moments_of(filled(b)))
    statistics = [fid_features_to_statistics(torch.from_numpy(v)) for v in (a, b)]
    assert ours == fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(exact(a, b), rel=1e-4)


def test_large_sets_are_summed_and_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = features(5000, 12)
    small = moments_of(filled(array))
    monkeypatch.setattr(features_module, "IN_MEMORY", 1000)
    with filled(array, tmp_path) as large:
        assert not large.small
        found = moments_of(large)
        np.testing.assert_array_equal(large.array(), array)
        np.testing.assert_array_equal(np.concatenate(list(large.chunks())), array)
    np.testing.assert_allclose(found.mean, small.mean, rtol=1e-5)
    np.testing.assert_allclose(found.covariance, small.covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(array.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_too_few_and_not_finite_are_said() -> None:
    with pytest.raises(SaganError, match="at least 2"):
        moments_of_array(features(1, 4))
    with pytest.raises(SaganError, match="at least 2"):
        FeatureSums(4).moments()
    broken = features(9, 4)
    broken[3, 2] = np.nan
    with pytest.raises(SaganError, match="not finite"):
        moments_of_array(broken)
    with pytest.raises(SaganError, match="another extractor"):
        distance(moments_of_array(features(9, 4)), moments_of_array(features(9, 5)))


def test_missing_rank_is_named_and_never_nan() -> None:
    few, many = moments_of_array(features(5, 32)), moments_of_array(features(100, 32, 1))
    assert rank_note("generated", many) is None
    assert "5 generated images for 32 features" in (rank_note("generated", few) or "")
    same = moments_of_array(np.ones((6, 3), np.float32))
    for a in (few, many):
        assert np.isfinite(distance(a, many))
    assert distance(same, same) == 0.0


def test_kept_statistics_come_back_to_the_bit(tmp_path: Path) -> None:
    said: list[str] = []
    store = FeatureCache(tmp_path, said.append)
    about = {"data": "abc", "extractor": "x"}
    array = features(30, 8)
    assert store.find(about, rows=False) is None
    store.keep(about, CachedFeatures(moments_of_array(array), None))
    found = store.find(about, rows=False)
    assert found is not None
    np.testing.assert_array_equal(found.moments.covariance, moments_of_array(array).covariance)
    np.testing.assert_array_equal(found.moments.mean, moments_of_array(array).mean)
    assert found.moments.count == 30
    assert store.find(about, rows=True) is None, "no features were kept"
    assert store.find({**about, "data": "abd"}, rows=False) is None
    store.keep(about, CachedFeatures(moments_of_array(array), array))
    with_rows = store.find(about, rows=True)
    assert with_rows is not None
    np.testing.assert_array_equal(with_rows.rows, array)
    assert said == []


def test_damaged_statistics_are_named_and_computed_again(tmp_path: Path) -> None:
    said: list[str] = []
    store = FeatureCache(tmp_path, said.append)
    store.keep({"data": "abc"}, CachedFeatures(moments_of_array(features(30, 8)), None))
    (entry,) = tmp_path.iterdir()
    data = bytearray((entry / "sigma.npy").read_bytes())
    data[-3] ^= 1
    (entry / "sigma.npy").write_bytes(data)
    assert store.find({"data": "abc"}, rows=False) is None
    assert "sigma.npy" in said[0]
    assert list(tmp_path.iterdir()) == []
