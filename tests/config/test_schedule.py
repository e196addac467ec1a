"""Schedules and terms: values, text form, and what is refused."""

from __future__ import annotations

import math

import pytest

from sagan_cli.config.schedule import parse_schedule, parse_terms
from sagan_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.25", {0: 0.25, 10**9: 0.25}),
        (0.25, {0: 0.25}),
        ("linear:1:0:100", {0: 1.0, 25: 0.75, 100: 0.0, 500: 0.0}),
        ("linear:0:2:1k-3k", {0: 0.0, 1000: 0.0, 2000: 1.0, 3000: 2.0}),
        ("cosine:1:0.5:0.2M", {0: 1.0, 50_000: 0.75 + 0.25 * math.cos(math.pi / 4), 100_000: 0.75, 200_000: 0.5}),
    ],
)
def test_values(text: str | float, values: dict[int, float]) -> None:
    schedule = parse_schedule(text, "--d-lr")
    for images, value in values.items():
        assert schedule.at(images) == pytest.approx(value, abs=1e-15)
    assert parse_schedule(str(schedule), "--d-lr") == schedule


def test_percentages_are_of_the_images_of_the_run() -> None:
    schedule = parse_schedule("linear:1:0:50%-100%", "--d-lr")
    assert str(schedule) == "linear:1.0:0.0:50%-100%"
    assert parse_schedule(str(schedule), "--d-lr") == schedule
    assert not schedule.constant
    with pytest.raises(ValueError, match="over"):
        schedule.at(0)
    whole = schedule.over(64_000)
    assert whole == parse_schedule("linear:1:0:32k-64k", "--d-lr")
    assert [whole.at(images) for images in (0, 32_000, 48_000, 64_000, 99_000)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert parse_schedule("cosine:1:0:100%", "x").over(2_500) == parse_schedule("cosine:1:0:2500", "x")
    assert parse_schedule("linear:1:0:12.5%", "x").over(1000).last == 125
    assert parse_schedule("0.5", "x").over(9) == parse_schedule("0.5", "x")


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "linear", "linear:1:0", "linear:1:0:0", "linear:1:0:5-5", "square:1:0:5", "linear:a:0:5",
    "linear:1:0:-5", "linear:1:0:101%", "linear:1:0:10k-50%", "linear:1:0:50%-60k", "linear:1:0:60%-50%",
     "linear:1:0:5:6", "cosine:inf:0:5", "-1", "linear:1:-1:5"],
)  # fmt: skip
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(UsageError, match="--d-lr"):
        parse_schedule(text, "--d-lr", low=0.0)


def test_terms() -> None:
    terms = parse_terms("r1=0.1/4, r2=linear:0.1:0:1M ,", "--penalty")
    assert [str(t) for t in terms] == ["r1=0.1/4", "r2=linear:0.1:0.0:1M"]
    assert parse_terms("", "--penalty") == ()
    assert [(t.name, t.weight.start) for t in parse_terms("mirror,noise=0.5", "--augment", default=1.0)] == [
        ("mirror", 1.0), ("noise", 0.5)]  # fmt: skip


@pytest.mark.parametrize("text", ["r1", "=1", "r1=", "r1=x", "r1=1/0", "r1=1/x", "r1=1/", "r1=-1", "r1=1,r1=2"])
def test_what_is_no_term(text: str) -> None:
    with pytest.raises(UsageError, match="--penalty"):
        parse_terms(text, "--penalty")
