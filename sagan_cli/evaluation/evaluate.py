"""A score, top to bottom: features of both sides, the reference kept for next time, metrics, intervals."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any

import numpy as np

from sagan_cli.engine.jobs import Progress
from sagan_cli.engine.runtime import Runtime
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.features import Found, Pass, Probe, collect
from sagan_cli.evaluation.measures import (
    SCORES,
    STRUCTURE,
    Known,
    Real,
    Scores,
    Want,
    per_class,
    probe_of,
    structure_score,
)
from sagan_cli.evaluation.metrics.frechet import Moments
from sagan_cli.evaluation.sides import Places, Side, some_of
from sagan_cli.evaluation.store import Reference, Store


def evaluate(
    fake: Side,
    real: Real,
    extractor: Extractor | None,
    want: Want,
    runtime: Runtime,
    store: Store,
    progress: Progress,
) -> Scores | None:
    """Score `fake` against `real`; None on all processes but the leading one.

    Without an extractor only the structure score can be had, which looks at no network and no real picture.

    Raises:
        SaganError: too few pictures, features or statistics that are no use.
        DataError: a picture that cannot be read, a class without pictures.
    """
    with ExitStack() as open_files:

        def one_pass(title: str, side: Side, places: Places, wanted: Pass) -> dict[str, Found]:
            with progress(title, len(places)) as tick:
                return collect(
                    side, places, extractor, wanted, runtime, open_files=open_files, folder=store.folder, tick=tick
                )

        probes: dict[str, Probe] = {}
        if want.structure is not None and STRUCTURE in want.metrics:
            probes[STRUCTURE] = probe_of(want.structure)
        if extractor is None:
            features = one_pass("measuring the samples", fake, np.arange(len(fake)), Pass((), True, want.batch, probes))
            scores = Scores(n_fake=len(fake), n_real=None)
            if runtime.leads:
                structure_score(scores, features)
            return scores if runtime.leads else None

        # The reference: found, or computed and kept.
        layer = extractor.layers["fid"]
        needs_rows = want.per_class or bool({"kid", "prc"} & set(want.metrics))
        places = some_of_real(real, want)
        reference = _found(real, places, extractor, layer, needs_rows, runtime, store)
        if reference is None:
            assert real.side is not None
            wanted = Pass((layer,), needs_rows, want.batch, {})
            features = one_pass("measuring the data", real.side, places, wanted)
            if runtime.leads:
                found = features[layer]
                rows = found.rows.array() if needs_rows and found.rows is not None else None
                reference = Reference(found.moments(), rows)
                store.keep(_about(real, places, extractor, layer), reference)

        # The fakes: one pass for all metrics.
        needed = [m for m in want.metrics if m != STRUCTURE] + (["fid"] if want.per_class else [])
        layers = tuple(dict.fromkeys(extractor.layers[m] for m in needed))
        wanted = Pass(layers, True, want.batch, probes)
        features = one_pass("measuring the samples", fake, np.arange(len(fake)), wanted)
        if not runtime.leads:
            return None
        assert reference is not None

        # The numbers.
        scores = Scores(n_fake=len(fake), n_real=reference.moments.count or None)
        known = Known(features, reference, extractor, want)
        with progress("computing the scores", len(want.metrics)) as tick:
            for done, metric in enumerate(want.metrics):
                if metric == STRUCTURE:
                    structure_score(scores, features)
                else:
                    SCORES[metric](scores, known)
                tick(done + 1)
            if want.per_class:
                per_class(scores, fake, real, places, known)
        return scores


def some_of_real(real: Real, want: Want) -> Places:
    """Which pictures of the reference take part."""
    return some_of(len(real.side), want.n_real) if real.side is not None else np.zeros(0, dtype=np.int64)


def _found(
    real: Real, places: Places, extractor: Extractor, layer: str, rows: bool, runtime: Runtime, store: Store
) -> Reference | None:
    """The reference without touching a picture; on all processes or on none."""
    if real.moments is not None:
        return Reference(real.moments, None)
    found = store.find(_about(real, places, extractor, layer), rows=rows) if runtime.leads else None
    if not runtime.any_of(found is not None):
        return None
    return found or Reference(Moments(np.zeros(1, np.float32), np.zeros((1, 1)), 2), None)


def _about(real: Real, places: Places, extractor: Extractor, layer: str) -> dict[str, Any]:
    """Everything that the reference's numbers depend on."""
    return {
        "data": real.digest, "places": hashlib.sha256(places.astype("<i8").tobytes()).hexdigest(),
        "count": len(places), "extractor": extractor.name, "weights": extractor.digest, "layer": layer,
        "resize": extractor.resize, "device": extractor.device.type,
    }  # fmt: skip
