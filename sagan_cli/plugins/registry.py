"""Look up built-in and installed extensions of every kind. Standard library only.

A plugin is an installed distribution with an entry point in one of the groups of `GROUPS`. Listing reads metadata only;
`load` imports one plugin when it is chosen, so that a slow or broken plugin costs nothing until it is used.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sagan_cli import __version__
from sagan_cli.errors import PluginError, SaganError, UsageError, closest
from sagan_cli.plugins.builtins import BUILTINS as BUILTINS
from sagan_cli.plugins.builtins import GROUPS as GROUPS

NOUNS = {
    "datasets": "data set", "architectures": "architecture", "commands": "command", "metrics": "metric",
    "losses": "loss", "penalties": "penalty", "augmentations": "augmentation", "constraints": "constraint",
    "loggers": "logger", "exporters": "export format",
}  # fmt: skip
_FLAGS = {
    "datasets": "--data ", "architectures": "--arch ", "commands": "sagan ", "metrics": "--metrics ",
    "losses": "--loss ", "penalties": "--penalty ", "augmentations": "--augment ", "constraints": "--constraint ",
    "loggers": "--logger ", "exporters": "--format ",
}  # fmt: skip
INSTANCES = {
    "metrics": "Metric", "losses": "Loss", "penalties": "Penalty", "augmentations": "Augmentation",
    "constraints": "Constraint", "exporters": "Exporter",
}  # fmt: skip
"""Kinds whose entry points name an instance of a class of `contracts`; the others name a callable."""
ALLOWLIST = "SAGAN_PLUGINS"
"""Environment variable: unset = every installed plugin, empty = none, else a comma list of distribution names."""


@dataclass(frozen=True)
class Entry:
    """One name of the registry, and where it comes from."""

    kind: str
    name: str
    value: str
    """`module:attribute`, as in the entry point."""
    package: str
    version: str
    builtin: bool
    summary: str
    """One line for a listing; a plugin's is its distribution's summary."""
    problem: str = ""
    """Why the name cannot be used, as far as metadata tells: it is taken. Empty when nothing is known against it."""

    @property
    def title(self) -> str:
        """`architecture 'tiny' of sagan-tiny 0.1.0`."""
        return f"{NOUNS[self.kind]} '{self.name}' of {self.package} {self.version}"


def names(kind: str) -> list[str]:
    """Every usable or broken name once, built-ins first, plugins in alphabetical order."""
    return list(dict.fromkeys(entry.name for entry in entries(kind)))


def entries(kind: str) -> list[Entry]:
    """Everything that `SAGAN_PLUGINS` lets through, built-ins first; imports no plugin.

    A name that several distributions claim appears once for each, with `problem` saying so.
    """
    built_in = [
        Entry(kind, point.name, point.value, "sagan-cli", __version__, True, point.summary) for point in BUILTINS[kind]
    ]
    taken = {entry.name for entry in built_in}
    allowed = _allowed()
    found = [e for e in _scan()[0] if e.kind == kind and (allowed is None or _normal(e.package) in allowed)]
    plugins = []
    for entry in found:
        rivals = [f"{e.package} {e.version}" for e in found if e.name == entry.name]
        if entry.name in taken:
            entry = replace(entry, problem=f"the name '{entry.name}' belongs to a built-in {NOUNS[kind]}")
        elif len(rivals) > 1:
            way_out = f"uninstall one, or choose with {ALLOWLIST}"
            entry = replace(entry, problem=f"'{entry.name}' is claimed by {' and '.join(rivals)}: {way_out}")
        plugins.append(entry)
    return built_in + sorted(plugins, key=lambda e: (e.name, e.package))


def faults() -> list[str]:
    """What is wrong beside single entries: unreadable plugin metadata, a package in `SAGAN_PLUGINS` that is absent."""
    present, unreadable = _scan()
    allowed = _allowed() or set()
    absent = sorted(allowed - {_normal(e.package) for e in present})
    missing = (f"{ALLOWLIST} names '{name}': no plugin package of that name is installed" for name in absent)
    return [*unreadable, *missing]


def find(kind: str, name: str) -> Entry:
    """The entry of a name, not yet imported.

    Raises:
        UsageError: no such name; the message lists the known ones.
        PluginError: several distributions claim it.
    """
    entry = next((e for e in entries(kind) if e.name == name), None)
    if entry is None:
        known = names(kind)
        hidden = next((e for e in _scan()[0] if e.kind == kind and e.name == name), None)
        if hidden is not None:
            raise UsageError(f"{_FLAGS[kind]}{name}: provided by {hidden.package}, which {ALLOWLIST} leaves out")
        wrong = f"{_FLAGS[kind]}{name}: no such {NOUNS[kind]}{closest(name, known)}"
        raise UsageError(f"{wrong}; there are {', '.join(known)}")
    if entry.problem:
        raise PluginError(f"{NOUNS[kind]} {entry.problem}")
    return entry


def load(kind: str, name: str) -> Any:
    """Import what a name stands for: a `DatasetFactory`, an `ArchitectureFactory`, or a command's function.

    A plugin's factory comes wrapped, so that a failure inside it names the plugin and is not taken for one of ours.

    Raises:
        UsageError: no such name.
        PluginError: it cannot be imported, is not callable, or was written for another version of the contract.
    """
    return load_entry(find(kind, name))


def load_entry(entry: Entry) -> Any:
    """`load` for an entry in hand.

    Raises:
        PluginError: as for `load`.
    """
    import sagan_cli.contracts as contracts  # not needed to list names, and 7 ms of the 90 of `sagan --help`

    if entry.problem:
        raise PluginError(f"{NOUNS[entry.kind]} {entry.problem}")
    try:
        module, _, attribute = entry.value.partition("[")[0].replace(" ", "").partition(":")  # [extras] are for pip
        loaded: Any = importlib.import_module(module)
        api = getattr(loaded, "SAGAN_PLUGIN_API", contracts.API_VERSION)
        if api != contracts.API_VERSION:
            update = "sagan-cli" if isinstance(api, int) and api > contracts.API_VERSION else entry.package
            ours = f"sagan-cli {__version__} has {contracts.API_VERSION}"
            raise PluginError(f"{entry.title} was written for plugin API {api}, {ours}: update {update}")
        for part in attribute.split(".") if attribute else ():
            loaded = getattr(loaded, part)
    except PluginError:
        raise
    except (Exception, SystemExit) as e:  # an import runs foreign code, which may raise anything
        raise PluginError(f"{entry.title} cannot be imported: {_line(e)}; {_way_out(entry)}") from e
    wanted = INSTANCES.get(entry.kind)
    if not (callable(loaded) if wanted is None else isinstance(loaded, getattr(contracts, wanted))):
        named = "a function" if wanted is None else f"a sagan_cli.contracts.{wanted}"
        what = f"{entry.value} is of type {type(loaded).__name__}, not {named}"
        raise PluginError(f"{entry.title}: {what}; {_way_out(entry)}")
    return _Guarded(entry, loaded) if entry.kind in ("datasets", "architectures") and not entry.builtin else loaded


def default_options(arch: str) -> Mapping[str, Any]:
    """Return what `auto` means for the options of a built-in architecture; empty for a plugin's."""
    return next((row.options for row in BUILTINS["architectures"] if row.name == arch), {})


