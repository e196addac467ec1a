"""One iteration of training: updates of the discriminator, then one of the generator.

`iteration` returns the function that performs it, plain or as a CUDA graph; the training loop, benchmarks and timings
all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sagan_cli.config.schedule import parse_schedule
from sagan_cli.config.schema import TrainConfig
from sagan_cli.contracts import PenaltyInputs
from sagan_cli.engine.cuda_graph import CudaGraphs, GraphedIteration
from sagan_cli.engine.networks import Networks
from sagan_cli.engine.runtime import Runtime
from sagan_cli.engine.step_inputs import Inputs, Statistics, Tensors
from sagan_cli.errors import UsageError
from sagan_cli.objectives.adaptive import discriminator_sign
from sagan_cli.objectives.objective import Objective
from sagan_cli.ops.precision import wide

Iteration = Callable[[Inputs], Statistics]
"""Updates both networks and returns the statistics, which the next call may overwrite."""


def iteration(
    networks: Networks, objective: Objective, runtime: Runtime, cfg: TrainConfig, warn: Callable[[str], None]
) -> Iteration:
    """Return the function that performs a step: D's updates, then G's; as a CUDA graph where the settings allow it.

    Raises:
        UsageError: `--graph on` where a graph is not possible.
    """

    def plain(inputs: Inputs) -> Statistics:
        found: Statistics = {}
        for update in inputs.discriminator:
            found = update_discriminator(networks, runtime, objective, update, cfg.accumulate)
        g_loss = update_generator(networks, runtime, objective, inputs.generator, cfg.accumulate)
        return {"d_loss": found.pop("d_loss"), "g_loss": g_loss, **found}

    if not use_graph(cfg, runtime):
        return plain
    return GraphedIteration(plain, networks, CudaGraphs(runtime.device), warn)


def update_discriminator(
    networks: Networks, runtime: Runtime, objective: Objective, inputs: Tensors, parts: int = 1
) -> Statistics:
    """Update D on real images and on fakes from latents, as `Inputs.discriminator` names them.

    Args:
        parts: equal slices that are computed one after another to save memory; their gradients are summed. Batch norm
            uses the statistics of a slice; otherwise the result is that of the whole batch.

    Returns:
        `d_loss` (with penalties), `d_real` and `d_fake` (mean logits), `d_sign` (`discriminator_sign`), `augment_p`
        with `--ada`, and the value of each penalty by its name.
    """
    advance_spectral_norms(networks.discriminator)
    networks.opt_d.zero_grad(set_to_none=True)
    found = []
    for part in _slices(inputs, parts):
        statistics = _discriminator_loss(networks, runtime, objective, part)
        loss = statistics["d_loss"]
        (loss if parts == 1 else loss / parts).backward()
        found.append({name: value.detach() for name, value in statistics.items()})
    runtime.average_gradients(networks.discriminator)
    networks.limit_gradient(networks.discriminator)
    networks.opt_d.step()
    with torch.no_grad():
        for term, constraint in objective.constraints:
            constraint.apply(networks.discriminator, term.weight.start)
    means = {name: torch.stack([part[name] for part in found]).mean() for name in found[0]}
    if networks.adaptive is not None:
        networks.adaptive.update_(runtime.mean(means["d_sign"]))
        means["augment_p"] = networks.adaptive.strength.clone()
    return means


def _discriminator_loss(networks: Networks, runtime: Runtime, objective: Objective, inputs: Tensors) -> Statistics:
    """D's loss with penalties and its parts; the graph is kept for `d_loss`."""
    d, real_labels, fake_labels = networks.discriminator, inputs.get("real_labels"), inputs.get("fake_labels")
    with torch.no_grad(), runtime.autocast():
        fake = networks.generator(inputs["latents"], fake_labels)
    real = objective.augment(inputs["real"], inputs, "real", networks.adaptive)
    fake = objective.augment(fake.to(real.dtype), inputs, "fake", networks.adaptive)
    if getattr(d, "batches_apart", False):
        # With batch norm in D, real and fake images have statistics of their own.
        with runtime.autocast():
            on_real, on_fake = wide(d(real, real_labels)), wide(d(fake, fake_labels))
    else:
        # One forward pass over both: the weights are normalised once.
        both = torch.cat([real, fake]).contiguous(memory_format=torch.channels_last)
        labels = None if real_labels is None or fake_labels is None else torch.cat([real_labels, fake_labels])
        with runtime.autocast():
            on_real, on_fake = wide(d(both, labels)).split([len(real), len(fake)])
    loss = objective.loss.discriminator(on_real, on_fake)
    values = {}
    for term, penalty in objective.penalties:
        if f"weight.{term.name}" in inputs:  # absent in the updates that a lazy penalty leaves out
            given = PenaltyInputs(d, real, fake, real_labels, fake_labels, inputs.get(f"random.{term.name}"))
            values[term.name] = penalty.compute(given)
            loss = loss + inputs[f"weight.{term.name}"].to(loss.dtype) * values[term.name]
    # A penalty of a plugin may have any name, but must not replace the loss.
    statistics = {
        "d_loss": loss, "d_real": on_real.mean(), "d_fake": on_fake.mean(),
        "d_sign": discriminator_sign(objective.loss, on_real, on_fake),
    }  # fmt: skip
    reserved = {*statistics, "g_loss", "augment_p"}
    return statistics | {f"penalty_{name}" if name in reserved else name: v for name, v in values.items()}


