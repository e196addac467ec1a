"""Look up built-in and installed extensions of every kind. Standard library only.

A plugin is an installed distribution with an entry point in one of the groups of `GROUPS`. Listing reads metadata only;
`load` imports a plugin only when it is used, so that a slow or broken plugin does not affect other commands.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sagan_cli import __version__
from sagan_cli.errors import PluginError, SaganError, UsageError, closest
from sagan_cli.plugins.builtins import BUILTINS as BUILTINS
from sagan_cli.plugins.builtins import GROUPS as GROUPS

NOUNS = {
    "datasets": "dataset", "architectures": "architecture", "commands": "command", "metrics": "metric",
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
"""Environment variable with the distributions to use, separated by commas; unset: all, empty: none."""


@dataclass(frozen=True)
class Entry:
    """One extension and its origin."""

    kind: str
    name: str
    value: str
    """`module:attribute`, as in the entry point."""
    package: str
    version: str
    builtin: bool
    summary: str
    """One line; of a plugin, the summary of its distribution."""
    problem: str = ""
    """Why the name cannot be used: it is taken. Empty otherwise."""

    @property
    def title(self) -> str:
        """Return a description such as "architecture 'tiny' of sagan-tiny 0.1.0"."""
        return f"{NOUNS[self.kind]} '{self.name}' of {self.package} {self.version}"


SLOW = 10.0
on_slow: Callable[[str], None] = lambda text: None  # noqa: E731
"""Receives a line about an import that does not end; set by the program."""


def names(kind: str) -> list[str]:
    """Return all names, built-ins first, then plugins in alphabetical order."""
    return list(dict.fromkeys(entry.name for entry in entries(kind)))


def entries(kind: str) -> list[Entry]:
    """Return all extensions that `SAGAN_PLUGINS` allows, built-ins first; imports no plugin.

    A name of several distributions appears once for each, with a `problem`.
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
    """Return problems of distributions: unreadable metadata, or a name in `SAGAN_PLUGINS` that is not installed."""
    present, unreadable = _scan()
    allowed = _allowed() or set()
    absent = sorted(allowed - {_normal(e.package) for e in present})
    missing = (f"{ALLOWLIST} names '{name}': no plugin package of that name is installed" for name in absent)
    return [*unreadable, *missing]


def find(kind: str, name: str) -> Entry:
    """Return the entry of a name without importing it.

    Raises:
        UsageError: no such name; the message lists all names.
        PluginError: several distributions have it.
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
    """Import and return the object of a name.

    A plugin's factory is wrapped, so that an error inside it names the plugin.

    Raises:
        UsageError: no such name.
        PluginError: it cannot be imported, has another type, or was written for another API version.
    """
    return load_entry(find(kind, name))


def load_entry(entry: Entry) -> Any:
    """Import and return the object of an entry.

    Raises:
        PluginError: as for `load`.
    """
    import sagan_cli.contracts as contracts  # not needed to list names, and 7 ms of the 90 of `sagan --help`

    if entry.problem:
        raise PluginError(f"{NOUNS[entry.kind]} {entry.problem}")
    try:
        module, _, attribute = entry.value.partition("[")[0].replace(" ", "").partition(":")  # [extras] are for pip
        loaded: Any = importlib.import_module(module) if entry.builtin else _imported(entry, module)
        api = getattr(loaded, "SAGAN_PLUGIN_API", contracts.API_VERSION)
        if api != contracts.API_VERSION:
            update = "sagan-cli" if isinstance(api, int) and api > contracts.API_VERSION else entry.package
            ours = f"sagan-cli {__version__} has {contracts.API_VERSION}"
            raise PluginError(f"{entry.title} was written for plugin API {api}, {ours}: update {update}")
        for part in attribute.split(".") if attribute else ():
            loaded = getattr(loaded, part)
    except PluginError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # an import runs foreign code, which may raise anything
        raise PluginError(f"{entry.title} cannot be imported: {_line(e)}; {_way_out(entry)}") from e
    wanted = INSTANCES.get(entry.kind)
    if not (callable(loaded) if wanted is None else isinstance(loaded, getattr(contracts, wanted))):
        named = "a function" if wanted is None else f"a sagan_cli.contracts.{wanted}"
        what = f"{entry.value} is of type {type(loaded).__name__}, not {named}"
        raise PluginError(f"{entry.title}: {what}; {_way_out(entry)}")
    return _NamingErrors(entry, loaded) if entry.kind in ("datasets", "architectures") and not entry.builtin else loaded


def default_options(arch: str) -> Mapping[str, Any]:
    """Return what `auto` means for the options of a built-in architecture; empty for a plugin's."""
    return next((row.options for row in BUILTINS["architectures"] if row.name == arch), {})


def refresh() -> None:
    """Scan again at the next call, for programs that install plugins while they run."""
    _scan.cache_clear()
    importlib.invalidate_caches()


def _imported(entry: Entry, module: str) -> Any:
    """Import a plugin's module; what it prints goes to stderr, and after `SLOW` seconds a line names it."""
    told = threading.Timer(SLOW, lambda: on_slow(f"{entry.title} has been importing for {SLOW:.0f} seconds; "
                                                 f"{ALLOWLIST}= runs without plugins"))  # fmt: skip
    told.daemon = True
    told.start()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(module)
    finally:
        told.cancel()


def failure(entry: Entry, e: BaseException) -> PluginError:
    """Return the error that names the plugin whose code raised `e`."""
    return PluginError(f"{entry.title} failed: {_line(e)}; {_way_out(entry)}")


class _NamingErrors:
    """A plugin's factory, and the functions among its attributes, with errors that name the plugin."""

    def __init__(self, entry: Entry, factory: Callable[..., Any]) -> None:
        self._entry = entry
        self._factory = factory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._factory(*args, **kwargs)
        except (SaganError, KeyboardInterrupt):
            raise
        except BaseException as e:  # also SystemExit, which would end the command without a word
            raise failure(self._entry, e) from e

    def __getattr__(self, name: str) -> Any:
        # Unpickling looks up private names such as `_factory` before they exist.
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._factory, name)
        return _NamingErrors(self._entry, value) if inspect.isfunction(value) else value


@functools.cache
def _scan() -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Return the entries of all installed distributions, and a line for each distribution that cannot be read.

    `metadata.entry_points()` is not used, because one damaged distribution makes it fail.
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
            # Searching the text first avoids parsing the files of all other distributions.
            if "sagan." not in (dist.read_text("entry_points.txt") or ""):
                continue
            points = [point for point in dist.entry_points if point.group in kinds]
            package, version, summary = dist.metadata["Name"], dist.version, dist.metadata["Summary"] or ""
            # Python imports the first distribution of a name on sys.path.
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
    """Return the normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _line(e: BaseException) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())}".removesuffix(": ")


def _way_out(entry: Entry) -> str:
    if entry.builtin:
        return "reinstall sagan-cli"
    return f"'sagan plugins --check' checks all plugins, {ALLOWLIST}= runs without them"
