"""Throughput of an evaluation relative to its extractor alone, and its memory by number of images.

    python benchmarks/eval_throughput.py RUN --weights FILE [--pictures 128] [--rounds 5] [--out FILE.json]

Three measurements are interleaved in one process: A is the extractor on images in memory, B is the whole pass of `sagan
eval-fid` over a generator (draw, compute features, collect), C repeats A to show the noise. Ratios are medians over the
rounds. Memory is the peak of a fresh process for each number of images. FILE is a weights file of Inception; speed does
not depend on the weights, so the output of `python tests/support/inception_weights.py FILE` is sufficient.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from sagan_cli.engine import sample
from sagan_cli.engine.runtime import open_runtime
from sagan_cli.evaluation.extractors.extractor import three_channels
from sagan_cli.evaluation.extractors.torch_fidelity import open_torch_fidelity
from sagan_cli.evaluation.features import collect_features
from sagan_cli.evaluation.image_sets import GeneratedImages, requests_for
from sagan_cli.generators import find_checkpoint

BATCH = 64


@contextmanager
def silent(label: str, total: int):
    yield lambda done, total=None: None


def throughput(run: str, weights: Path, count: int, rounds: int) -> dict:
    with open_runtime("auto", "fp32") as runtime, ExitStack() as files:
        sampler = sample.load(find_checkpoint(run), runtime)
        extractor = open_torch_fidelity(
            "inception-v3-compat", weights=weights, device=runtime.device, environ=os.environ, progress=silent,
            notify=lambda text: None,
        )  # fmt: skip
        layers = (extractor.layers["fid"],)
        requests = requests_for(count, 0, None, sampler.spec.num_classes)
        fake = GeneratedImages(sampler.generator, sampler.spec, requests, runtime)
        ready = [three_channels(part) for part in fake.batches(BATCH)]

        def alone() -> None:
            for part in ready:
                extractor(part, layers)

        def whole() -> None:
            collect_features(
                fake, np.arange(count), extractor, layers, runtime, measures={}, keep_rows=True, batch=BATCH,
                open_files=files, folder=Path(), tick=lambda done: None,
            )  # fmt: skip

        alone()
        seconds: dict[str, list[float]] = {"extractor": [], "whole": [], "extractor again": []}
        for _ in range(rounds):
            for name, work in zip(seconds, (alone, whole, alone), strict=True):
                begun = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - begun)
        pairs = zip(seconds["extractor"], seconds["whole"], seconds["extractor again"], strict=True)
        shares = [(a + c) / 2 / b for a, b, c in pairs]
        return {
            "pictures": count, "rounds": rounds, "device": str(runtime.device), "threads": torch.get_num_threads(),
            "size": f"{sampler.spec.height}x{sampler.spec.width}",
            "extractor_pictures_per_second": count / statistics.median(seconds["extractor"]),
            "whole_pictures_per_second": count / statistics.median(seconds["whole"]),
            "share_of_extractor": statistics.median(shares), "share_worst": min(shares), "share_best": max(shares),
            "spread_of_the_same": statistics.median(
                a / c for a, c in zip(seconds["extractor"], seconds["extractor again"], strict=True)
            ),
        }  # fmt: skip


def memory(run: str, counts: tuple[int, ...]) -> dict[int, float]:
    """Return the peak memory of `sagan eval-fid --extractor classifier -n N` in a fresh process, MiB by N."""
    # VmHWM, not ru_maxrss, which starts with the peak of the parent process.
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom sagan_cli.cli import run\ncode = run(sys.argv[1:])\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(int(peak[1]) / 1024, file=sys.stderr)\nsys.exit(code)"
    )
    found = {}
    for count in counts:
        done = subprocess.run(
            [sys.executable, "-c", code, "eval-fid", run, "--extractor", "classifier", "-n", str(count),
             "--n-real", "2000", "--quiet"], capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[count] = float(done.stderr.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure the peak memory for -n 2000, 8000 and 32000")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = throughput(args.run, args.weights, args.pictures, args.rounds)
    if args.memory:
        found["peak_mib"] = memory(args.run, (2000, 8000, 32000))
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
