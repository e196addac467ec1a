"""Published systems: one row each, with the settings that the publication fixes. To add a system, add a row.

A row does not contain the scale: width, batch, image size and steps come from the preset, the flags and the data. What
a publication leaves open is not in its row. The EMA of G is in no row, because it does not affect training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagan_cli.config.schema import current_keys, effective
from sagan_cli.errors import UsageError, closest


@dataclass(frozen=True)
class System:
    """One published system, or one control of a publication."""

    name: str
    about: str
    """One line."""
    source: str
    """Publication or code, and the place in it."""
    settings: Mapping[str, Any]
    """Key of a setting -> its value in the source."""

    @property
    def command(self) -> str:
        """Return the command that trains it."""
        return f"sagan train --system {self.name} --data DIR"


def _adam(d_lr: float, g_lr: float, beta1: float, beta2: float) -> dict[str, Any]:
    return {"train.d_lr": d_lr, "train.g_lr": g_lr, "train.beta1": beta1, "train.beta2": beta2}


def _objective(loss: str, *, d_steps: int = 1, gp: float = 0.0, clip: float = 0.0) -> dict[str, Any]:
    # All settings are in every row, so that a changed default does not change a system.
    return {
        "train.loss": loss, "train.d_steps": d_steps, "train.gp": gp, "train.r1": 0.0, "train.clip": clip,
        "train.penalty": "", "train.constraint": "", "train.augment": "", "train.ada": 0.0,
    }  # fmt: skip


def _resnet(attention: str = "official", ratio: str = "8", norm: str = "both") -> dict[str, Any]:
    return {
        "model.arch": "sagan", "model.attention": attention, "model.attn_ratio": ratio, "model.spectral_norm": norm,
    }  # fmt: skip


_TTUR = _adam(4e-4, 1e-4, 0.0, 0.9)
"""Zhang et al. 2019, section 5: two time scales, Adam with betas 0 and 0.9, one update of each network."""
_BLOCK = _objective("hinge") | _TTUR
"""The paper's training, under which attention variants are compared."""
_NO_ATTENTION = {"model.attn_at": "none"}
_DCGAN = {"model.arch": "dcgan", **_NO_ATTENTION, "model.latent": 100}
"""Radford et al. 2016: a latent vector of 100 numbers; the WGAN paper takes over the networks."""

