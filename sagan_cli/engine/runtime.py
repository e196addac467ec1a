"""The machine that a command runs on: device, precision, processes and memory allocator."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sagan_cli.data.packing.pack import cores
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.ops.device_copy import to_device


@dataclass(frozen=True)
class Runtime:
    """Device, precision and process group of this process."""

    device: torch.device
    precision: str
    """`fp32` or `bf16`: the type of convolutions and products; weights, norms, losses and optimiser stay fp32."""
    rank: int = 0
    world: int = 1

    def autocast(self) -> Any:
        """Return the context of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a CPU tensor on the device, without waiting for the device."""
        return to_device(tensor, self.device)

    def facts(self) -> dict[str, Any]:
        """Return what a run records about the machine."""
        found: dict[str, Any] = {"device": str(self.device), "precision": self.precision, "processes": self.world}
        if self.device.type == "cpu":
            found |= {"threads": torch.get_num_threads()}
        if self.device.type == "cuda":
            found |= {"name": torch.cuda.get_device_name(self.device), "tf32": self.precision != "fp32"}
        return found

    def keep_threads(self, recorded: int | None, warn: Callable[[str], None]) -> None:
        """Use the number of CPU threads that a run began with; another number changes the order of sums.

        Args:
            recorded: the number in run.json; None in runs of versions before 0.4.
            warn: receives a line if the user asked for another number, or this machine has fewer cores.
        """
        if self.device.type != "cpu" or type(recorded) is not int or recorded == torch.get_num_threads():
            return
        if "OMP_NUM_THREADS" in os.environ or recorded > cores():
            now = torch.get_num_threads()
            warn(f"this run began with {recorded} CPU threads; with {now} its bits differ, not its quality")
        else:
            torch.set_num_threads(recorded)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def average_gradients(self, module: nn.Module) -> None:
        """Average each gradient over the processes, in one message.

        DistributedDataParallel is not used: its buffer broadcasts break a network that runs twice before its backward
        pass, and its forward hooks do not fit two networks that are frozen in turn.
        """
        if self.world == 1:
            return
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.world
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view(grad.shape))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of each number over the processes."""
        if self.world > 1:
            dist.all_reduce(values)
            values = values / self.world
        return values

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all processes in order of rank, on the CPU; they must have one shape."""
        if self.world == 1:
            return [values.cpu()]
        mine = values.to(self.device).contiguous()
        found = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(found, mine)
        return [part.cpu() for part in found]

    def any_of(self, flag: bool) -> bool:
        """Return whether the flag is set on any process."""
        if self.world == 1:
            return flag
        votes = torch.tensor([float(flag)])  # on the host, which avoids waiting for the accelerator
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    def tell(self, text: str | None) -> str:
        """Return the leading process's text on every process; the others pass None."""
        if self.world == 1:
            assert text is not None
            return text
        data = list((text or "").encode())
        length = torch.tensor([len(data)], device=self.device)
        dist.broadcast(length, src=0)
        body = torch.tensor(data if self.leads else [0] * int(length.item()), dtype=torch.uint8, device=self.device)
        dist.broadcast(body, src=0)
        return bytes(body.tolist()).decode()

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def open_runtime(device: str, precision: str, *, distributed: bool = False) -> Iterator[Runtime]:
    """Set up device, precision and process group for one command.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16; auto is bf16 if the hardware supports it. On CUDA, fp32 excludes TF32; with
            bf16, the fp32 convolutions of penalties may use TF32.
        distributed: join the process group when torchrun started this process.

    Raises:
        UsageError: a device or precision that this machine does not have.
    """
    world = int(os.environ.get("WORLD_SIZE", "1")) if distributed else 1
    rank, local = (int(os.environ.get(k, "0")) if distributed else 0 for k in ("RANK", "LOCAL_RANK"))
    chosen = pick_device(device, local if world > 1 else None)
    if chosen.type == "cpu":
        _keep_memory()
    runtime = Runtime(chosen, pick_precision(precision, chosen), rank, world)
    if chosen.type == "cuda":
        set_tf32(convolutions=runtime.precision != "fp32")
    if world > 1:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        # PyTorch imports this module later by itself. Its default arguments then hold the process group, whose threads
        # would still run while the interpreter ends, and abort the process ("terminate called").
        importlib.import_module("torch.distributed.nn.functional")
        # gloo and nccl: flags are exchanged as host tensors.
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        try:
            # The other processes wait while the first one packs, which takes hours for a large dataset.
            dist.init_process_group(backend, timeout=timedelta(hours=6))
        except (ValueError, RuntimeError) as e:
            raise SaganError(f"cannot join the process group that torchrun announced: {e}") from e
    try:
        yield runtime
    finally:
        if world > 1:
            dist.destroy_process_group()


def set_tf32(convolutions: bool) -> None:
    """Allow or forbid TF32 (10 bits of mantissa) in convolutions, and forbid it in matrix products.

    PyTorch's default is TF32 for convolutions, even in an fp32 run.
    """
    precision = "tf32" if convolutions else "ieee"
    cudnn: Any = torch.backends.cudnn  # the stubs know less of these than the documentation
    matmul: Any = torch.backends.cuda.matmul
    with warnings.catch_warnings(action="ignore"):
        # Code that reads the deprecated names fails unless they agree with the new ones.
        cudnn.allow_tf32, matmul.allow_tf32 = convolutions, False
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = precision
    matmul.fp32_precision = "ieee"


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device of a name; auto is the first available of cuda, mps and cpu.

    Args:
        local_rank: the GPU of this process under torchrun.

    Raises:
        UsageError: no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise UsageError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this machine has no Metal device; try --device auto")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (index and int(index) >= count):
            raise UsageError(f"--device {name}: this machine has {count} CUDA device(s); try --device auto")
        if local_rank is not None:
            return torch.device("cuda", local_rank)
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; auto is bf16 if the device supports it natively.

    Raises:
        UsageError: another name.
    """
    if name not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision {name}: choose auto, fp32 or bf16")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        return "bf16" if _cpu_multiplies_bf16() else "fp32"
    return "fp32"


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the peak memory of the CUDA allocator, otherwise of the process; None where the system has no figure."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu_multiplies_bf16() -> bool:
    # Emulated bf16 is slower than fp32, so the instruction must exist. Other systems than Linux on x86 use fp32.
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _keep_memory() -> None:
    """Make glibc keep freed memory; by default, every large tensor causes new page faults."""
    if not sys.platform.startswith("linux") or os.environ.get("SAGAN_MALLOC") == "default":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no mallopt
        return
    m_mmap_max, m_trim_threshold, m_top_pad = -4, -1, -2
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)
    mallopt(m_top_pad, 64 << 20)
