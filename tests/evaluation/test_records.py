"""Score records: which facts make two of them comparable, what a damaged one is told, and where they are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.score_records import record

from sagan_cli import runs
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.evaluation import options, records
from sagan_cli.evaluation.options import value_names

NEUTRAL = ("seed", "device", "processes", "versions", "seconds", "time", "step", "checkpoint", "fake", "fake_size",
           "protocol", "data", "checkpoint_sha256", "warnings", "weights_published")  # fmt: skip


OTHER: dict[str, Any] = {
    "extractor": "classifier", "weights_sha256": "00" * 32,
    "layers": {"fid": "768", "kid": "768", "isc": "a", "prc": "b"},
    "resize": "none", "colour": "as it is", "data_digest": "11" * 32, "split": "test", "n_real": 10000,
    "real_size": "64x64", "fit": "crop", "n_fake": 10000, "truncation": 0.5, "ema": False, "batch_norm": "standing",
    "labels": "data", "precision": "bf16", "kid_subsets": 10, "kid_subset_size": 500, "isc_splits": 1,
    "prc_neighbours": 5, "dc_neighbours": 3,
    "seed": 1, "device": "cuda", "processes": 2, "versions": {}, "seconds": 1.0, "time": "later",
    "step": 10, "checkpoint": "other", "fake": "other", "fake_size": "64x64", "protocol": "quick", "data": "elsewhere",
    "checkpoint_sha256": {}, "warnings": ["few"], "weights_published": False,
}  # fmt: skip
"""Another value of every field that may differ."""


def test_the_example_is_sound_and_names_every_field() -> None:
    assert records.check(record(), "x") == record()
    assert set(record()) | {"per_class"} == set(records.FIELDS)
    assert {
        *records.COMPARABLE,
        "kid_subsets",
        "kid_subset_size",
        "isc_splits",
        "prc_neighbours",
        "dc_neighbours",
        *NEUTRAL,
    } == set(OTHER)


@pytest.mark.parametrize("field", records.COMPARABLE)
def test_whatever_changes_an_fid_counts(field: str) -> None:
    found = records.difference(record(), record(**{field: OTHER[field]}), "fid")
    if field == "layers":
        assert found == ("layers.fid", "2048", "768")
    else:
        assert found == (field, record()[field], OTHER[field])


@pytest.mark.parametrize("field", NEUTRAL)
def test_what_is_compared_and_what_only_adds_noise_does_not(field: str) -> None:
    for metric in value_names():
        assert records.difference(record(), record(**{field: OTHER[field]}), metric) is None


def test_each_metric_has_its_own_knobs() -> None:
    for field, own in {
        "kid_subsets": {"kid"}, "kid_subset_size": {"kid"}, "isc_splits": {"isc"},
        "prc_neighbours": {"precision", "recall"}, "dc_neighbours": {"density", "coverage"},
        # IS uses no real image, nor does the structure score.
        "data_digest": {"fid", "intra_fid", "kid", "precision", "recall", "density", "coverage", "memorization"},
        "extractor": {"fid", "intra_fid", "kid", "isc", "precision", "recall", "density", "coverage", "memorization"},
    }.items():  # fmt: skip
        changed = record(**{field: OTHER[field]})
        assert {m for m in value_names() if records.difference(record(), changed, m)} == own, field
    layers = {**record()["layers"], "prc": "768"}
    assert records.difference(record(), record(layers=layers), "fid") is None
    assert records.difference(record(), record(layers=layers), "recall") == ("layers.prc", "2048", "768")


def test_the_first_difference_is_the_weightiest() -> None:
    found = records.difference(record(), record(n_fake=10, extractor="classifier", precision="bf16"), "fid")
    assert found == ("extractor", "inception-v3-compat", "classifier")
    # Real pictures of another size have another digest: the message names the size.
    found = records.difference(record(), record(data_digest="11" * 32, real_size="64x64"), "fid")
    assert found == ("real_size", "32x32", "64x64")


def test_pictures_are_not_held_to_how_a_model_draws() -> None:
    pictures = record(fake="pictures/", fake_kind="folder", **dict.fromkeys(records.DRAWN))
    assert records.difference(record(), pictures, "fid") is None
    assert records.difference(record(), {**pictures, "n_fake": 10}, "fid") == ("n_fake", 50000, 10)
    assert records.difference(record(), record(ema=None), "fid") == ("ema", True, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "x: score record of format 2; this version of sagan reads 1"),
        ({"n_real": "60000"}, "x: not a sound score record: 'n_real' is of type str"),
        ({"n_fake": True}, "x: not a sound score record: 'n_fake' is of type bool"),
        ({"values": {"fid": 1.0}}, "x: not a sound score record: 'value' is not values.fid"),
        ({"metric": "kid"}, "x: not a sound score record: 'value' is not values.kid"),
        ({"fid": float("nan")}, "x: not a sound score record: 'value' is not values.fid"),
        ({"recall": float("inf")}, "x: not a sound score record: 'values.recall' is inf, not a finite number"),
        (
            {"interval": [2, 1]},
            "x: not a sound score record: 'interval' is not two finite numbers, the lower one first",
        ),
        ({"intervals": {"kid": [1]}}, "x: not a sound score record: 'intervals.kid' is not two finite numbers"),
        ({"data_digest": None}, "x: not a sound score record: 'data_digest' is not given, and fid cannot be compared"),
        ({"extractor": "a\x1b[2J"}, "x: not a sound score record: 'extractor' contains control characters"),
        ({"layers": {}}, "x: not a sound score record: 'layers.fid' is missing"),
        ({"isc_splits": None}, "x: not a sound score record: 'isc_splits' is not given, and isc cannot be compared"),
    ],
    ids=str,
)
def test_a_damaged_record_is_told_by_file_and_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SaganError) as caught:
        records.check(record(**changes), "x")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["metric", "value", "values", "fake_kind", "ema", "n_real", "split", "weights_sha256"])
def test_a_missing_key_is_named(key: str) -> None:
    short = {k: v for k, v in record().items() if k != key}
    with pytest.raises(SaganError, match=f"^x: not a sound score record: '{key}' is missing$"):
        records.check(short, "x")


def test_a_structure_score_needs_neither_network_nor_data() -> None:
    bare = record(metric="structure", value=0.5, values={"structure": 0.5}, intervals={}, interval=None, layers={},
                  extractor=None, weights_sha256=None, data_digest=None, n_real=None)  # fmt: skip
    assert records.check(bare, "x") is bare


def test_files_of_one_object_of_lines_and_of_neither(tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text(json.dumps(record(), indent=4))  # as json.tool leaves it
    assert records.read_records(file) == [record()]
    file.write_text("".join(json.dumps(line) + "\n" for line in ({"step": 1}, record(fid=2.0), 5, record(fid=1.0))))
    assert [r["value"] for r in records.read_records(file)] == [2.0, 1.0]
    for text, message in {
        "": "has no score",
        "[]": "has no score",
        '{"kind": "training"}': "has no score",
        '{"step": 1}\n{"kind"': "score.json, line 2: not JSON",
        json.dumps(record()) + "\n" + json.dumps(record(ema=1)): "score.json, line 2: .* 'ema' is of type int",
        json.dumps(record(fake="a\u2028b"), ensure_ascii=False): "'fake' contains control characters",
    }.items():
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SaganError, match=message):
            records.read_records(file)
    file.write_bytes(b"PK\x03\x04\xff")
    with pytest.raises(SaganError, match="not JSON"):
        records.read_records(file)


def test_a_run_gives_its_scores_and_a_checkpoint_those_of_its_step(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "x")
    run.write({})
    for step in (100, 200):
        folder = run.checkpoints / f"{step:08d}"
        folder.mkdir(parents=True)
        (folder / runs.CHECKPOINT_FACTS).write_text("{}")
    with pytest.raises(
        SaganError, match=f"^{run.path}: has no score yet; compute one with 'sagan eval-fid {run.path}'$"
    ):
        records.read_records(run.path)
    for line in ({"step": 100}, record(step=100, fid=3.0), {"step": 200}, record(step=200, fid=2.0)):
        run.append_metrics(line)
    assert [r["value"] for r in records.read_records(run.path)] == [3.0, 2.0]
    assert [r["value"] for r in records.read_records(run.checkpoints / "00000100")] == [3.0]
    run.rewind_metrics(100)
    with pytest.raises(SaganError, match="has no score yet"):
        records.read_records(run.checkpoints / "00000200")
    lost = (run.checkpoints / "00000200").rename(tmp_path / "00000200")
    with pytest.raises(UsageError, match="a checkpoint outside its run"):
        records.read_records(lost)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run, checkpoint or file of scores"):
        records.read_records(tmp_path / "absent")
    with pytest.raises(UsageError, match="neither a run nor a checkpoint directory"):
        records.read_records(tmp_path)


def test_values_are_shown_with_the_digits_that_matter() -> None:
    assert (records.shown("fid", 12.34567), records.shown("kid", 0.0123456)) == ("12.3457", "0.012346")
    assert records.interval(record(), "isc") == (8.0, 8.2)
    assert records.interval(record(intervals={}), "fid") == (12.0, 13.0)
    assert records.interval(record(), "kid") is None


def test_protocols_are_named_by_source_and_use_known_words() -> None:
    assert next(iter(options.PROTOCOLS)) == options.DEFAULT
    for name, row in options.PROTOCOLS.items():
        assert row.name == name
        assert row.split in ("train", "test")
        assert row.batch_norm in ("running", "standing", "batch")
        assert row.labels in ("uniform", "data")
        assert row.metrics
        assert set(row.metrics) <= set(value_names())
        assert f"{name}: {row.about}" in options.help_text()
        # KID draws its subsets without replacement.
        assert row.knobs.get("kid_subset_size", 1000) <= row.n_fake
    knobs = [{**vars(p), "name": "", "about": ""} for p in options.PROTOCOLS.values()]
    assert all(a != b for i, a in enumerate(knobs) for b in knobs[:i])


def test_an_unknown_protocol_is_told_the_nearest() -> None:
    assert options.find("sagan").n_real == 50_000
    with pytest.raises(UsageError, match=r"^--protocol stylgan: no such protocol \(did you mean 'stylegan'\?\); there"):
        options.find("stylgan")
