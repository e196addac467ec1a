"""The Frechet inception distance (Heusel et al. 2017, equation 6), over all images and for each class.

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

The value is that of torch-fidelity's function.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sagan_cli.contracts import Metric, MetricInputs, Score
from sagan_cli.errors import DataError, SaganError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagan_cli.contracts import Features
    from sagan_cli.evaluation.features import Moments
    from sagan_cli.evaluation.metrics.bootstrap import FeatureArray, Floats

FEW = 2048
"""Images below which the bias is known to be too large for comparisons (Binkowski et al. 2018)."""


def compute(inputs: MetricInputs) -> Iterator[Score]:
    """Return the FID of the features."""
    from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean

    fake, real = inputs.fake, inputs.real
    assert real is not None
    value = distance(fake, real)
    low, high = bootstrap_mean(frechet_influence(fake.rows, fake.mean, fake.covariance, real.mean, real.covariance))
    notes = [note for note in (rank_note("generated", fake), rank_note("real", real)) if note]
    if min(fake.count, real.count or FEW) < FEW and "kid" not in inputs.metrics:
        notes.append(
            f"FID of fewer than {FEW:,} images is biased: compare it only with scores of as many images, "
            "or use --metrics kid, which is not biased"
        )
    yield Score("fid", value, (value + low, value + high), notes=notes)


def compute_per_class(inputs: MetricInputs) -> Iterator[Score]:
    """Return the mean of the FIDs of all classes, with each of them in `details`.

    Raises:
        DataError: one of the sets has no classes, or fewer than two images of a class.
    """
    import numpy as np

    from sagan_cli.evaluation.features import moments_of_array

    fake, real = inputs.fake, inputs.real
    assert real is not None
    if fake.labels is None or real.labels is None:
        raise DataError("--per-class needs classes in both sets of images")
    found = {}
    fewest = fake.count
    for label, name in enumerate(inputs.class_names):
        own, theirs = fake.rows[fake.labels == label], real.rows[real.labels == label]
        for what, rows in (("generated", own), ("real", theirs)):
            if len(rows) < 2:
                raise DataError(f"--per-class: class '{name}' has {len(rows)} {what} image(s): raise -n")
        fewest = min(fewest, len(own), len(theirs))
        found[name] = distance(moments_of_array(own), moments_of_array(theirs))
    few = f"intra-FID of classes with fewer than {FEW:,} images (here {fewest:,}) is biased"
    notes = [few] if fewest < FEW else []
    yield Score("intra_fid", float(np.mean(list(found.values()))), None, {"per_class": found}, notes)


METRIC = Metric(
    about="Frechet distance of two normal distributions fitted to the features (Heusel et al. 2017)",
    better={"fid": "lower"},
    compute=compute,
    real="moments",
)
PER_CLASS = Metric(
    about="FID of each class and their mean, intra-FID (Miyato and Koyama 2018)",
    better={"intra_fid": "lower"},
    compute=compute_per_class,
    classes=True,
)


def distance(fake: Features | Moments, real: Features | Moments) -> float:
    """Return the squared Frechet distance of two normal distributions; 0 for equal moments, up to rounding.

    Raises:
        SaganError: the moments have different numbers of features, or no finite distance.
    """
    import math

    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    if fake.mean.shape != real.mean.shape:
        raise SaganError(
            f"statistics of {len(real.mean):,} features cannot be compared with features of {len(fake.mean):,}: "
            "they come from another extractor"
        )
    pair = [{"mu": side.mean, "sigma": side.covariance} for side in (fake, real)]
    value = float(fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID])
    if not math.isfinite(value):
        raise SaganError("the Frechet distance is not a finite number: the features are degenerate or too large")
    return value


def rank_note(which: str, features: Features | Moments) -> str | None:
    """Return a warning if there are too few images for a covariance of full rank; None otherwise."""
    if features.count > len(features.mean):
        return None
    return (
        f"{features.count:,} {which} images for {len(features.mean):,} features: their covariance does not have full "
        "rank, so the distance is biased upwards"
    )


def frechet_influence(
    rows: FeatureArray, mu1: NDArray[np.floating], sigma1: Floats, mu2: NDArray[np.floating], sigma2: Floats
) -> Floats:
    """Return the influence of each generated image on the squared Frechet distance to fixed moments (mu2, sigma2).

    With m = mu1 and A the optimal transport map from N(0, S1) to N(0, S2), the derivative of the distance by S1 is
    I - A (Bhatia, Jain and Lim 2019, On the Bures-Wasserstein distance), and that of S1 by the weight of x is
    (x - m)(x - m)^T - S1, hence

        influence(x) = 2 (m - mu2).(x - m) + (x - m)^T (I - A) (x - m) - mean of the same over all x.

    Singular covariances are allowed: reweighted images stay in the space that the images span, where the distance is
    smooth. With few images for the number of features and two similar sets, it is also strongly curved: the interval is
    then two to three times too wide, and a bootstrap of the distance itself is even wider.

    The cost is one symmetric eigendecomposition of size min(N, D).

    Args:
        rows: generated features (N, D), N >= 2; may be mapped from a file, and is read in chunks.
        mu1, sigma1: (D,) and (D, D), their moments, sigma divided by N - 1.
        mu2, sigma2: moments of the real images.

    Returns:
        (N,), with mean 0.
    """
    import numpy as np

    from sagan_cli.evaluation.metrics.bootstrap import CHUNK, take_rows

    count, width = rows.shape
    mean = mu1.astype(np.float64)
    slope = 2 * (mean - mu2.astype(np.float64))
    if count <= width:
        centred = rows.astype(np.float64) - mean
        quadratic = (centred**2).sum(axis=1) - _transported_few(centred, sigma2)
        linear = centred @ slope
    else:
        half = _transport_factor(sigma1, sigma2)
        quadratic, linear = np.empty(count), np.empty(count)
        for start in range(0, count, CHUNK):
            here = np.arange(start, min(start + CHUNK, count))
            centred = take_rows(rows, here).astype(np.float64) - mean
            quadratic[here] = (centred**2).sum(axis=1) - ((centred @ half) ** 2).sum(axis=1)
            linear[here] = centred @ slope
    influence = linear + quadratic * (count / (count - 1))  # sigma1 is divided by N - 1, a mean by N
    centred_influence: Floats = influence - influence.mean()
    return centred_influence


def _transport_factor(sigma1: Floats, sigma2: Floats) -> Floats:
    """H, (D, r), with A = H H^T = S2^1/2 (S2^1/2 S1 S2^1/2)^-1/2 S2^1/2, a pseudo-inverse where S1 or S2 is singular.

    The inner square root may be any factor S2 = L L^T, for L = S2^1/2 Q with Q orthogonal, and Q cancels; so Cholesky's
    factor saves a second eigendecomposition.
    """
    import numpy as np

    try:
        factor = np.linalg.cholesky(sigma2)
    except np.linalg.LinAlgError:  # singular, or slightly indefinite, as statistics saved in float32 are
        values, vectors = np.linalg.eigh(sigma2)
        factor = vectors * np.sqrt(np.maximum(values, 0))
    values, vectors = np.linalg.eigh(factor.T @ sigma1 @ factor)
    kept = _above_rounding(values)
    half: Floats = (factor @ vectors[:, kept]) * values[kept] ** -0.25
    return half


def _transported_few(centred: Floats, sigma2: Floats) -> Floats:
    """(x - m)^T A (x - m) for each of N <= D rows x - m.

    For B = rows^T / sqrt(N - 1), S1 = B B^T, and on the span of the rows A = pinv(B)^T (B^T S2 B)^1/2 pinv(B). With
    x_i - m = sqrt(N - 1) B e_i that leaves the diagonal of (N - 1) (B^T S2 B)^1/2, without any inverse.
    """
    import numpy as np

    values, vectors = np.linalg.eigh(centred @ sigma2 @ centred.T)
    kept = _above_rounding(values)
    diagonal: Floats = (vectors[:, kept] ** 2) @ np.sqrt(values[kept])
    return diagonal * float(np.sqrt(len(centred) - 1))


def _above_rounding(values: Floats) -> NDArray[np.bool_]:
    """Mark the eigenvalues (ascending) of a semidefinite matrix that are larger than rounding errors."""
    import numpy as np

    kept: NDArray[np.bool_] = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return kept