def refresh() -> None:
    """Forget what was scanned: for tests and for programs that install plugins while they run."""
    _scan.cache_clear()
    importlib.invalidate_caches()


def failure(entry: Entry, e: Exception) -> PluginError:
    """Return the error that names the plugin whose code raised `e`."""
    return PluginError(f"{entry.title} failed: {_line(e)}; {_way_out(entry)}")


class _Guarded:
    """A plugin's factory whose failures say whose they are; its attributes show through, functions guarded alike."""

    def __init__(self, entry: Entry, factory: Callable[..., Any]) -> None:
        self._entry = entry
        self._factory = factory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._factory(*args, **kwargs)
        except SaganError:
            raise
        except Exception as e:
            raise failure(self._entry, e) from e

    def __getattr__(self, name: str) -> Any:
        # Private names never pass: while unpickling, `_factory` itself is asked for before it exists.
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._factory, name)
        return _Guarded(self._entry, value) if inspect.isfunction(value) else value


@functools.cache
def _scan() -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """All plugin entries of all installed distributions, and a sentence for each distribution that cannot be read.

    Not `metadata.entry_points()`: there one damaged distribution takes all the others with it.
    """
    if not _plugins_possible():
        return (), ()
    from importlib import metadata

    found: list[Entry] = []
    unreadable: list[str] = []
    seen: set[str] = set()
    kinds = {group: kind for kind, group in GROUPS.items()}
    for dist in metadata.distributions():
        try:
            # The search for the group's prefix spares parsing the files of all other distributions.
            if "sagan." not in (dist.read_text("entry_points.txt") or ""):
                continue
            points = [point for point in dist.entry_points if point.group in kinds]
            package, version, summary = dist.metadata["Name"], dist.version, dist.metadata["Summary"] or ""
            # The first of a name on sys.path is the one that Python imports.
            if points and _normal(package) not in seen:
                seen.add(_normal(package))
                found += [Entry(kinds[p.group], p.name, p.value, package, version, False, summary) for p in points]
        except Exception as e:  # noqa: BLE001 - metadata is foreign text; `faults` reports it
            unreadable.append(f"{getattr(dist, '_path', dist)}: plugin metadata cannot be read: {_line(e)}")
    return tuple(found), tuple(unreadable)


def _plugins_possible() -> bool:
    """Return False if no distribution on sys.path has an entry point group of ours; True if unsure.

    A check before the scan, because importing importlib.metadata and scanning takes 17 to 25 ms of the 110 of
    `sagan --help`, and most installations have no plugin.
    """
    for finder in sys.meta_path:
        if hasattr(finder, "find_distributions") and getattr(finder, "__name__", "") != "PathFinder":
            return True  # it may know distributions that are not on sys.path
    try:
        return any(_has_entry_points(Path(folder)) for folder in dict.fromkeys(sys.path))
    except (OSError, ValueError):
        return True


def _has_entry_points(folder: Path) -> bool:
    """Return whether a distribution in this folder has an entry point group of ours.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - texts: a Path for each of hundreds takes longer than the rest
    except FileNotFoundError:
        return False
    for name in names:
        if name.lower().endswith((".dist-info", ".egg-info")) or name.lower() == "egg-info":
            try:
                text = (folder / name / "entry_points.txt").read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            if "sagan." in text.decode("utf-8"):
                return True
    return False


def _allowed() -> set[str] | None:
    text = os.environ.get(ALLOWLIST)
    return None if text is None else {_normal(part.strip()) for part in text.split(",") if part.strip()}


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _line(e: BaseException) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())}".removesuffix(": ")


def _way_out(entry: Entry) -> str:
    if entry.builtin:
        return "reinstall sagan-cli"
    return f"'sagan plugins --check' looks at all plugins, {ALLOWLIST}= runs without them"
