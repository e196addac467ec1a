"""KID, inception score, precision and recall against torch-fidelity and plain NumPy; intervals against recomputing.

Influences are compared with finite differences of the metric by the weight of one picture, intervals with a bootstrap
that computes the metric anew on each resample.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from sagan_cli.errors import SaganError
from sagan_cli.evaluation.metrics import bootstrap, inception_score
from sagan_cli.evaluation.metrics import density_coverage as density_coverage_module
from sagan_cli.evaluation.metrics import precision_recall as precision_recall_module
from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, share_interval
from sagan_cli.evaluation.metrics.density_coverage import density_coverage
from sagan_cli.evaluation.metrics.fid import frechet_influence
from sagan_cli.evaluation.metrics.inception_score import isc, isc_influence
from sagan_cli.evaluation.metrics.kid import kid, kid_influence
from sagan_cli.evaluation.metrics.precision_recall import precision_recall

Array = NDArray[np.float64]
Rows = NDArray[np.float32]


def features(count: int, width: int, seed: int, shift: float = 0.0) -> Rows:
    """Correlated, skewed features whose directions differ in size, as those of a network do."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, width)) @ np.random.default_rng(99).normal(size=(width, width))
    return (np.abs(mixed + shift) * np.linspace(0.2, 1, width)).astype(np.float32)


def mapped(rows: Rows, path: Path) -> Rows:
    """The same rows as a read-only map of a file."""
    np.save(path, rows)
    return np.load(path, mmap_mode="r")


# --- plain float64 references ---


def moments(x: Array | Rows) -> tuple[Array, Array]:
    """Mean and covariance of rows, in float64."""
    return x.mean(axis=0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)


