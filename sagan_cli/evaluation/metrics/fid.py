"""Fréchet inception distance (Heusel et al. 2017), whole and per class."""

from __future__ import annotations

from collections.abc import Iterator

from sagan_cli.contracts import Features, Metric, MetricInputs, Score


def _compute(inputs: MetricInputs) -> Iterator[Score]:
    from sagan_cli.evaluation.metrics.bootstrap import bootstrap_mean, frechet_influence
    from sagan_cli.evaluation.metrics.frechet import FEW, Moments, distance, rank_note

    def moments(side: Features) -> Moments:
        return Moments(side.mean, side.covariance, side.count)

    assert inputs.real is not None, "declared by `real`"
    fake, real = moments(inputs.fake), moments(inputs.real)
    value = distance(fake, real)
    low, high = bootstrap_mean(frechet_influence(inputs.fake.rows, fake.mu, fake.sigma, real.mu, real.sigma))
    notes = [note for note in (rank_note("generated", fake), rank_note("real", real)) if note]
    if min(fake.count, real.count or FEW) < FEW and "kid" not in inputs.metrics:
        notes.append(
            f"FID of fewer than {FEW:,} images is biased: compare it only with scores of as many images, or use "
            "--metrics kid, which is unbiased"
        )
    yield Score("fid", value, (value + low, value + high), notes=notes)


FID = Metric(
    "Fréchet distance of Gaussians fitted to the features (Heusel et al. 2017); intra_fid: its mean over classes",
    better={"fid": "lower", "intra_fid": "lower"},
    compute=_compute,
    real="moments",
)
