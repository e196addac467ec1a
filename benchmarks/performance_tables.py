"""The tables of docs/performance.md from the results of `speed.py`.

    python benchmarks/performance_tables.py      # writes each table between its two markers

A table is between `<!-- cpu NAME -->` or `<!-- cuda NAME -->` and `<!-- end -->`; the rest of the document is not
changed. A table without results is replaced by the command that measures it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import performance_targets
import precision_quality
from performance_targets import Results, systems_in

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "results"
MISSING = "*Not measured yet; `python benchmarks/{}` does it.*"
SIDES = ("textbook", "exact", "default")


def write() -> None:
    """Update the tables of the document from the committed results."""
    DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def render(text: str, results: dict[str, Results] | None = None) -> str:
    """Return the document with all tables rendered.

    Args:
        results: results by device, `cpu` and `cuda`; default those of docs/results.
    """
    found = results if results is not None else {device: load(device) for device in ("cpu", "cuda")}

    def fill(match: re.Match[str]) -> str:
        device, name = match[1], match[2]
        section, make = TABLES[name]
        whole = found.get(device, {})
        if whole.get(section):
            body = make(whole)
        else:
            command = f"speed.py{'' if device == 'cpu' else f' --device {device}'} --only {section}"
            body = MISSING.format("precision_quality.py" if section == "quality" else command)
        return f"<!-- {device} {name} -->\n\n{body}\n\n<!-- end -->"

    return re.sub(r"<!-- (cpu|cuda) (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


def load(device: str) -> Results:
    """Return the committed results of a device; {} if there are none."""
    path, quality = RESULTS / f"speed-{device}.json", RESULTS / "precision_quality.json"
    found: Results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if device == "cpu" and quality.exists():
        found["quality"] = json.loads(quality.read_text(encoding="utf-8"))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def spread(numbers: dict[str, float], digits: int = 2) -> str:
    """Format median and quartiles: 0.42 (0.41 to 0.44)."""
    return f"{numbers['median']:.{digits}f} ({numbers['q1']:.{digits}f} to {numbers['q3']:.{digits}f})"


def milliseconds(numbers: dict[str, float]) -> str:
    """Format the median in milliseconds with three digits."""
    ms = numbers["median"] * 1000
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def count(value: float) -> str:
    """Format a rate with three digits and thousands separators."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def machine(whole: Results) -> str:
    """Return the facts of the machine and the load during each section."""
    facts = whole["machine"]["facts"]
    where = facts.get("gpu") or f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads"
    lines = [
        f"{where}; {facts['memory_gib']} GiB; {facts['instructions']}; PyTorch {facts['torch']}"
        f"{', with oneDNN' if facts['onednn'] else ''}; {facts['libc'] or facts['system']};"
        f" Python {facts['python']}; fp32 products at precision `{facts['matmul_precision']}`."
    ]
    if "gpu" in facts:
        lines.append(f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}; TF32 in the textbook's convolutions "
                     f"{'on' if facts['tf32_convolution'] else 'off'}, in its products "
                     f"{'on' if facts['tf32_matmul'] else 'off'}.")  # fmt: skip
    set_by = ", ".join(f"`{k}={v}`" for k, v in facts["environment"].items())
    lines.append(f"Environment: {set_by or 'nothing set'}.")
    rows = []
    for section in ("steps", "peaks", "sampling", "curves", "data"):
        if about := whole.get(section, {}).get("conditions"):
            rows.append([section, f"{about['seconds']:.0f}", about.get("others_cores_before", ""),
                         about.get("others_cores", ""), f"{about.get('steal', 0):.1%}",
                         "quick" if about["quick"] else "whole"])  # fmt: skip
    head = ["section", "seconds", "cores used by others before", "and during", "stolen by the host", "run"]
    return "\n".join(lines) + "\n\n" + table(head, rows)