# Comments give the reason where a row differs from common reimplementations.
SYSTEMS: dict[str, System] = {
    row.name: row
    for row in (
        # model.py sets Adam's beta1 = 0 and not beta2, so it is TensorFlow's 0.999; the paper has 0.9.
        System("official", "SAGAN as its authors released it: keys and values pooled, values at C/2, beta 2 0.999",
               "Zhang et al., code brain-research/self-attention-gan: non_local.py, model.py",
               _resnet() | _objective("hinge") | _adam(4e-4, 1e-4, 0.0, 0.999)),
        System("paper", "SAGAN as in the paper's text: no pooling, values at C/8, beta 2 0.9",
               "Zhang et al. 2019 (ICML, arXiv:1805.08318v2), equations 1 to 4 and section 5",
               _resnet("paper") | _BLOCK),
        # Its command line with the hinge loss; it also has a WGAN-GP loss.
        System("port", "the well-known PyTorch port: DCGAN-shaped, attention twice in each network, values at C",
               "code heykeetae/Self-Attention-GAN: sagan_models.py, parameter.py",
               {"model.arch": "sagan-dcgan", "model.attention": "port"} | _objective("hinge") | _TTUR),
        System("cifar", "SAGAN on SNGAN's networks for CIFAR-10, five updates of D, equal rates",
               "code POSTECH-CVLab/PyTorch-StudioGAN: configs/CIFAR10/SAGAN.yaml",
               {"model.arch": "sagan-cifar", "model.attention": "official"} | _objective("hinge", d_steps=5)
               | _adam(2e-4, 2e-4, 0.5, 0.999)),
        System("tutorial", "the small SAGAN of tutorials, fixed: upsampling G, strided D with dropout and batch norm",
               "tutorials after the DCGAN of code eriklindernoren/Keras-GAN, with SAGAN's block put in",
               {"model.arch": "sagan-tutorial", "model.attention": "port", "model.latent": 100}
               | _objective("non-saturating") | _adam(2e-4, 2e-4, 0.5, 0.999)),
        System("rows", "SAGAN's block with values at the full width C and an output convolution, no pooling",
               "Zhang et al. 2018 (arXiv:1805.08318v1) as reimplementations complete it",
               _resnet("rows") | _BLOCK),
        System("nonlocal", "the non-local block, embedded Gaussian, in SAGAN's place: batch norm instead of gamma",
               "Wang et al. 2018 (CVPR, arXiv:1711.07971), equations 4 and 6, section 4.1",
               _resnet("nonlocal") | _BLOCK),
        System("residual", "the paper's control: a residual block of as many weights in the place of attention",
               "Zhang et al. 2019, table 1, the rows 'Residual'",
               _resnet("residual") | _BLOCK),
        System("sngan", "the twin without attention: spectral norm in G and D, two time scales, one update of each",
               "Zhang et al. 2019, table 1, 'no attention'",
               _resnet() | _NO_ATTENTION | _BLOCK),
        System("sngan-d", "SNGAN with projection: spectral norm in D alone, five updates of D, equal rates",
               "Miyato et al. 2018 (arXiv:1802.05957); Miyato and Koyama 2018 (arXiv:1802.05637), section 5",
               _resnet(norm="d") | _NO_ATTENTION | _objective("hinge", d_steps=5) | _adam(2e-4, 2e-4, 0.0, 0.9)),
        System("dcgan", "DCGAN: transposed and strided convolutions, batch norm, neither attention nor spectral norm",
               "Radford et al. 2016 (arXiv:1511.06434), section 4",
               _DCGAN | _objective("non-saturating") | _adam(2e-4, 2e-4, 0.5, 0.999)),
        # The paper's optimiser is RMSProp with PyTorch's alpha of 0.99: Adam without momentum and with that beta 2,
        # but for Adam's correction of the first steps.
        System("wgan", "Wasserstein GAN: DCGAN's networks, D's weights clipped at 0.01, five updates of D",
               "Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1",
               _DCGAN | _objective("wasserstein", d_steps=5, clip=0.01) | _adam(5e-5, 5e-5, 0.0, 0.99)),
        # A penalty on each image's gradient excludes batch norm in D; the residual D has none.
        System("wgan-gp",
               "Wasserstein GAN with gradient penalty 10: residual networks, no spectral norm, five updates of D",
               "Gulrajani et al. 2017 (arXiv:1704.00028), algorithm 1 and section 5",
               _resnet(norm="none") | _NO_ATTENTION | _objective("wasserstein", d_steps=5, gp=10.0)
               | _adam(1e-4, 1e-4, 0.0, 0.9)),
    )
}  # fmt: skip


def find(name: str) -> System:
    """Return the system of a name.

    Raises:
        UsageError: no such system; the message lists all.
    """
    if name not in SYSTEMS:
        wrong = f"--system {name}: no such system{closest(name, SYSTEMS)}"
        raise UsageError(f"{wrong}; there are {', '.join(SYSTEMS)}; 'sagan info --list' describes them")
    return SYSTEMS[name]


PREFIX = "system "
"""Prefix of the source of a value that a system fixes."""


def named_in(sources: Mapping[str, str]) -> str | None:
    """Return the `--system` of a run from the sources of its settings, or None."""
    return next((text.removeprefix(PREFIX) for text in sources.values() if text.startswith(PREFIX)), None)


def departures(name: str, config: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a run's settings differ from the system's; none for an unknown system."""
    fixed = SYSTEMS[name].settings if name in SYSTEMS else {}
    now = effective(current_keys(config))
    return [key for key, value in fixed.items() if now[key] != value]
