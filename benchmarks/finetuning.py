"""Measure `--init-from` and `--freeze-d` with 500 images of two species, after training on the four others.

    python benchmarks/finetuning.py --work DIR      # about 45 minutes on two cores; resumable
    python benchmarks/finetuning.py --table

The four species give the source run (64,000 images shown). The 500 images of fox and zebra are then trained on for
16,000 images in each way of `WAYS`. Each result is compared with 2,000 other images of the two species, on the features
of a classifier. Results: docs/results/finetuning.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from sagan_cli.quadrupeds import CLASS_NAMES, build

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "finetuning.json"
NEW = ("fox", "zebra")
TRAINED, COMPARED = 500, 2000
SIDE = 32
WAYS: dict[str, list[str]] = {
    "from scratch": [],
    "from scratch, 64,000 images": ["--kimg", "64"],
    "--init-from RUN": ["--init-from", "RUN"],
    "--init-from RUN, half the rates": ["--init-from", "RUN", "--d-lr", "linear:8e-4:0:50%-100%",
                                        "--g-lr", "linear:4e-4:0:50%-100%"],
    "--init-from RUN --freeze-d 1": ["--init-from", "RUN", "--freeze-d", "1"],
    "--init-from RUN --freeze-d 2": ["--init-from", "RUN", "--freeze-d", "2"],
    "--init-from model.safetensors (no discriminator)": ["--init-from", "FILE"],
}  # fmt: skip
"""Way of training -> flags."""
METRICS = ("fid", "precision", "recall")


def save_images(work: Path) -> None:
    """Write the images of the source, of the new training set and of the comparison as class folders."""
    if (work / "images.done").exists():
        return
    dataset = build(Path(), split="train", height=SIDE, width=SIDE)
    counts = dict.fromkeys(NEW, 0)
    for index in range(len(dataset)):
        name, folder = CLASS_NAMES[index % len(CLASS_NAMES)], "source"
        if name in NEW:
            counts[name] += 1
            few, all_ = TRAINED // len(NEW), (TRAINED + COMPARED) // len(NEW)
            if counts[name] > all_:
                continue
            folder = "few" if counts[name] <= few else "compared"
        (work / folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.draw(index)).save(work / folder / name / f"{index:05d}.png")
    (work / "images.done").touch()


def sagan(*words: object, work: Path) -> str:
    """Run the command on one thread and return its standard output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SAGAN_CACHE": str(work / "cache")}
    command = [sys.executable, "-m", "sagan_cli", *map(str, words), "-q", "--json"]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(out: Path, data: Path, flags: Iterable[str], work: Path) -> None:
    """Train in `out`, or resume."""
    sagan("train", "--preset", "laptop", "--data", data, "--size", SIDE, *flags, "--out", out, work=work)


def measure(way: str, seed: int, work: Path) -> dict[str, float]:
    """Train on the 500 images in one way and score the result."""
    names = {"RUN": str(work / "source-run"), "FILE": str(work / "source.safetensors")}
    flags = ["--kimg", "16", "--seed", str(seed), *(names.get(word, word) for word in WAYS[way])]
    out = work / f"{list(WAYS).index(way)}-{seed}"
    train(out, work / "few", flags, work)
    scored = sagan(
        "eval-fid", out, "--data", work / "compared", "--extractor", "classifier", "-n", COMPARED,
        "--metrics", "fid,prc", work=work,
    )  # fmt: skip
    values = json.loads(scored)["values"]
    return {name: values[name] for name in METRICS}


def table() -> str:
    """Return the results as Markdown, means over the seeds."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = ["| way | seeds | FID | precision | recall |", "|---|---|---|---|---|"]
    for way, seeds in found.items():
        means = [sum(score[name] for score in seeds.values()) / len(seeds) for name in METRICS]
        lines.append(f"| {way} | {len(seeds)} | " + " | ".join(f"{mean:.3g}" for mean in means) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("finetuning"), help="folder of images, runs and caches")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--table", action="store_true", help="print the committed results")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    save_images(work)
    train(work / "source-run", work / "source", ["--kimg", "64"], work)
    if not (work / "source.safetensors").exists():
        sagan("export", work / "source-run", "--out", work / "source.safetensors", work=work)
    todo = [(way, seed) for seed in arguments.seeds for way in WAYS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        scores = list(pool.map(lambda one: measure(*one, work), todo))
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for (way, seed), score in zip(todo, scores, strict=True):
        found.setdefault(way, {})[str(seed)] = score
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
