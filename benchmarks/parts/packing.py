"""Packs a folder of pictures with two worker processes and prints the seconds; a script, as `sagan train` is one.

A worker imports the script that started it. So this one holds next to nothing, or its own imports would be measured.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

WORKERS = 2


def main(folder: Path, cache: Path, side: int) -> float:
    """Seconds from the listed folder to the finished pack in `cache`."""
    from sagan_cli.data.packing.pack import PackRequest, open_pack
    from sagan_cli.data.sources.folders import open_folder

    dataset = open_folder(folder, where="pictures", unconditional=True)
    begun = time.perf_counter()
    open_pack(
        dataset, PackRequest(side, side, 3), cache_dir=cache, max_bad=0.0, workers=WORKERS,
        progress=lambda done, total: None, notify=lambda text: None,
    )  # fmt: skip
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
