"""The speed of `sagan` relative to the step as textbooks write it and to the peak of the machine, as JSON.

    python benchmarks/speed.py                       # docs/results/speed-cpu.json and the tables of docs/performance.md
    python benchmarks/speed.py --quick               # fewer systems and rounds: faster and less accurate
    python benchmarks/speed.py --only steps --systems sagan-32
    python benchmarks/speed.py --device cuda         # docs/results/speed-cuda.json

Results are written after each system and section, so that an interrupted run keeps them. Every section records the load
of the machine; `--wait 600` waits up to ten minutes for a quiet machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import performance_tables
import torch
from measuring import machine, watched
from parts import curves, peaks, pipeline, sampling, steps
from parts.systems import systems_for

RESULTS = Path(__file__).parent.parent / "docs" / "results"
QUICK = {"cpu": ("dcgan-64", "sagan-32"), "cuda": ("sagan-32",)}
Store = Callable[[str, Any], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="systems of the section steps; default all")
    parser.add_argument("--quick", action="store_true", help="fewer systems, rounds and points")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for a quiet machine, per section")
    parser.add_argument("--out", type=Path, help="default docs/results/speed-DEVICE.json; then tables are rendered")
    args = parser.parse_args()
    out = args.out or RESULTS / f"speed-{args.device}.json"
    for name in args.only:
        run_section(name, args, out)
    if args.out is None:
        performance_tables.write()


def run_section(name: str, args: argparse.Namespace, out: Path) -> None:
    """Measure one section and merge it into the file, part by part."""
    device = torch.device(args.device)
    with watched(args.wait) as conditions:
        SECTIONS[name](args, device, lambda part, value: merge(out, name, part, value))
    merge(out, name, "conditions", conditions | {"quick": args.quick})
    merge(out, "machine", "facts", machine(device))


def merge(out: Path, section: str, part: str, value: Any) -> None:
    """Replace one part of a section in the file."""
    whole = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    whole.setdefault(section, {})[part] = value
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"{section}: {part}", flush=True)


def _steps(args: argparse.Namespace, device: torch.device, store: Store) -> None:
    systems = systems_for(device.type)
    for name in args.systems or (QUICK[device.type] if args.quick else systems):
        system = systems[name]
        store(name, steps.measure(system, device, 4 if args.quick else system.rounds))


def _peaks(args: argparse.Namespace, device: torch.device, store: Store) -> None:
    store("rates", peaks.measure(device, 3 if args.quick else 7))


def _curves(args: argparse.Namespace, device: torch.device, store: Store) -> None:
    for name, curve in curves.CURVES.items():
        store(name, curve(device, args.quick))


def _data(args: argparse.Namespace, device: torch.device, store: Store) -> None:
    store("rates", pipeline.measure(device, args.quick))


def _sampling(args: argparse.Namespace, device: torch.device, store: Store) -> None:
    systems = systems_for(device.type)
    for name in ("sagan-32",) if args.quick else [n for n in sampling.SYSTEMS if n in systems]:
        store(name, sampling.measure(systems[name], device, args.quick))
    if device.type == "cpu":
        store("start", sampling.start(args.quick))


SECTIONS: dict[str, Callable[[argparse.Namespace, torch.device, Store], None]] = {
    "steps": _steps, "peaks": _peaks, "sampling": _sampling, "curves": _curves, "data": _data,
}  # fmt: skip


if __name__ == "__main__":
    main()