def steps(whole: Results) -> str:
    """Return the times of a training step and their ratios, in both readings."""
    rows = []
    for found in systems_in(whole):
        for name in ("as_run", "together"):
            if name not in found:
                continue
            reading = found[name]
            rows.append([
                f"{found['title']}, batch {found['batch']}" if name == "as_run" or "as_run" not in found else "",
                "as run" if name == "as_run" else "one process", milliseconds(reading["seconds"]["textbook"]),
                milliseconds(reading["seconds"]["exact"]), milliseconds(reading["seconds"]["default"]),
                spread(reading["ratio"]["exact"]), spread(reading["ratio"]["default"]),
                spread(reading["ratio"]["textbook again"]),
            ])  # fmt: skip
    head = ["", "reading", "textbook, ms", "exact, ms", "default, ms", "exact", "default", "textbook again"]
    return table(head, rows)


def work(whole: Results) -> str:
    """Return operations, rates, shares of the peak and memory."""
    rows = []
    for found in systems_in(whole):
        share = found["share_of_peak"]
        rows.append([
            f"{found['title']}, batch {found['batch']}",
            " / ".join(f"{found['flops'][s] / 1e9:,.0f}" for s in SIDES),
            " / ".join(count(share[s]["gflops"]) for s in SIDES),
            " / ".join(f"{share[s]['share']['median']:.0%}" for s in SIDES),
            " / ".join(f"{found['memory'][s]['peak_mib']:,}" for s in SIDES),
            *([" / ".join(str(found["profile"][s]["kernels"]) for s in SIDES)] if _on_cuda(whole) else []),
        ])  # fmt: skip
    head = ["textbook / exact / default", "GFLOP per step", "GFLOP/s", "of the convolution's peak", "peak memory, MiB"]
    return table([*head, *(["kernels per step"] if _on_cuda(whole) else [])], rows)


def unequal(whole: Results) -> str:
    """Return the differences between the sides, with the systems that have them."""
    lines: dict[str, list[str]] = {}
    for found in systems_in(whole):
        for text in found["unequal"]:
            lines.setdefault(text, []).append(found["title"])
    every = len(systems_in(whole))
    return "\n".join(f"- {'All' if len(w) == every else '; '.join(w)}: {text}." for text, w in lines.items())


def profile(whole: Results) -> str:
    """Return the operators by their share of a step in the default settings."""
    rows = []
    for found in systems_in(whole):
        told = found["profile"]["default"]["operators"][:7]
        rows.append(
            [found["title"], ", ".join(f"{performance_targets.plain(o['name'])} {o['share']:.0%}" for o in told)]
        )
    return table(["", "default settings, own time"], rows)


def peaks(whole: Results) -> str:
    """Return the peak rates of convolutions and matrix products."""
    rows: dict[str, list[str]] = {}
    for row in whole["peaks"]["rates"]["rows"]:
        what = row["what"].split(", ", 1)[1]
        rows.setdefault(what, []).append(f"{count(row['gflops']['median'])} (best {count(row['gflops']['most'])})")
    return table(["GFLOP/s", "fp32", "bf16"], [[what, *rates] for what, rates in rows.items()])


def sampling(whole: Results) -> str:
    """Return the rates of sampling by batch size."""
    rows = []
    for name, found in whole["sampling"].items():
        if name in ("conditions", "start"):
            continue
        for row in found:
            rate, less = row["pictures_per_second"], row["ratio"]
            rows.append([
                name, row["batch"], *(count(rate[k]["median"]) for k in rate if k != "textbook again"),
                *(spread(less[k]) for k in less),
            ])  # fmt: skip
    head = ["images per second", "batch", "textbook", "folded fp32", "folded bf16", "`sagan sample`", "fp32, time",
            "bf16, time", "`sagan sample`, time", "textbook again"]  # fmt: skip
    return table(head, rows)


