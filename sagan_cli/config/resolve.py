"""Merge settings by priority: flag or --set > SAGAN_* > --config > --system > --init-from > --preset > default."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan_cli.config import systems
from sagan_cli.config.initial import INIT_FROM, contradictions
from sagan_cli.config.presets import PRESETS, RECIPE_ARCHITECTURE, RECIPE_PRESETS
from sagan_cli.config.schedule import Schedule, parse_schedule, parse_terms
from sagan_cli.config.schema import (
    OBJECTIVE_KEYS,
    OPTIONS_KEY,
    RECIPE_KEYS,
    RENAMED,
    SETTINGS,
    Config,
    Setting,
    build,
    current_keys,
    effective,
)
from sagan_cli.errors import UsageError, closest
from sagan_cli.plugins import registry

DEFAULT_WEIGHT = {"train.augment": 1.0}
"""Setting -> weight of a term given by name only."""
RESUMED = "the resumed run"
"""Source of the values of a resumed run."""
RECIPE = "recipe"
"""Source of the values that the recipe chose from the data."""


@dataclass(frozen=True)
class Resolved:
    """A configuration and the source of each value."""

    config: Config
    sources: dict[str, str]
    notes: tuple[str, ...] = ()
    """Lines for the user, about keys that have another name now."""
    left_open: frozenset[str] = frozenset()
    """Settings that `config/recipe.py` chooses from the data; empty where the user asked for another recipe."""


@dataclass(frozen=True)
class _Given:
    value: Any
    source: str


def resolve(
    *,
    flags: Mapping[str, Any],
    sets: list[str],
    environ: Mapping[str, str],
    file: Path | None,
    preset: str | None,
    system: str | None = None,
    kimg: float | None = None,
    base: Mapping[str, Any] | None = None,
    initial: Mapping[str, Any] | None = None,
) -> Resolved:
    """Merge the layers, weakest first.

    Args:
        flags: key -> value for the flags that were given.
        sets: `key=value` texts of --set.
        environ: the process environment; only SAGAN_* names of settings are read.
        file: a TOML file with the tables data, model, train and run.
        preset: a name of PRESETS, recorded with its own source.
        system: a name of SYSTEMS, which has priority over the preset.
        kimg: total number of images shown, in thousands, instead of steps.
        base: values of the run to resume; they take the place of --preset.
        initial: settings of the networks whose weights --init-from takes; other layers may not contradict them.

    Raises:
        UsageError: naming the flag, key, file or variable, and the nearest valid one.
    """
    layers = []
    notes: list[str] = []
    if base is not None:
        layers.append(_checked(current_keys(base), lambda key: RESUMED))
    elif preset is not None:
        layers.append(_checked(_preset(preset), lambda key: f"preset {preset}"))
    if initial is not None:
        layers.append(_checked(initial, lambda key: INIT_FROM, where=INIT_FROM))
    if system is not None:
        layers.append(_checked(systems.find(system).settings, lambda key: systems.PREFIX + system))
    if file is not None:
        layers.append(
            _checked(_renamed(_read(file), f"--config {file}", notes), lambda key: f"{file}", where=str(file))
        )
    layers.append(_environment(environ))
    notes += _unknown_variables(environ)
    typed = _checked(flags, lambda key: f"--{SETTINGS[key].flag}")
    for text in sets:
        ((text, _),) = _renamed({text: None}, "--set", notes).items()
        key, value = _parse_set(text)
        if key in typed and typed[key].value != value:
            raise UsageError(f"--set {text} contradicts {typed[key].source} {typed[key].value}: give one of them")
        typed |= _checked({key: value}, lambda key: "--set", where="--set")
    layers.append(typed)

    merged: dict[str, _Given] = {key: _Given(s.default, "default") for key, s in SETTINGS.items()}
    for layer in layers:
        merged |= layer
    if kimg is not None:
        if "train.steps" in typed:
            raise UsageError("--kimg and --steps both set the total: give one of them")
        if not 0 < kimg < math.inf:
            raise UsageError(f"--kimg {kimg}: must be a number above 0")
        steps = max(1, math.ceil(kimg * 1000 / merged["train.batch"].value))
        merged["train.steps"] = _Given(steps, "--kimg")
    _require_decay(merged)
    _require_registered(merged)
    if initial is not None:
        _require_networks(merged, initial)
    if merged["train.freeze_d"].value and not merged["train.init_from"].value:
        raise UsageError(f"--freeze-d {merged['train.freeze_d'].value}: untrained weights; add --init-from")
    if merged["train.ada"].value and not merged["train.augment"].value:
        raise UsageError("--ada: there is nothing to adapt; add --augment color,translation,cutout")
    options = {k.removeprefix(OPTIONS_KEY + "."): g.value for k, g in merged.items() if k.startswith(OPTIONS_KEY + ".")}
    values = {k: g.value for k, g in merged.items() if k in SETTINGS}
    automatic = {key for key in RECIPE_KEYS if _automatic(merged[key].source)}
    if initial is not None and values["model.spectral_norm"] != "none":
        # The recipe's objective and rates are those of networks without spectral norm.
        automatic -= OBJECTIVE_KEYS
    asked = preset not in RECIPE_PRESETS or system is not None or not _automatic(merged["train.loss"].source)
    left_open = frozenset(() if asked or values["model.arch"] != RECIPE_ARCHITECTURE else automatic)
    return Resolved(build(values, options), {k: g.source for k, g in merged.items()}, tuple(notes), left_open)


def _automatic(source: str) -> bool:
    """Return whether a value was not chosen by the user."""
    return source in ("default", RECIPE) or source in {f"preset {name}" for name in RECIPE_PRESETS}


def _require_networks(merged: Mapping[str, _Given], initial: Mapping[str, Any]) -> None:
    """Refuse settings that build other networks than those whose weights are taken.

    Raises:
        UsageError: naming the flag or file, and the value of the source.
    """
    source = merged["train.init_from"].value
    for key in contradictions({key: given.value for key, given in merged.items()}, initial):
        given, has, name = merged.get(key), initial.get(key, "auto"), _name(key)
        if given is not None:
            where = "" if given.source in (name, "--set") else f"{given.source}: "
            raise UsageError(
                f"{where}{name} {given.value} contradicts the weights of --init-from {source}, which have {has}; "
                "leave it out"
            )


def _renamed(values: Mapping[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    """Return `values` with keys (or `key=value` texts) of earlier versions renamed; add a note for each."""
    found = {}
    for text, value in values.items():
        key, equals, rest = text.partition("=")
        if key in RENAMED:
            notes.append(f"{where}: {key} is now {RENAMED[key]}")
        found[RENAMED.get(key, key) + equals + rest] = value
    return found


def _require_decay(merged: Mapping[str, _Given]) -> None:
    """Refuse a decay of the learning rates that ends before it begins, or has no end."""
    start, end = merged["train.decay_from"], merged["train.decay_steps"]
    if start.value and end.source == "default":
        raise UsageError(f"--decay-from {start.value}: add --decay-steps, the step at which the rates reach 0")
    for key in ("train.d_lr", "train.g_lr") if end.value else ():
        if not parse_schedule(merged[key].value, f"--{SETTINGS[key].flag}").constant:
            raise UsageError(
                f"--decay-steps {end.value}: --{SETTINGS[key].flag} {merged[key].value} is a schedule already; "
                "add --decay-steps 0, or give a constant rate"
            )
    if end.value and start.value >= end.value:
        raise UsageError(f"--decay-from {start.value}: must be below --decay-steps {end.value}")


def _require_registered(merged: Mapping[str, _Given]) -> None:
    """Refuse names that are not registered, and terms that cannot be read.

    Raises:
        UsageError: naming the flag and the nearest name.
    """
    for key, setting in SETTINGS.items():
        text = merged[key].value
        if not setting.registered or not text:
            continue
        if setting.registered in ("losses", "loggers", "metrics"):
            names = [name.strip() for name in text.split(",") if name.strip()]
        else:
            names = [term.name for term in parse_terms(text, f"--{setting.flag}", default=DEFAULT_WEIGHT.get(key))]
        for name in names:
            registry.find(setting.registered, name)


def same_run(resolved: Resolved, record: Mapping[str, Any]) -> bool:
    """Return whether the run with this run.json is the one that `resolved` describes."""
    return not _changes(resolved, record)


def frozen_for_resume(resolved: Resolved, record: Mapping[str, Any]) -> None:
    """Refuse changes of settings that a run cannot change when it is resumed.

    Raises:
        UsageError: naming each flag that may not change, with both values.
    """
    changes = _changes(resolved, record)
    if changes:
        raise UsageError(f"this run was begun with {'; '.join(changes)}: leave that as it was, or choose another --out")


def _changes(resolved: Resolved, record: Mapping[str, Any]) -> list[str]:
    now = effective({key: resolved.config.get(key) for key in SETTINGS})
    now = {key: now[key] for key, s in SETTINGS.items() if not s.live}
    now |= {f"{OPTIONS_KEY}.{k}": v for k, v in resolved.config.model.options.items()}
    before = effective(current_keys(flatten(record["config"])))
    frozen = set(now) | {key for key in before if key.startswith(OPTIONS_KEY + ".")}
    # The recipe of a run is that of its beginning, also if an earlier version had another one or the images changed.
    for key in resolved.left_open & now.keys():
        chosen = not _automatic(record.get("sources", {}).get(key, "default"))
        now[key] = "that of the recipe" if chosen else before.get(key)
    return [
        f"{_name(key)} {before.get(key)}, not {now.get(key)}"
        for key in sorted(frozen)
        if before.get(key) != now.get(key)
    ]


def _name(key: str) -> str:
    return f"--{SETTINGS[key].flag}" if key in SETTINGS else f"--set {key}"


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one table of `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        key = prefix + name
        flat |= flatten(value, key + ".") if isinstance(value, Mapping) else {key: value}
    return flat


def _preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: choose one of {', '.join(PRESETS)}{closest(name, PRESETS)}")
    return PRESETS[name][1]


def _read(file: Path) -> dict[str, Any]:
    try:
        return flatten(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as e:
        raise UsageError(f"--config {file}: {e.strerror or e}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UsageError(f"--config {file}: not TOML: {e}") from e


def _environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for key, s in SETTINGS.items():
        if s.variable in environ:
            value = _from_text(s, environ[s.variable], s.variable)
            given[key] = _Given(_fits(s, value, s.variable), s.variable)
    return given


OTHER_VARIABLES = (
    "SAGAN_CACHE", "SAGAN_DEBUG", "SAGAN_FID_WEIGHTS", "SAGAN_MALLOC", "SAGAN_OFFLINE", "SAGAN_PLUGINS",
    "SAGAN_SELF_CHECK",
)  # fmt: skip
"""Variables of the program that are no settings of a run."""


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = [*(s.variable for s in SETTINGS.values()), *OTHER_VARIABLES]
    unknown = sorted(name for name in environ if name.startswith("SAGAN_") and name not in known)
    return [f"{name} is no variable of sagan{closest(name, known)}; it has no effect" for name in unknown]


def _parse_set(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write section.key=value, as in --set train.batch=16")
    if key.startswith(OPTIONS_KEY + "."):
        try:
            return key, tomllib.loads(f"x = {raw}")["x"]
        except tomllib.TOMLDecodeError:
            return key, raw
    return key, _from_text(_known(key, "--set"), raw, f"--set {key}")


def _known(key: str, where: str) -> Setting:
    if key not in SETTINGS:
        raise UsageError(f"{where}: unknown key '{key}'{closest(key, SETTINGS)}; sagan train --print-config lists all")
    return SETTINGS[key]


def _checked(values: Mapping[str, Any], source: Any, where: str = "") -> dict[str, _Given]:
    given = {}
    for key, value in values.items():
        if not key.startswith(OPTIONS_KEY + "."):
            s = _known(key, where or "configuration")
            value = _fits(s, value, f"{where}: {key}" if where else f"--{s.flag}")
            given[key] = _Given(value, source(key))
        else:
            given[key] = _Given(value, source(key) if key in SETTINGS or where else "--set")
    return given


def _from_text(s: Setting, text: str, where: str) -> Any:
    if s.kind is bool:
        words = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        if text.strip().lower() not in words:
            raise UsageError(f"{where}: '{text}' is not true or false")
        return words[text.strip().lower()]
    if s.kind is Schedule:
        schedule = parse_schedule(text, where)
        return schedule.start if schedule.constant else str(schedule)
    try:
        return s.kind(text)
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[s.kind]
        raise UsageError(f"{where}: '{text}' is not {kind}") from None


def _fits(s: Setting, given: Any, where: str) -> Any:
    """Return the value in the setting's type.

    Raises:
        UsageError: another type, not a choice, or out of bounds.
    """
    value: Any = given
    if s.kind is Schedule and isinstance(value, str):
        schedule = parse_schedule(value, where, low=s.low, high=s.high)
        return schedule.start if schedule.constant else str(schedule)
    kind = float if s.kind is Schedule else s.kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if s.kind is str and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # size = 64 in TOML
    found = type(value)
    if found is not kind:
        raise UsageError(f"{where}: {value!r} is not of type {kind.__name__}")
    if kind is float and not math.isfinite(value):
        raise UsageError(f"{where}: {value} is not a finite number")
    if s.choices and value not in s.choices:
        raise UsageError(f"{where}: '{value}' is not one of {', '.join(s.choices)}{closest(value, s.choices)}")
    if s.low is not None and value < s.low:
        raise UsageError(f"{where}: {value} is below {s.low:g}")
    if s.high is not None and value > s.high:
        raise UsageError(f"{where}: {value} is above {s.high:g}")
    return value


def to_toml(resolved: Resolved) -> str:
    """Return the complete configuration as TOML, with the source of each value as a comment."""
    lines: list[str] = []
    section = ""
    for key in SETTINGS:
        table, name = key.split(".", 1)
        if table != section:
            lines += ([""] if lines else []) + [f"[{table}]"]
            section = table
        lines.append(f"{f'{name} = {_literal(resolved.config.get(key))}':<32}  # {resolved.sources[key]}")
    if resolved.config.model.options:
        lines += ["", f"[{OPTIONS_KEY}]"]
        for name, value in resolved.config.model.options.items():
            lines.append(f"{json.dumps(name)} = {_literal(value)}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # JSON's escapes are TOML's
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return repr(value)
