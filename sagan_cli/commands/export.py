"""The command `sagan export`."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.commands.options import Force, Json, Quiet, Raw
from sagan_cli.errors import PluginError, SaganError, UsageError
from sagan_cli.export.formats import CARD, card_beside, exporter, format_of, refuse_existing
from sagan_cli.generators import find_model
from sagan_cli.plugins import registry
from sagan_cli.runs import MODEL

if TYPE_CHECKING:
    from sagan_cli.export.trained_model import Check, TrainedModel


def _takers(flag: str, *, plugins: bool = False) -> str:
    """Return the formats that take a flag, separated by commas; the help lists built-in ones and imports no plugin."""
    found = []
    for entry in registry.entries("exporters"):
        with contextlib.suppress(PluginError):
            if (entry.builtin or plugins) and flag in registry.load_entry(entry).options:
                found.append(entry.name)
    return ", ".join(found)


def export(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT|FILE|-]",
            help="A run, checkpoint or exported .safetensors; default the newest run under runs/.",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="KIND", help=f"{', '.join(registry.names('exporters'))}; default by --out's ending."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|-",
            help="File, folder for hf and web, or - for stdout; default model.<KIND> here.",
        ),
    ] = None,
    raw: Raw = False,
    attention: Annotated[
        bool, typer.Option("--attention", help=f"{_takers('attention')}: attention maps as further outputs.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="USER/NAME", help=f"{_takers('push')}: also upload the folder to the Hugging Face Hub."),
    ] = None,
    runtime: Annotated[
        Path | None, typer.Option(metavar="DIR", help=f"{_takers('runtime')}: folder of npm's onnxruntime-web package.")
    ] = None,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a generator to a file, a folder or a web page.

    Every export is loaded by its own runtime and compared with PyTorch before it is written. A model card describes the
    model, its scores and how to load it.

    Examples:

      sagan export --out model.safetensors

      sagan export --format hf --out my-model --push user/my-model

      sagan export --format onnx --out model.onnx

      sagan export --format safetensors --out - | sagan sample - -n 4 --out grid.png
    """
    console.set_quiet(quiet)
    kind = format_of(out, format_)
    given = {"attention": attention, "push": push, "runtime": runtime}
    _refuse_misplaced(kind, out, given, json_)
    row = exporter(kind)
    place = None if out == "-" else Path(out or row.default_name)
    if place is None:
        console.refuse_terminal()
    else:
        refuse_existing(place, kind, force)
    found = find_model(target)

    from sagan_cli.export.hub import push as upload
    from sagan_cli.export.hub import ready_to_push
    from sagan_cli.files import files_in, replace_file, replace_folder, temporary_beside

    client = ready_to_push(push) if push else None
    trained = _opened(found, raw)
    if target is None:
        console.note(f"exporting {found.parent.parent}, step {trained.step}")
    with temporary_beside(place) as work:
        made = work / (place.name if place else row.default_name)
        check = _write(trained, kind, made, given)
        _report(check)
        sizes = {name: (made / name).stat().st_size for name in files_in(made)} if made.is_dir() else {}
        main = _main_file(made)
        facts = _facts(trained, kind, out or str(place), main, check, sizes)
        if place is None:
            with made.open("rb") as f:
                console.write_streamed(lambda stdout: shutil.copyfileobj(f, stdout, 1 << 20))
            return
        if made.is_dir():
            replace_folder(made, place)
        else:
            replace_file(work / card_beside(made).name, card_beside(place))
            replace_file(made, place)
            if row.beside is not None:
                row.beside(place, console.note)
    facts["pushed"] = upload(client, place, push) if push else None
    if json_:
        console.emit_json(facts)
        return
    console.result(str(place))
    if facts["pushed"]:
        console.result(facts["pushed"])


def _refuse_misplaced(kind: str, out: str | None, given: dict[str, Any], json_: bool) -> None:
    """Refuse flags of other formats."""
    if out == "-" and json_:
        raise UsageError("--json and --out - both use stdout: write the model to a file")
    for flag, value in given.items():
        if value and flag not in exporter(kind).options:
            raise UsageError(f"--{flag}: not for --format {kind}; it is for --format {_takers(flag, plugins=True)}")
    runtime = given["runtime"]
    if runtime is not None and not runtime.is_dir():
        raise UsageError(f"--runtime {runtime}: no such folder")


def _opened(found: Path, raw: bool) -> TrainedModel:
    """Open the model without local paths, on the CPU, where equal weights give equal files."""
    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.export.trained_model import TrainedModel, open_trained_model, published
    from sagan_cli.generators import open_found

    with open_runtime("cpu", "fp32") as runtime:
        if found.is_dir():
            return published(open_trained_model(found, runtime, raw=raw))
        sampler = open_found(found, runtime, raw=raw)
    facts = sampler.facts
    return published(
        TrainedModel(
            sampler.generator, sampler.spec, sampler.class_names, facts.arch, facts.arch_package, sampler.weights,
            facts.step, facts.data, str(facts.path), digests=facts.digests,
        )
    )  # fmt: skip


def _write(trained: TrainedModel, kind: str, made: Path, given: dict[str, Any]) -> Check | None:
    """Write the model to `made`, and its card next to it or in it."""
    from sagan_cli.export.card import card

    row = exporter(kind)
    entry = registry.find("exporters", kind)
    check: Check | None
    try:
        check = row.write(trained, made, notify=console.note, **{name: given[name] for name in row.options})
    except (SaganError, OSError):
        raise
    except Exception as e:
        if entry.builtin:
            raise
        raise registry.failure(entry, e) from e
    if not made.exists():
        raise PluginError(f"{entry.title} wrote nothing; report it to its authors")
    if not row.own_card:
        place = made / CARD if made.is_dir() else card_beside(made)
        place.write_text(card(trained, kind, made.name, check), encoding="utf-8")
    return check


def _report(check: Check | None) -> None:
    if check is None:
        return
    worst = max(check.differences.values())
    batches = ", ".join(map(str, sorted(check.differences)))
    console.note(f"read back in {check.runtime}: differs from PyTorch by {worst:.2g} at most (batches of {batches})")


def _main_file(made: Path) -> Path:
    """Return the file of the model: `made`, or the one in the folder `made`."""
    if not made.is_dir():
        return made
    usual = [made / MODEL, made / "model.onnx", made / CARD]
    found = [path for path in (*usual, *sorted(made.rglob("*"))) if path.is_file()]
    if not found:
        raise PluginError(f"the export format wrote an empty folder {made.name}; report it to its authors")
    return found[0]


def _facts(
    trained: TrainedModel, kind: str, out: str, main: Path, check: Check | None, files: dict[str, int]
) -> dict[str, Any]:  # fmt: skip
    """Return the output of --json."""
    from dataclasses import asdict

    with main.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return {
        "format": kind, "out": out, "bytes": main.stat().st_size, "sha256": digest, "files": files or None,
        "arch": trained.arch, "step": trained.step, "weights": trained.weights, "from": trained.source,
        "checks": asdict(check) if check else None,
    }  # fmt: skip