def start(whole: Results) -> str:
    """Return the times of `sagan sample` as a process."""
    works = ("import torch", "checkpoint", "exported file")
    rows = [
        [row["title"], *(f"{row['seconds'][w]['median']:.2f}" for w in works), *map(spread, row["ratio"].values())]
        for row in whole["sampling"].get("start", [])
    ]
    head = ["", "import torch, s", "from a checkpoint, s", "from a file, s", "checkpoint", "file", "import torch again"]
    return table(head, rows)


def attention(whole: Results) -> str:
    """Return times and memory of attention by positions."""
    forms = ("textbook", "explicit", "fused", "ours")
    rows = [
        [f"{row['positions']:,}", *(milliseconds(row["seconds"][f]) for f in forms),
         *(f"{row['mib'][f]:,.0f}" for f in forms)]
        for row in whole["curves"]["attention"]
    ]  # fmt: skip
    return table(["positions", *(f"{f}, ms" for f in forms), *(f"{f}, MiB" for f in forms)], rows)


def _growth(key: str) -> Callable[[Results], str]:
    def make(whole: Results) -> str:
        rows = [
            [row[key], *(milliseconds(row["seconds"][s]) for s in SIDES), spread(row["ratio"]["exact"]),
             spread(row["ratio"]["default"]), f"{row['peak_mib']['textbook']:,}", f"{row['peak_mib']['default']:,}"]
            for row in whole["curves"][key]
        ]  # fmt: skip
        head = [key, *(f"{s}, ms" for s in SIDES), "exact", "default", "textbook, MiB", "default, MiB"]
        return table(head, rows)

    return make


def processes(whole: Results) -> str:
    """Return the times of one batch shared by several processes."""
    rows = [[row["processes"], milliseconds(row["seconds"]), count(row["batch"] / row["seconds"]["median"])]
            for row in whole["curves"]["processes"]]  # fmt: skip
    return table(["processes", "ms per step", "images per second"], rows)


def folding(whole: Results) -> str:
    """Return the time of folded resampling divided by that of plain resampling, by layer."""
    kinds = ("up fp32", "down fp32", "up bf16", "down bf16")
    rows = [
        [row["channels"], row["batch"], f"{row['side']}x{row['side']}", f"{row['batch'] * row['side'] ** 2:,}",
         *(f"{row['ratio'][kind]['median']:.2f}" for kind in kinds)]
        for row in whole["curves"]["folding"]
    ]  # fmt: skip
    return table(["channels", "batch", "smaller map", "positions", *kinds], rows)


def data(whole: Results) -> str:
    """Return the rates of the data pipeline."""
    rows = []
    for row in whole["data"]["rates"]:
        rates = [row["pillow"]["median"], row["decode"]["median"], row["pack_two_processes"], row["read"]["median"]]
        rows.append([row["files"], f"{row['bytes'] / 1000:.1f}", row["side"], *map(count, rates)])
    head = ["JPEG files", "kB", "trained at", "Pillow alone", "decode and fit", "packing by two", "read from the pack"]
    return table(head, rows)


def quality(whole: Results) -> str:
    """Return the effect of bf16 on quality."""
    return precision_quality.table(whole["quality"])


def _on_cuda(whole: Results) -> bool:
    return "gpu" in whole["machine"]["facts"]


TABLES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "machine": ("machine", machine), "targets": ("steps", performance_targets.rows), "steps": ("steps", steps),
    "work": ("steps", work), "unequal": ("steps", unequal), "profile": ("steps", profile), "peaks": ("peaks", peaks),
    "sampling": ("sampling", sampling), "start": ("sampling", start), "attention": ("curves", attention),
    "batch": ("curves", _growth("batch")), "width": ("curves", _growth("width")), "processes": ("curves", processes),
    "folding": ("curves", folding),
    "data": ("data", data), "quality": ("quality", quality),
}  # fmt: skip
"""Name in the document -> section of the results, and the function that renders the table."""


if __name__ == "__main__":
    write()
