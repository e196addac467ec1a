"""Trained weights from which a training run starts (`--init-from`).

Generator and EMA come from a checkpoint or an exported file; the discriminator from a checkpoint that has one. The
optimisers start anew. Tables with a row for each class are filled by class name; a class that the source does not have
starts from the mean of the source's rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import checkpoint, networks
from sagan_cli.engine.checkpoint import Facts
from sagan_cli.engine.model_file import read_file
from sagan_cli.engine.networks import Networks
from sagan_cli.errors import UsageError
from sagan_cli.files import sha256_of
from sagan_cli.model.ema import EMA
from sagan_cli.model.layers import fold_network_

Tensors = dict[str, Tensor]
SPECTRAL_ITERATIONS = 50
"""Power iterations that estimate the singular vectors of weights that come without them."""


@dataclass(frozen=True)
class TrainedWeights:
    """The weights of a checkpoint or of an exported file."""

    facts: Facts
    generator: Tensors
    ema: Tensors
    discriminator: Tensors | None
    """None: the source has a generator only, as exported files and imported runs do."""
    folded: bool
    """Whether spectral norms are folded into the weights, as in exported files."""
    sha256: str
    """Digest of the file that holds the generator."""


@dataclass(frozen=True)
class InitialWeights:
    """Trained weights in the shapes of the networks to train."""

    source: TrainedWeights
    generator: Tensors
    ema: Tensors
    discriminator: Tensors | None
    about: str
    """What is taken and what is not, in one line for the user."""
    complete: bool
    """Whether every tensor comes from the source unchanged."""

    def load(self, networks: Networks, ema: EMA) -> None:
        """Copy the weights into new networks and their EMA."""
        pairs = [(networks.generator, self.generator), (ema.module, self.ema)]
        pairs += [(networks.discriminator, self.discriminator)] if self.discriminator is not None else []
        for network, tensors in pairs:
            network.load_state_dict(tensors, strict=False)
            for module in network.modules():
                advance = getattr(module, "advance_", None)
                if advance is not None and not self.complete:
                    for _ in range(SPECTRAL_ITERATIONS):
                        advance()

    def record(self) -> dict[str, object]:
        """Return what run.json says about the source."""
        facts = self.source.facts
        return {"path": str(facts.path), "step": facts.step, "sha256": self.source.sha256, "about": self.about}


def read_facts(path: Path) -> Facts:
    """Return architecture, size and classes of a checkpoint directory or an exported file.

    Raises:
        CheckpointError: as for `read`.
    """
    return checkpoint.read_facts(path) if path.is_dir() else read_file(path).facts


def read(path: Path) -> TrainedWeights:
    """Read a checkpoint directory or an exported file.

    Raises:
        CheckpointError: damaged, of another format, or of an architecture that is not installed.
    """
    if not path.is_dir():
        found = read_file(path)
        weights = found.generator.state_dict()
        return TrainedWeights(found.facts, weights, weights, None, folded=True, sha256=sha256_of(path))
    facts = checkpoint.read_facts(path)
    tensors = checkpoint.load_tensors(facts, checkpoint.MODEL, ("generator", "ema"))
    discriminator = None
    if checkpoint.STATE in facts.digests:
        discriminator = _under("discriminator", checkpoint.load_tensors(facts, checkpoint.STATE, ("discriminator",)))
    return TrainedWeights(
        facts, _under("generator", tensors), _under("ema", tensors), discriminator, folded=False,
        sha256=facts.digests[checkpoint.MODEL],
    )  # fmt: skip


def fitted(source: TrainedWeights, arch: str, spec: ModelSpec, class_names: Sequence[str]) -> InitialWeights:
    """Return the source's weights in the shapes of the networks of `spec`.

    Raises:
        UsageError: a tensor of the source has another shape, and that is not a matter of the number of classes.
    """
    old = source.facts
    if (arch, replace(spec, num_classes=0)) != (old.arch, replace(old.spec, num_classes=0)):
        raise UsageError(
            f"--init-from {old.path}: its networks are {old.arch} {old.spec}, and the run's are {arch} {spec}"
        )
    # Classes are compared by name, because the same number of classes may have other names or another order.
    same_classes = tuple(class_names) == old.class_names
    rows = None if same_classes else _rows(old.class_names, class_names)
    named = (_Shapes(old.arch, old.spec, folded=source.folded), _Shapes(arch, spec, folded=source.folded))
    generator, ema = (_fit(weights, "generator", *named, rows, old.path) for weights in (source.generator, source.ema))
    discriminator = None
    if source.discriminator is not None:
        discriminator = _fit(source.discriminator, "discriminator", *named, rows, old.path)
    return InitialWeights(
        source, generator, ema, discriminator, _about(source, class_names), complete=same_classes and not source.folded
    )


def _about(source: TrainedWeights, class_names: Sequence[str]) -> str:
    old = source.facts
    parts = "generator, EMA and discriminator" if source.discriminator is not None else "generator and EMA"
    text = f"{parts} of {old.path} at step {old.step}"
    if source.discriminator is None:
        text += "; it has no discriminator, which starts from the seed"
    if tuple(class_names) != old.class_names:
        known = len(set(class_names) & set(old.class_names))
        text += f"; {known} of its {len(old.class_names)} classes are kept"
        if len(class_names) > known:
            text += f", {len(class_names) - known} are new"
    return text


class _Shapes:
    """Names of the tensors of both networks, and the axis along which each has one entry for each class."""

    def __init__(self, arch: str, spec: ModelSpec, *, folded: bool) -> None:
        one, more = (
            _built(arch, replace(spec, num_classes=n)) for n in (spec.num_classes, max(spec.num_classes, 1) + 1)
        )
        if folded:
            fold_network_(one["generator"].eval())
            fold_network_(more["generator"].eval())
        self.shapes = {kind: {n: tuple(t.shape) for n, t in net.state_dict().items()} for kind, net in one.items()}
        self.tables = {
            kind: {
                name: axis
                for name, tensor in net.state_dict().items()
                if (axis := _differing(self.shapes[kind].get(name), tuple(tensor.shape))) is not None
            }
            for kind, net in more.items()
        }


def _built(arch: str, spec: ModelSpec) -> dict[str, nn.Module]:
    with torch.device("meta"):
        return dict(zip(("generator", "discriminator"), networks.build(arch, spec), strict=True))


def _differing(one: tuple[int, ...] | None, other: tuple[int, ...]) -> int | None:
    """Return the axis in which two shapes differ; 0 where the tensor exists only with classes, None if they agree."""
    if one is None:
        return 0
    axes = [axis for axis, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    return axes[0] if axes else None


def _rows(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """Return the source's row of each class; None is the mean of all rows."""
    place = {name: row for row, name in enumerate(old)}
    return [place.get(name) for name in new] or [None]


