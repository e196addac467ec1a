"""Diagnosis of a training run: rules on its logged numbers, each with an explanation and a remedy. No torch.

A rule is a row of `RULES`; docs/troubleshooting.md explains each. The logger `diagnosis` applies them to every run: a
finding is printed once, and is a line `{"kind": "finding", ...}` of metrics.jsonl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sagan_cli import console
from sagan_cli.contracts import Logger, RunInfo
from sagan_cli.runs import Run

KIND = "finding"


@dataclass
class History:
    """The logged numbers of a run so far."""

    steps: int
    """Step at which training ends."""
    settings: Mapping[str, Any]
    """The settings `train.*` of the run, without the prefix."""
    statistics: list[Mapping[str, Any]] = field(default_factory=list)
    """Lines of statistics, oldest first."""
    scores: list[Mapping[str, Any]] = field(default_factory=list)
    """Lines of `--eval-every`, oldest first."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl."""
        if line.get("kind") == "score":
            self.scores.append(line)
        elif "kind" not in line and "d_loss" in line:
            self.statistics.append(line)

    @property
    def step(self) -> int:
        """The last logged step."""
        return int(self.statistics[-1]["step"]) if self.statistics else 0

    def last(self, name: str, count: int) -> list[float]:
        """Return the last `count` values of a number; fewer if it was logged less often."""
        return [float(line[name]) for line in self.statistics if name in line][-count:]


@dataclass(frozen=True)
class Rule:
    """One way in which training fails."""

    name: str
    check: Callable[[History], str | None]
    """Return what is wrong, with the numbers that show it, or None."""
    remedy: str
    began: Callable[[History], int] | None = None
    """Return a step from before the trouble, whose checkpoint is kept; None: later checkpoints are no worse."""


WINDOW = 8
"""Lines of statistics over which a number must stay beyond its limit."""
BEGINNING, FEWEST, MOST = 0.25, 200, 1000
"""Share of a run in which nothing is judged, and bounds of it in steps."""
LOW_VARIETY, LOW_RECALL, MANY_COPIES, MEMORIZED = 0.35, 0.02, 0.3, 0.8
WINNING, FAR, NEAR, SMALL_GAMMA, DECLINE, FULL = 0.97, 5.5, 0.05, 0.005, 1.5, 0.99
UNBOUNDED = ("wasserstein", "least-squares")
"""Losses whose logits say nothing about certainty."""


def _begun(history: History) -> bool:
    return history.step >= max(FEWEST, min(BEGINNING * history.steps, MOST))


def _before_window(history: History) -> int:
    return int(history.statistics[-WINDOW - 1 :][0]["step"])


def _before_samples(history: History) -> int:
    checked = [int(line["step"]) for line in history.statistics if "copies" in line]
    return checked[-3] if len(checked) > 2 else -1


def _variety_lost(history: History) -> str | None:
    found = history.last("variety", 2)
    if len(found) == 2 and max(found) < LOW_VARIETY:
        return f"samples of a class resemble each other: their variety is {found[-1]:.2f} of that of the data"
    recall = [score["recall"] for score in history.scores if "recall" in score][-2:]
    if len(recall) == 2 and max(recall) < LOW_RECALL:
        return f"recall is {recall[-1]:.3f}: the generator covers hardly any of the data"
    return None


def _copies(history: History) -> str | None:
    found = history.last("copies", 2)
    if len(found) == 2 and min(found) > MANY_COPIES:
        return f"{100 * found[-1]:.0f} % of the samples are nearly copies of training images"
    scored = [score["memorization"] for score in history.scores if "memorization" in score][-2:]
    if len(scored) == 2 and min(scored) > MEMORIZED:
        return f"memorization is {scored[-1]:.2f}: samples are nearer to the training images than held-out images are"
    return None


def _d_wins(history: History) -> str | None:
    sign, real, fake = (history.last(name, WINDOW) for name in ("d_sign", "d_real", "d_fake"))
    if len(sign) < WINDOW or history.settings.get("loss") in UNBOUNDED:
        return None
    apart = fmean(real) - fmean(fake)
    if fmean(sign) > WINNING and apart > FAR:
        return (
            f"the discriminator recognises nearly all images, and logits of real and generated ones are {apart:.1f} "
            "apart: the generator cannot follow"
        )
    return None


def _d_loses(history: History) -> str | None:
    real, fake = history.last("d_real", WINDOW), history.last("d_fake", WINDOW)
    if len(real) < WINDOW:
        return None
    apart = fmean(real) - fmean(fake)
    if apart < NEAR:
        return f"the discriminator does not recognise real images: its logits of real ones are {apart:.2f} higher"
    return None


