"""Score records as `sagan eval-fid --json` prints them."""

from __future__ import annotations

from typing import Any


def record(**changes: Any) -> dict[str, Any]:
    """A sound record as `sagan eval-fid --json` prints it; `fid=3.0` and so on change a value."""
    values = {"fid": 12.5, "intra_fid": 14.25, "kid": 0.0125, "isc": 8.1, "precision": 0.7, "recall": 0.6,
              "structure": 0.88}  # fmt: skip
    values["precision"] = changes.pop("prc", 0.7)
    values |= {name: changes.pop(name) for name in list(values) if name in changes and name != "precision"}
    whole = {
        "kind": "evaluation", "format": 1, "metric": "fid", "value": values["fid"], "interval": [12.0, 13.0],
        "values": values, "intervals": {"fid": [12.0, 13.0], "isc": [8.0, 8.2], "kid": None},
        "extractor": "inception-v3-compat", "weights_sha256": "ab" * 32, "weights_published": True,
        "layers": {"fid": "2048", "kid": "2048", "isc": "logits_unbiased", "prc": "2048"},
        "protocol": "default", "n_real": 60000, "n_fake": 50000, "resize": "TF1 bilinear to 299",
        "colour": "grey repeated to three channels", "real_size": "32x32", "fake_size": "32x32", "fit": "pad",
        "data": "/data/fashion", "data_digest": "cd" * 32, "split": "train", "held_out_digest": None,
        "fake": "runs/001-x", "fake_kind": "model", "checkpoint": "runs/001-x/checkpoints/00005000", "step": 5000,
        "checkpoint_sha256": {"model": "ef" * 32}, "seed": 0, "truncation": None, "ema": True,
        "batch_norm": "running", "labels": "uniform", "kid_subsets": 100, "kid_subset_size": 1000, "isc_splits": 10,
        "prc_neighbours": 3, "dc_neighbours": 5,
        "precision": "fp32", "device": "cpu", "processes": 1, "versions": {"torch": "2.15"},
        "seconds": 12.3, "time": "2026-11-02T10:00:00+00:00", "warnings": [],
    }  # fmt: skip
    return {**whole, **changes}
