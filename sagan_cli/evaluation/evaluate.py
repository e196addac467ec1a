"""A score, top to bottom: features of both sides, the reference kept for next time, metrics, intervals."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any

import numpy as np

from sagan_cli.engine.jobs import Progress
from sagan_cli.engine.runtime import Runtime
from sagan_cli.evaluation.extractors.extractor import Extractor
from sagan_cli.evaluation.features import Found, Pass, collect
from sagan_cli.evaluation.measures import Real, RealFeatures, Scores, Want, per_class
from sagan_cli.evaluation.metrics.frechet import Moments
from sagan_cli.evaluation.metrics.table import metric
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
    """Score `fake` against `real`; return None on all processes but the leading one.

    Without an extractor, only metrics of the images themselves are possible, and no real image is read.

    Raises:
        SaganError: too few images, or features or statistics that cannot be used.
        DataError: an image that cannot be read, a class without images.
    """
    with ExitStack() as open_files:

        def one_pass(title: str, side: Side, places: Places, wanted: Pass) -> dict[str, Found]:
            with progress(title, len(places)) as tick:
                return collect(
                    side, places, extractor, wanted, runtime, open_files=open_files, folder=store.folder, tick=tick
                )

        # The references, one for each layer: found in the cache, or computed and kept.
        places = some_of_real(real, want)
        references: dict[str, Reference] = {}
        if extractor is not None:
            rows = {extractor.layers[key]: False for key in want.layers.values()} or {extractor.layers["fid"]: False}
            for name, key in want.layers.items():
                rows[extractor.layers[key]] |= metric(name).real == "rows" or (want.per_class and key == "fid")
            for layer, needed in rows.items():
                found = _found(real, places, extractor, layer, needed, runtime, store)
                if found is not None:
                    references[layer] = found
            missing = tuple(layer for layer in rows if layer not in references)
            if missing:
                assert real.side is not None
                keep = any(rows[layer] for layer in missing)
                features = one_pass("measuring the data", real.side, places, Pass(missing, keep, want.batch, {}))
                for layer in missing if runtime.leads else ():
                    part = features[layer]
                    kept = part.rows.array() if rows[layer] and part.rows is not None else None
                    references[layer] = Reference(part.moments(), kept)
                    store.keep(_about(real, places, extractor, layer), references[layer])

        # The generated images: one pass for all metrics.
        layers = tuple(dict.fromkeys(extractor.layers[key] for key in want.layers.values())) if extractor else ()
        wanted = Pass(layers, True, want.batch, want.probes())
        features = one_pass("measuring the samples", fake, np.arange(len(fake)), wanted)
        if not runtime.leads:
            return None

        # The numbers.
        first = next(iter(references.values()), None)
        scores = Scores(n_fake=len(fake), n_real=first.moments.count or None if first else None)
        labels = real.side.labels if real.side is not None else None
        with progress("computing the scores", len(want.metrics)) as tick:
            for done, name in enumerate(want.metrics, start=1):
                layer_key = metric(name).layer
                where = extractor.layers[layer_key] if extractor and layer_key else name
                reference = references.get(where)
                chosen = None if labels is None else labels[places]
                behind = RealFeatures(reference, chosen) if reference else None
                scores.add(name, want, features[where], fake, behind)
                tick(done)
            if want.per_class and extractor is not None:
                layer = extractor.layers["fid"]
                per_class(scores, fake, real, places, features[layer], references[layer])
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
