"""`sagan plugins`: list the registry and check that its entries can be loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.commands.options import Json
from sagan_cli.commands.startup import real_command
from sagan_cli.console import table
from sagan_cli.contracts import API_VERSION
from sagan_cli.errors import PluginError
from sagan_cli.plugins import registry
from sagan_cli.plugins.registry import Entry

HEADINGS = ("KIND", "NAME", "PACKAGE", "VERSION", "BUILT-IN")


def plugins(
    check: Annotated[bool, typer.Option("--check", help="Import and check each one; exit code 1 on errors.")] = False,
    json_: Json = False,
) -> None:
    """List datasets, architectures and all other extensions.

    Nothing is imported without --check, so that a slow or broken plugin does not affect the list.

    SAGAN_PLUGINS selects installed packages: all if unset, none if empty, else a comma-separated list of names.

    Examples:

      sagan plugins

      sagan plugins --check --json

      SAGAN_PLUGINS=sagan-shapes sagan plugins
    """
    entries = [entry for kind in registry.GROUPS for entry in registry.entries(kind)]
    faults = registry.faults()
    problems = [_problem(entry, check) for entry in entries]
    if json_:
        console.emit_json({
            "schema_version": 1,
            "api": API_VERSION,
            "plugins": [_record(e, p, check) for e, p in zip(entries, problems, strict=True)],
            "faults": faults,
        })  # fmt: skip
    else:
        rows = [_row(e, p, check) for e, p in zip(entries, problems, strict=True)]
        console.result(table([(*HEADINGS, "STATUS"), *rows] if check else [HEADINGS, *rows]))
        for fault in faults:
            console.warn(fault)
        if not check:
            for problem in filter(None, problems):
                console.warn(problem)
    if check and (faults or any(problems)):
        raise typer.Exit(1)


def _problem(entry: Entry, check: bool) -> str:
    """Return the error of an entry, or "" if none was found."""
    if not check or entry.problem:
        return entry.problem
    from sagan_cli.testing import CHECKS

    try:
        if entry.kind == "commands":
            real_command(entry)
        else:
            loaded = registry.load_entry(entry)
            # The built-ins are checked by this project's tests.
            if not entry.builtin and entry.kind in CHECKS:
                CHECKS[entry.kind](loaded)
    except PluginError as e:
        return str(e)
    except AssertionError as e:
        return f"{entry.title}: {e}"
    except Exception as e:  # noqa: BLE001 - the check runs code of the plugin, which may raise anything
        return str(registry.failure(entry, e))
    return ""


def _record(entry: Entry, problem: str, check: bool) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(entry).items() if key != "problem"}
    return {**facts, "status": "error" if problem else "ok" if check else "not checked", "error": problem or None}


def _row(entry: Entry, problem: str, check: bool) -> tuple[str, ...]:
    facts = (entry.kind, entry.name, entry.package, entry.version, "yes" if entry.builtin else "no")
    return (*facts, f"error: {problem}" if problem else "ok") if check else facts