def frechet(x: Array, y: Array, weights: Array | None = None) -> float:
    """The squared distance of weighted rows x to y: tr (S1 S2)^1/2 is the sum of the singular values of X Y^T.

    No square root of a rounding error is taken, so derivatives are good where covariances have not full rank.
    """
    w = np.full(len(x), 1 / len(x)) if weights is None else weights
    mean1, mean2 = w @ x, y.mean(axis=0)
    a = (x - mean1) * np.sqrt(w * len(x) / (len(x) - 1))[:, None]
    b = (y - mean2) / np.sqrt(len(y) - 1)
    small = np.linalg.qr(a, mode="r") @ np.linalg.qr(b, mode="r").T  # the same singular values
    cross = np.linalg.svd(small, compute_uv=False).sum()
    return float(((mean1 - mean2) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * cross)


def kernel(x: Array, y: Array) -> Array:
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd(x: Array, y: Array) -> float:
    """Unbiased squared MMD, sum by sum (Gretton et al. 2012, equation 3)."""
    n, m = len(x), len(y)
    within_x = sum(kernel(x, x)[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(kernel(y, y)[i, j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel(x, y).mean())


def log_score(logits: Array, weights: Array | None = None) -> float:
    """Logarithm of the inception score of one split, from its definition."""
    w = np.full(len(logits), 1 / len(logits)) if weights is None else weights
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return float(w @ (p * np.log(p / (w @ p))).sum(axis=1))


def inside(x: Array, y: Array, k: int) -> float:
    """Share of x within the ball of some y that reaches to y's k-th neighbour in its own set; loops, nothing else."""
    radii = [sorted(np.linalg.norm(y - centre, axis=1))[k] for centre in y]
    hits = [any(np.linalg.norm(point - y[j]) <= radii[j] for j in range(len(y))) for point in x]
    return float(np.mean(hits))


def slopes(metric: Callable[[Array], float], count: int, step: float = 1e-6) -> Array:
    """Derivative of a metric of weights when weight moves from all pictures to picture i, by central differences."""
    even = np.full(count, 1 / count)
    found = np.empty(count)
    for i in range(count):
        to_i = np.eye(count)[i] - even
        found[i] = (metric(even + step * to_i) - metric(even - step * to_i)) / (2 * step)
    return found


def spread(metric: Callable[[NDArray[np.int64]], float], count: int, resamples: int = 300) -> float:
    """Width of the 95 % percentile interval of a metric that is computed anew on every resample."""
    rng = np.random.default_rng(5)
    values = [metric(rng.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(high - low)


def width_of(bounds: tuple[float, float] | None) -> float:
    assert bounds is not None
    return bounds[1] - bounds[0]


# --- values ---


@pytest.mark.parametrize(("n", "m", "size"), [(60, 80, 50), (40, 90, 40), (3, 2, 2)])
def test_kid_is_torch_fidelitys_to_the_bit(tmp_path: Path, n: int, m: int, size: int) -> None:
    fake, real = features(n, 12, 1, 0.2), features(m, 12, 2)
    want = kid_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), kid_subsets=20, kid_subset_size=size, verbose=False
    )
    found = kid(fake, real, subsets=20, subset_size=50)
    assert (found.value, found.details["kid_std"]) == tuple(want.values())
    assert found.details == {
        "kid_std": list(want.values())[1], "kid_subset_size": size, "kid_subsets": 20, "kid_seed": 2020
    }  # fmt: skip
    assert kid(mapped(fake, tmp_path / "f.npy"), mapped(real, tmp_path / "r.npy"), subsets=20, subset_size=50) == found
    assert kid(fake, real, subsets=20, subset_size=min(size, 30), seed=1).value != found.value or size == 2


def test_kid_of_whole_sets_is_the_u_statistic() -> None:
    fake, real = features(30, 7, 1, 0.2), features(30, 7, 2)
    found = kid(fake, real, subsets=2)
    assert found.value == pytest.approx(mmd(fake.astype(np.float64), real.astype(np.float64)), rel=1e-4)
    assert found.details["kid_std"] == pytest.approx(0, abs=1e-3 * found.value)  # rounding in float32


@pytest.mark.parametrize(("n", "splits"), [(200, 10), (203, 10), (50, 1), (4, 10)])
def test_inception_score_is_torch_fidelitys_to_the_bit(tmp_path: Path, n: int, splits: int) -> None:
    logits = features(n, 9, 3) * 3
    used = min(n, splits)
    want = isc_features_to_metric(torch.from_numpy(logits), used, True, 2020)
    found = isc(logits, splits=splits)
    assert (found.value, found.details["isc_std"]) == tuple(want.values())
    assert found.details == {"isc_std": list(want.values())[1], "isc_splits": used, "isc_seed": 2020}
    assert isc(mapped(logits, tmp_path / "l.npy"), splits=splits) == found


def test_inception_score_is_its_definition_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = features(90, 9, 3) * 3
    order = np.random.RandomState(2020).permutation(90)
    wide = logits.astype(np.float64)[order]
    parts = [np.exp(log_score(part)) for part in (wide[:30], wide[30:60], wide[60:])]
    found = isc(logits, splits=3)
    assert (found.value, found.details["isc_std"]) == pytest.approx((np.mean(parts), np.std(parts)), rel=1e-12)
    assert 1 < found.value < 9
    monkeypatch.setattr(inception_score, "AT_ONCE", 0)
    monkeypatch.setattr(bootstrap, "CHUNK", 7)
    chunked = isc(logits, splits=3)
    assert (chunked.value, *chunked.interval) == pytest.approx((found.value, *found.interval), rel=1e-12)  # type: ignore[misc]


def test_certain_pictures_of_all_classes_score_their_number() -> None:
    logits = np.repeat(np.eye(5, dtype=np.float32) * 100, 20, axis=0)
    assert isc(logits, splits=1).value == pytest.approx(5, rel=1e-12)
    assert isc(np.zeros((20, 5), np.float32)).value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("n", "m", "k"), [(60, 50, 3), (40, 70, 5), (3, 9, 3), (2, 2, 3)])
def test_precision_and_recall_are_torch_fidelitys_and_the_definition(n: int, m: int, k: int) -> None:
    fake, real = features(n, 6, 1, 0.3), features(m, 6, 2)
    used = min(k, n - 1, m - 1)
    want = prc_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=used, verbose=False)
    precision, recall = precision_recall(fake, real, neighbours=k)
    assert (precision.value, recall.value) == (want["precision"], want["recall"])
    assert precision.details["prc_neighbours"] == recall.details["prc_neighbours"] == used
    x, y = fake.astype(np.float64), real.astype(np.float64)
    assert (precision.value, recall.value) == pytest.approx((inside(x, y, used), inside(y, x, used)), rel=1e-6)


def test_blocks_of_distances_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = features(120, 6, 1, 0.3), features(150, 6, 2)
    whole = precision_recall(fake, real)
    monkeypatch.setattr(precision_recall_module, "ALL_PAIRS", 100)
    monkeypatch.setattr(precision_recall_module, "BLOCK", 4 * 150 * 32)
    monkeypatch.delattr("torch_fidelity.metric_prc.calculate_precision_recall_full")  # nothing holds all pairs now
    assert precision_recall(mapped(fake, tmp_path / "f.npy"), mapped(real, tmp_path / "r.npy")) == whole


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    same = features(30, 5, 1)
    assert kid(same, same, subsets=3, subset_size=10).value < 1  # below zero is where torch-fidelity would print
    isc(same)
    precision_recall(same, same)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_scored_is_said() -> None:
    few, some, other = features(1, 4, 1), features(9, 4, 2), features(9, 5, 3)
    bad = some.copy()
    bad[3, 1] = np.nan
    for metric in (kid, precision_recall):
        with pytest.raises(SaganError, match="1 generated image"):
            metric(few, some)
        with pytest.raises(SaganError, match="1 real image"):
            metric(some, few)
        with pytest.raises(SaganError, match="4 features and real ones 5"):
            metric(some, other)
        for values in (bad, some * np.float32(1e30)):
            with pytest.raises(SaganError, match="finite number"):
                metric(values, some)
    for values in (bad, np.array([[0, 1e4], [0, 1e4]], np.float32)):  # the second: one class's share is 0 in float64
        with pytest.raises(SaganError, match="inception score is not a finite number"):
            isc(values, splits=1)
    with pytest.raises(SaganError, match="no images"):
        isc(features(0, 4, 1))
    with pytest.raises(SaganError, match="no interval"):
        bootstrap_mean(np.array([0.0, np.inf]))


# --- influences: the derivative, picture by picture ---


@pytest.mark.parametrize(
    ("count", "width", "reals"), [(200, 6, 150), (7, 6, 150), (6, 6, 150), (12, 20, 90), (200, 6, 5), (9, 20, 8)]
)
def test_frechet_influence_is_the_derivative_at_full_rank_or_not(count: int, width: int, reals: int) -> None:
    fake, real = features(count, width, 1, 0.2), features(reals, width, 2).astype(np.float64)
    influence = frechet_influence(fake, *moments(fake), *moments(real))
    want = slopes(lambda w: frechet(fake.astype(np.float64), real, w), count)
    np.testing.assert_allclose(influence, want, atol=1e-6 * np.abs(want).max())
    assert influence.mean() == pytest.approx(0, abs=1e-12 * np.abs(want).max())


def test_frechet_influence_in_chunks_and_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, own, other = (features(100, 6, 1, 0.2), *map(moments, (features(100, 6, 1, 0.2), features(90, 6, 2))))
    whole = frechet_influence(fake, *own, *other)
    monkeypatch.setattr(bootstrap, "CHUNK", 7)
    np.testing.assert_allclose(frechet_influence(mapped(fake, tmp_path / "f.npy"), *own, *other), whole, rtol=1e-9)


def test_frechet_influence_of_degenerate_moments() -> None:
    fake, real = features(100, 6, 1, 0.2), features(90, 6, 2)
    whole = frechet_influence(fake, *moments(fake), *moments(real))
    # Features that never fire change nothing; nor do statistics that were rounded until they are no covariance.
    wide_fake, wide_real = (np.pad(side, ((0, 0), (0, 2))) for side in (fake, real))
    mean, sigma = moments(wide_real)
    np.testing.assert_allclose(frechet_influence(wide_fake, *moments(wide_fake), mean, sigma), whole, rtol=1e-8)
    rounded = sigma - 1e-7 * np.eye(8)
    assert np.linalg.eigvalsh(rounded)[0] < 0
    np.testing.assert_allclose(frechet_influence(wide_fake, *moments(wide_fake), mean, rounded), whole, rtol=1e-4)
    # Equal moments are the bottom of the distance; without any spread it is linear.
    assert np.abs(frechet_influence(wide_fake, *moments(wide_fake), *moments(wide_fake))).max() < 1e-9
    flat = np.ones((50, 3), np.float32)
    assert np.abs(frechet_influence(flat, *moments(flat), np.zeros(3), np.eye(3))).max() < 1e-12
    one_point = frechet_influence(fake, *moments(fake), np.zeros(6), np.zeros((6, 6)))
    want = slopes(lambda w: frechet(fake.astype(np.float64), np.zeros((2, 6)), w), 100)
    np.testing.assert_allclose(one_point, want, atol=1e-6 * np.abs(want).max())


def test_kid_influence_is_the_projection() -> None:
    fake, real = features(40, 6, 1, 0.2), features(30, 6, 2)
    x, y = fake.astype(np.float64), real.astype(np.float64)

    def weighted(w: Array) -> float:
        """The U-statistic with weights: pairs of different pictures, w_i w_j, brought to 1."""
        pairs = np.outer(w, w) * (1 - np.eye(len(w)))
        return float((pairs * kernel(x, x)).sum() / (1 - 1 / len(w)) - 2 * w @ kernel(x, y).mean(axis=1))

    want = slopes(weighted, 40)
    np.testing.assert_allclose(kid_influence(fake, real), want - want.mean(), atol=1e-6 * np.abs(want).max())


def test_kid_influence_of_some_stands_for_all(tmp_path: Path) -> None:
    fake, real = features(1600, 6, 1, 0.2), features(1500, 6, 2)
    whole = width_of(bootstrap_mean(kid_influence(fake, real)))
    some = kid_influence(mapped(fake, tmp_path / "f.npy"), real, most=400)
    assert len(some) == 400
    assert width_of(bootstrap_mean(some)) == pytest.approx(whole, rel=0.2)


def test_inception_score_influence_is_the_derivative() -> None:
    logits = features(40, 6, 1) * 3
    level, influence = isc_influence(logits, np.arange(40))
    wide = logits.astype(np.float64)
    assert level == pytest.approx(log_score(wide), rel=1e-12)
    want = slopes(lambda w: log_score(wide, w / w.sum()), 40)
    np.testing.assert_allclose(influence, want, atol=1e-6 * np.abs(want).max())


def test_inception_score_of_splits_is_linearised_as_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = features(11, 6, 1) * 3
    order = np.random.RandomState(2020).permutation(11)
    parts = order[:3], order[3:7], order[7:]  # 11 pictures in 3 splits, which weigh differently

    def weighted(w: Array) -> float:
        wide = logits.astype(np.float64)
        return float(np.log(np.mean([np.exp(log_score(wide[part], w[part] / w[part].sum())) for part in parts])))

    seen: list[Array] = []
    monkeypatch.setattr(bootstrap, "bootstrap_mean", lambda influence: seen.append(influence) or (-0.1, 0.2))
    found = isc(logits, splits=3)
    assert found.interval == pytest.approx((found.value * np.exp(-0.1), found.value * np.exp(0.2)), rel=1e-12)
    want = slopes(weighted, 11)
    np.testing.assert_allclose(seen[0], want, atol=1e-6 * np.abs(want).max())


# --- intervals: the same width as computing everything anew ---


def test_bootstrap_of_a_mean_has_the_normal_width_and_is_seeded() -> None:
    values = np.random.default_rng(0).normal(3, 2, 5000)
    low, high = bootstrap_mean(values)
    want = 1.96 * values.std() / np.sqrt(5000)
    assert (-low, high) == pytest.approx((want, want), rel=0.08)
    assert bootstrap_mean(values) == (low, high) != bootstrap_mean(values, seed=1)
    assert width_of(bootstrap_mean(values, level=0.5)) == pytest.approx(2 * want * 0.6745 / 1.96, rel=0.1)
    assert bootstrap_mean(np.ones(1)) == (0, 0)


def test_frechet_interval_is_as_wide_as_a_bootstrap_of_the_distance() -> None:
    fake, real = features(300, 6, 1, 0.4), features(400, 6, 2)
    influence = frechet_influence(fake, *moments(fake), *moments(real))
    x, y = fake.astype(np.float64), real.astype(np.float64)
    want = spread(lambda places: frechet(x[places], y), 300)
    assert width_of(bootstrap_mean(influence)) == pytest.approx(want, rel=0.2)


@pytest.mark.parametrize(("count", "shift", "most"), [(40, 0.0, 3.0), (80, 0.4, 2.0), (400, 2.0, 1.3)])
def test_frechet_interval_is_not_narrower_than_what_other_draws_do(count: int, shift: float, most: float) -> None:
    # From far fewer pictures than would fill the covariance, close to the reference, to many that are far from it.
    real = features(500, 20, 1)
    draws = [features(count, 20, 100 + seed, shift) for seed in range(100)]
    values = [frechet(draw.astype(np.float64), real.astype(np.float64)) for draw in draws]
    widths = [width_of(bootstrap_mean(frechet_influence(d, *moments(d), *moments(real)))) for d in draws[:5]]
    ratio = np.mean(widths) / (2 * 1.96 * np.std(values))
    assert 0.8 < ratio < most


@pytest.mark.parametrize(("size", "subsets"), [(200, 1), (50, 30)])
def test_kid_interval_is_as_wide_as_a_bootstrap_of_kid(size: int, subsets: int) -> None:
    fake, real = features(200, 6, 1, 0.4), features(200, 6, 2)
    found = kid(fake, real, subsets=subsets, subset_size=size)

    def again(places: NDArray[np.int64]) -> float:
        """Of a resample, with subsets of its own."""
        return kid_features_to_metric(
            torch.from_numpy(fake[places]), torch.from_numpy(real),
            kid_subsets=subsets, kid_subset_size=size, rng_seed=int(places.sum()), verbose=False,
        )["kernel_inception_distance_mean"]  # fmt: skip

    assert width_of(found.interval) == pytest.approx(spread(again, 200), rel=0.2)
    # With small subsets their choice is a large part of it.
    alone = width_of(bootstrap_mean(kid_influence(fake, real)))
    assert (
        width_of(found.interval) == pytest.approx(alone, rel=1e-3)
        if subsets == 1
        else width_of(found.interval) > 1.1 * alone
    )


def test_inception_score_interval_is_as_wide_as_a_bootstrap_of_it() -> None:
    logits = features(300, 9, 1) * 3
    found = isc(logits, splits=2)
    want = spread(
        lambda places: isc_features_to_metric(torch.from_numpy(logits[places]), 2)["inception_score_mean"], 300
    )
    assert width_of(found.interval) == pytest.approx(want, rel=0.2)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_precision_interval_resamples_the_fakes_and_recalls_the_reals() -> None:
    fake, real = features(120, 6, 1, 2.0), features(200, 6, 2)
    precision, recall = precision_recall(fake, real)
    x, y = fake.astype(np.float64), real.astype(np.float64)

    def hits(points: Array, balls: Array) -> Array:
        radii = np.sort(np.linalg.norm(balls[:, None] - balls[None], axis=2), axis=1)[:, 3]
        return (np.linalg.norm(points[:, None] - balls[None], axis=2) <= radii).any(axis=1).astype(np.float64)

    for found, flags in ((precision, hits(x, y)), (recall, hits(y, x))):
        assert 0.05 < found.value < 0.95
        want = spread(lambda places, flags=flags: flags[places].mean(), len(flags), 1000)  # type: ignore[misc]
        assert width_of(found.interval) == pytest.approx(want, rel=0.1)
    assert precision.details["precision_interval_resamples"] == "fake"
    assert recall.details["recall_interval_resamples"] == "real"


def test_a_share_of_none_or_all_is_not_certain() -> None:
    # The bound p at which no hit in n tries has a probability of 2.5 %.
    low, high = share_interval(0, 50)
    assert low == 0
    assert (1 - high) ** 50 == pytest.approx(0.025, rel=1e-12)
    assert share_interval(50, 50) == (1 - high, 1)
    assert share_interval(1, 50)[0] == 0 < share_interval(1, 50)[1] < 0.1


@pytest.mark.parametrize(("n", "m", "k"), [(60, 50, 5), (40, 70, 3), (7, 3, 5), (1, 2, 5)])
def test_density_and_coverage_are_their_definition(n: int, m: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = features(n, 6, 1, 0.3), features(m, 6, 2)
    used = min(k, m - 1)
    x, y = fake.astype(np.float64), real.astype(np.float64)
    radius = np.sort(np.linalg.norm(y[:, None] - y[None], axis=2), axis=1)[:, used]  # column 0 is the image itself
    within = np.linalg.norm(y[:, None] - x[None], axis=2) < radius[:, None]
    for block in (density_coverage_module.BLOCK, 8 * m * 3):
        monkeypatch.setattr(density_coverage_module, "BLOCK", block)
        density, coverage = density_coverage(fake, real, neighbours=k)
        assert density.value == pytest.approx(within.sum() / used / n, rel=1e-12)
        assert coverage.value == pytest.approx(within.any(1).mean(), rel=1e-12)
        assert density.details["dc_neighbours"] == used
    for score in (density, coverage):
        assert score.interval is not None
        assert score.interval[0] <= score.value <= score.interval[1]


def test_density_and_coverage_of_copies_of_one_image_and_of_the_real_images() -> None:
    real = features(200, 6, 2)
    density, coverage = density_coverage(real, real)
    assert (coverage.value, density.value) == (1.0, 1.0)  # a ball holds its image and k - 1 neighbours
    copies = np.repeat(real[:1], 200, axis=0)
    assert density_coverage(copies, real)[1].value < 0.1
