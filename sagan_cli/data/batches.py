"""The batch of every discriminator update, as a function of (seed, update), so that there is no loader state."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan_cli.data.packing.pack import Pack
from sagan_cli.ops.device_copy import to_device
from sagan_cli.ops.randomness import generator


class Batches:
    """Batches of a pack in shuffled passes: each image once per pass, in a new order for each pass.

    The pack is copied to the accelerator if it takes at most half of the free memory there; otherwise, and on a CPU,
    batches are read from the memory-mapped file.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        batch: int,
        seed: int,
        flip: bool,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        """Take the pack; `chosen` are the indices of the images that are used, all by default."""
        self.chosen = np.arange(len(pack.images)) if chosen is None else chosen
        self.count, self.batch, self.seed, self.flip, self.device = len(self.chosen), batch, seed, flip, device
        self.share = slice(rank * batch // world, (rank + 1) * batch // world)
        self.images, self.labels, self.labelled = pack.images, pack.labels, bool(pack.class_names)
        self.resident: Tensor | None = None
        if device.type == "cuda" and pack.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
            self.resident = torch.from_numpy(np.array(pack.images)).to(device)
        self._pass: tuple[int, np.ndarray] | None = None

    def indices(self, update: int) -> np.ndarray:
        """Return the indices of the global batch of one discriminator update: int64 (batch,)."""
        positions = np.arange(update * self.batch, (update + 1) * self.batch)
        passes, offsets = positions // self.count, positions % self.count
        shuffled = np.concatenate([self._order(int(p))[offsets[passes == p]] for p in np.unique(passes)])
        found: np.ndarray = self.chosen[shuffled]
        return found

    def at(self, update: int) -> tuple[Tensor, Tensor | None]:
        """Return this process's images (n, C, H, W) in [-1, 1], channels last, and labels (n,) or None."""
        chosen = self.indices(update)[self.share]
        if self.resident is not None:
            raw = self.resident[to_device(torch.from_numpy(chosen), self.device)]
        else:
            raw = to_device(torch.from_numpy(self.images[chosen]), self.device)
        x = raw.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        if self.flip:
            mirrored = torch.rand(self.batch, generator=generator(self.seed, "flip", update))[self.share] < 0.5
            x = torch.where(to_device(mirrored, self.device)[:, None, None, None], x.flip(3), x)
        y = to_device(torch.from_numpy(self.labels[chosen]), self.device) if self.labelled else None
        return x, y

    def _order(self, number: int) -> np.ndarray:
        if self._pass is None or self._pass[0] != number:
            order = torch.randperm(self.count, generator=generator(self.seed, "order", number)).numpy()
            self._pass = (number, order)
        return self._pass[1]