def _gamma_zero(history: History) -> str | None:
    if not history.statistics:
        return None
    names = [name for name in history.statistics[-1] if name.startswith("gamma_")]
    for letter in "gd":
        own = [name for name in names if name.startswith(f"gamma_{letter}")]
        found = [max(map(abs, history.last(name, WINDOW))) for name in own]
        if found and max(found) < SMALL_GAMMA:
            network = {"g": "generator", "d": "discriminator"}[letter]
            return f"gamma of the {network}'s attention stays below {SMALL_GAMMA}: attention is not used"
    return None


def _declines(history: History) -> str | None:
    found = [(score["step"], score["fid"]) for score in history.scores if "fid" in score]
    if len(found) < 3:
        return None
    step, best = min(found, key=lambda pair: pair[1])
    last = [fid for _, fid in found[-2:]]
    if step < found[-2][0] and min(last) > DECLINE * best:
        return f"FID has risen from {best:.3g} at step {step} to {last[-1]:.3g}: quality declines"
    return None


def _augmentation_full(history: History) -> str | None:
    found = history.last("augment_p", WINDOW)
    if len(found) == WINDOW and min(found) > FULL:
        return "adaptive augmentation is at its maximum: the discriminator still recognises the training images"
    return None


RULES: Sequence[Rule] = (
    Rule(
        "variety-lost", _variety_lost,
        "use the default recipe, or a larger weight of --penalty r1 and r2, or a lower --g-lr; see the sample grids",
        _before_samples,
    ),
    Rule(
        "copies", _copies, "add images, use --augment color=0.6,translation=0.6,cutout=0.6, or fewer --steps",
        _before_samples,
    ),
    Rule("d-wins", _d_wins, "raise the weight of --penalty r1 and r2, or lower --d-lr and --g-lr", _before_window),
    Rule(
        "d-loses", _d_loses, "raise --d-lr or --d-steps, or lower the weight of --penalty", _before_window,
    ),
    Rule(
        "gamma-zero", _gamma_zero,
        "compare with --attn-at none by 'sagan ablate'; a higher --g-lr or attention at other --attn-at may help",
    ),
    Rule("declines", _declines, "use the best checkpoint, RUN/best, and let the learning rates fall to 0 earlier"),
    Rule("augmentation-full", _augmentation_full, "add images; samples may become copies from here on"),
)  # fmt: skip
"""To add a rule, add a row, and its section in docs/troubleshooting.md."""


def is_finding(line: Mapping[str, Any]) -> bool:
    """Return whether a line of metrics.jsonl is a finding."""
    return line.get("kind") == KIND


def diagnose(history: History) -> list[tuple[Rule, str]]:
    """Return the rules that apply to the run as it is now, with what is wrong."""
    if not _begun(history):
        return []
    return [(rule, text) for rule in RULES if (text := rule.check(history)) is not None]


class Diagnosis(Logger):
    """Apply the rules to a run; report each finding once."""

    def __init__(self, run: RunInfo) -> None:
        super().__init__(run)
        self.history = History(run.steps, run.config.get("train", {}))
        self.reported: set[str] = set()

    def start(self, step: int) -> None:
        """Read the numbers and findings of the run so far."""
        for line in Run(self.run.path).metrics():
            self.history.add(line)
            if is_finding(line):
                self.reported.add(line["name"])

    def statistics(self, step: int, numbers: Mapping[str, float]) -> None:
        """Include a line of statistics."""
        self._include({"step": step, **numbers})

    def score(self, step: int, scores: Mapping[str, Any]) -> None:
        """Include a score."""
        self._include({"kind": "score", "step": step, **scores})

    def _include(self, line: Mapping[str, Any]) -> None:
        self.history.add(line)
        for rule, text in diagnose(self.history):
            if rule.name not in self.reported:
                self.reported.add(rule.name)
                run, step = Run(self.run.path), int(line["step"])
                run.append_metrics({"kind": KIND, "step": step, "name": rule.name, "text": text, "remedy": rule.remedy})
                console.warn(f"step {step}: {text}; {rule.remedy} (docs/troubleshooting.md, {rule.name})")
                self._keep(run, rule)

    def _keep(self, run: Run, rule: Rule) -> None:
        """Keep the newest checkpoint from before the trouble; only for the first finding that has one."""
        if rule.began is None or run.read().get("kept"):
            return
        step = rule.began(self.history)
        before = [path for path in run.checkpoint_steps() if int(path.name) <= step]
        if before:
            run.update(kept={"step": int(before[-1].name), "because": rule.name})
            console.note(f"the checkpoint before that is kept: {before[-1]}")