def _fit(
    tensors: Tensors, kind: str, old: _Shapes, new: _Shapes, rows: Sequence[int | None] | None, path: Path
) -> Tensors:
    """Return the source's tensors of one network in the shapes for the new classes.

    Tensors that exist only with classes, and that the source does not have, are left out.
    """
    wanted, tables = new.shapes[kind], {**old.tables[kind], **new.tables[kind]}
    found = {}
    for name, tensor in tensors.items():
        if name in wanted:
            found[name] = _by_class(tensor, tables[name], rows) if name in tables and rows is not None else tensor
        elif name not in tables:
            raise UsageError(f"--init-from {path}: the {kind} has no tensor '{name}'")
    for name, shape in wanted.items():
        if name not in found and name not in tables:
            raise UsageError(f"--init-from {path}: tensor '{name}' of the {kind} is missing")
        if name in found and tuple(found[name].shape) != shape:
            way_out = "use as many classes as the source has, or --unconditional if it has none"
            raise UsageError(
                f"--init-from {path}: tensor '{name}' of the {kind} has shape {tuple(found[name].shape)}, and these "
                f"classes need {shape}: {way_out}"
            )
    return found


def _by_class(tensor: Tensor, axis: int, rows: Iterable[int | None]) -> Tensor:
    mean = tensor.double().mean(axis).to(tensor.dtype)
    return torch.stack([mean if row is None else tensor.select(axis, row) for row in rows], axis)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {k.removeprefix(prefix + "."): t for k, t in tensors.items() if k.startswith(prefix + ".")}
