"""Makes the flags of `sagan train` out of the settings table, so that a setting is written down once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sagan_cli.config.schedule import Schedule
from sagan_cli.config.schema import SETTINGS, Setting
from sagan_cli.plugins import registry

PANELS = {"data": "Data", "model": "Model", "train": "Training", "run": "Run directory"}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the `**settings` parameter of a command by one option per setting.

    An option that was not given is None, so that the command knows what the user said from what stands by default.
    """
    own = inspect.signature(command, eval_str=True).parameters
    extra = [_parameter(s) for s in SETTINGS.values()]
    kept = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = inspect.Signature([*kept, *extra])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*kept, *extra)}
    return command


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """Parameter name -> value becomes key -> value, for the ones that were given."""
    return {key: settings[_name(s)] for key, s in SETTINGS.items() if settings[_name(s)] is not None}


def _name(s: Setting) -> str:
    return s.flag.replace("-", "_")


def _parameter(s: Setting) -> inspect.Parameter:
    names = [f"--{s.flag}/--no-{s.flag}" if s.kind is bool and s.flag != "unconditional" else f"--{s.flag}"]
    default = {True: "on", False: "off"}[s.default] if s.kind is bool else s.default
    choices = s.choices or (tuple(registry.names(s.registered)) if s.registered else ())
    text = f"{s.help} [{', '.join(choices)}]" if choices else s.help
    option = typer.Option(
        *names, metavar=s.metavar, help=f"{text} (default: {default})", show_default=False,
        rich_help_panel=PANELS[s.key.split(".", 1)[0]],
    )  # fmt: skip
    return inspect.Parameter(
        _name(s),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[(str if s.kind is Schedule else s.kind) | None, option],
    )