def update_generator(
    networks: Networks, runtime: Runtime, objective: Objective, inputs: Tensors, parts: int = 1
) -> Tensor:
    """Update G on latents, as `Inputs.generator` names them, in so many slices; return the detached loss."""
    advance_spectral_norms(networks.generator)
    networks.opt_g.zero_grad(set_to_none=True)
    # D's weight gradients are not needed, and would cost a third of the step.
    networks.train_discriminator(False)
    found = []
    for part in _slices(inputs, parts):
        labels = part.get("fake_labels")
        on_real = None
        with runtime.autocast():
            fake = objective.augment(networks.generator(part["latents"], labels), part, "fake", networks.adaptive)
            logits = networks.discriminator(fake, labels)
            if objective.loss.uses_real:
                with torch.no_grad():
                    real = objective.augment(part["real"], part, "real", networks.adaptive)
                    on_real = wide(networks.discriminator(real, part.get("real_labels")))
        loss = objective.loss.generator(on_real, wide(logits))
        (loss if parts == 1 else loss / parts).backward()
        found.append(loss.detach())
    networks.train_discriminator(True)
    runtime.average_gradients(networks.generator)
    networks.limit_gradient(networks.generator)
    networks.opt_g.step()
    return torch.stack(found).mean()


def advance_spectral_norms(network: nn.Module) -> None:
    """Run one power iteration on every spectrally normalised weight, once per optimiser step of the network."""
    for module in network.modules():
        advance = getattr(module, "advance_", None)
        if advance is not None:
            advance()


def check_slices(cfg: TrainConfig, runtime: Runtime) -> None:
    """Refuse slices of different sizes.

    Raises:
        UsageError: `--accumulate` does not divide the images of a process.
    """
    share = cfg.batch // runtime.world
    if share % cfg.accumulate:
        whose = f"the {share} images of " + ("a batch" if runtime.world == 1 else "each process")
        raise UsageError(
            f"--accumulate {cfg.accumulate}: does not divide {whose}; choose a divisor, or another --batch"
        )


def use_graph(cfg: TrainConfig, runtime: Runtime) -> bool:
    """Return whether iterations are recorded as CUDA graphs.

    Raises:
        UsageError: `--graph on` where a graph is not possible.
    """
    hindrance = why_no_graph(cfg, runtime)
    if cfg.graph == "on" and hindrance:
        raise UsageError(f"--graph on: {hindrance}; leave it out")
    return cfg.graph != "off" and hindrance is None


def why_no_graph(cfg: TrainConfig, runtime: Runtime) -> str | None:
    """Return why a CUDA graph cannot be used, or None."""
    if runtime.device.type != "cuda":
        return f"needs a CUDA device, and this is {runtime.device.type}"
    if runtime.world > 1:
        return "several processes exchange their gradients outside a graph"
    if cfg.checkpointing:
        return "--checkpointing saves the state of the random generators, which a graph cannot do"
    if not parse_schedule(cfg.beta2, "--beta2").constant:
        return "a scheduled --beta2 would be frozen in a graph"
    return None


def _slices(inputs: Tensors, parts: int) -> Iterator[Tensors]:
    """Cut every tensor into `parts` along its first axis; scalars are used by every slice."""
    cut = {name: t.chunk(parts) if t.dim() else (t,) * parts for name, t in inputs.items()}
    return ({name: pieces[i] for name, pieces in cut.items()} for i in range(parts))
