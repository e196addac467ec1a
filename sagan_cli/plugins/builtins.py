"""The built-in extensions of every kind: to add one, write its file and its row. Standard library only.

Rows are entry points written in code, so that built-ins and plugins are loaded in the same way. A row holds everything
that a listing shows, so that listing imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

KINDS = (
    "datasets", "architectures", "commands",
    "metrics", "losses", "penalties", "augmentations", "constraints", "loggers", "exporters",
)  # fmt: skip
GROUPS = {kind: f"sagan.{kind}" for kind in KINDS}
"""Kind -> entry-point group."""


class BuiltIn(NamedTuple):
    """One built-in extension, as an entry point names it."""

    name: str
    value: str
    """`module:attribute`."""
    summary: str
    options: Mapping[str, Any] = MappingProxyType({})
    """Of an architecture: the value of each of its options under `auto`."""


_METRICS = "sagan_cli.evaluation.metrics"
_LOSSES = "sagan_cli.objectives.losses"
_AUGMENTATIONS = "sagan_cli.objectives.augmentations"
_TORCHVISION = "sagan_cli.data.sources.torchvision_sets"
# fmt: off
BUILTINS: dict[str, list[BuiltIn]] = {
    "datasets": [
        BuiltIn("quadrupeds", "sagan_cli.quadrupeds:build", "four-legged animals, drawn; the default"),
        BuiltIn("quadrupeds-alone", "sagan_cli.quadrupeds.single_animal:build", "one animal in a wide image, drawn"),
        BuiltIn("cifar10", f"{_TORCHVISION}:cifar10", "CIFAR-10, 10 classes, 32x32"),
        BuiltIn("fashion-mnist", f"{_TORCHVISION}:fashion_mnist", "Fashion-MNIST, 10 classes, 28x28 grey"),
        BuiltIn("mnist", f"{_TORCHVISION}:mnist", "MNIST digits, 10 classes, 28x28 grey"),
        BuiltIn("svhn", f"{_TORCHVISION}:svhn", "Street View house numbers, 10 classes, 32x32"),
        BuiltIn("stl10", f"{_TORCHVISION}:stl10", "STL-10, 10 classes, 96x96"),
        BuiltIn("celeba", f"{_TORCHVISION}:celeba", "CelebA faces, no classes, 178x218"),
    ],
    "architectures": [
        # The attention variant, the ratio of channels and the spectral norm that each was published with.
        BuiltIn("sagan", "sagan_cli.model.sagan:build", "SAGAN as its authors released it; the default",
                {"attention": "official", "attn_ratio": 8, "qk_norm": "none", "spectral_norm": "both",
                 "g_norm": "batch"}),
        BuiltIn("sagan-dcgan", "sagan_cli.model.sagan_dcgan:build", "the PyTorch port's DCGAN-shaped SAGAN",
                {"attention": "port", "attn_ratio": 8, "qk_norm": "none", "spectral_norm": "both"}),
        BuiltIn("sagan-tutorial", "sagan_cli.model.sagan_tutorial:build", "the small SAGAN of the tutorials",
                {"attention": "port", "attn_ratio": 8, "qk_norm": "none", "spectral_norm": "none"}),
        BuiltIn("sagan-cifar", "sagan_cli.model.sagan_cifar:build", "the narrow ResNet SAGAN for CIFAR-10",
                {"attention": "official", "attn_ratio": 8, "qk_norm": "none", "spectral_norm": "both",
                 "g_norm": "batch"}),
        BuiltIn("dcgan", "sagan_cli.model.dcgan:build", "DCGAN (Radford et al. 2016), no attention",
                {"spectral_norm": "none"}),
    ],
    "commands": [
        # The texts of `sagan --help`; the first line of each command's docstring is the same.
        BuiltIn("train", "sagan_cli.commands.train:train", "Train a self-attention GAN on a folder of images."),
        BuiltIn("sample", "sagan_cli.commands.sample:sample", "Draw images from a trained generator."),
        BuiltIn("eval-fid", "sagan_cli.commands.eval_fid:eval_fid", "Score a model or images: FID, KID, IS."),
        BuiltIn("compare", "sagan_cli.commands.compare:compare",
                "Rank scores; stop if they were measured differently."),
        BuiltIn("visualize-attn", "sagan_cli.commands.visualize_attn:visualize_attn",
                "Show attention maps as a figure, page or numbers."),
        BuiltIn("export", "sagan_cli.commands.export:export", "Export a generator to a file, a folder or a web page."),
        BuiltIn("info", "sagan_cli.commands.info:info", "Describe a run; list the published systems."),
        BuiltIn("ablate", "sagan_cli.commands.ablate:ablate", "Find out whether attention improves a model."),
        BuiltIn("import", "sagan_cli.commands.import_:import_", "Import a generator trained with another project."),
        BuiltIn(
            "plugins",
            "sagan_cli.commands.plugins:plugins",
            "List datasets, architectures and all other extensions.",
        ),
    ],
    "metrics": [
        BuiltIn("fid", f"{_METRICS}.fid:METRIC", "Fréchet inception distance"),
        BuiltIn("isc", f"{_METRICS}.inception_score:METRIC", "inception score"),
        BuiltIn("kid", f"{_METRICS}.kid:METRIC", "kernel inception distance"),
        BuiltIn("prc", f"{_METRICS}.precision_recall:METRIC", "precision and recall"),
        BuiltIn("dc", f"{_METRICS}.density_coverage:METRIC", "density and coverage"),
        BuiltIn("memorization", f"{_METRICS}.memorization:METRIC", "whether samples copy training images"),
        BuiltIn("structure", f"{_METRICS}.structure:METRIC", "share of correct images, by the dataset's own checker"),
        BuiltIn("intra_fid", f"{_METRICS}.fid:PER_CLASS", "FID of each class, and their mean"),
    ],
    "losses": [
        BuiltIn("hinge", f"{_LOSSES}:HINGE", "hinge loss, SAGAN's; the default"),
        BuiltIn("non-saturating", f"{_LOSSES}:NON_SATURATING", "cross-entropy, G maximises log D"),
        BuiltIn("minimax", f"{_LOSSES}:MINIMAX", "cross-entropy, G minimises log(1 - D)"),
        BuiltIn("least-squares", f"{_LOSSES}:LEAST_SQUARES", "least squares (LSGAN)"),
        BuiltIn("wasserstein", f"{_LOSSES}:WASSERSTEIN", "difference of means (WGAN)"),
        BuiltIn("relativistic", f"{_LOSSES}:RELATIVISTIC", "cross-entropy of pairs of real and fake images"),
    ],
    "penalties": [
        BuiltIn("r1", "sagan_cli.objectives.penalties:R1", "squared gradient on real images"),
        BuiltIn("r2", "sagan_cli.objectives.penalties:R2", "squared gradient on fake images"),
        BuiltIn("gp", "sagan_cli.objectives.penalties:GP", "gradient penalty of WGAN-GP"),
    ],
    "augmentations": [
        BuiltIn("color", f"{_AUGMENTATIONS}:COLOR", "brightness, saturation and contrast (DiffAugment)"),
        BuiltIn("translation", f"{_AUGMENTATIONS}:TRANSLATION", "translation by up to 1/8 (DiffAugment)"),
        BuiltIn("cutout", f"{_AUGMENTATIONS}:CUTOUT", "a rectangle of half the sides is 0 (DiffAugment)"),
    ],
    "constraints": [BuiltIn("clip", "sagan_cli.objectives.constraints:CLIP", "largest absolute weight (WGAN)")],
    "loggers": [
        BuiltIn("progress", "sagan_cli.loggers:Progress", "progress on standard error; always on"),
        BuiltIn("jsonl", "sagan_cli.loggers:MetricsJsonl", "metrics.jsonl in the run; always on"),
        BuiltIn("diagnosis", "sagan_cli.diagnosis:Diagnosis", "warnings when training fails; always on"),
    ],
    "exporters": [
        BuiltIn("safetensors", "sagan_cli.export.formats:SAFETENSORS", "one file for sagan and PyTorch"),
        BuiltIn("onnx", "sagan_cli.export.formats:ONNX", "one ONNX file"),
        BuiltIn("pt2", "sagan_cli.export.formats:PT2", "a torch.export program"),
        BuiltIn("hf", "sagan_cli.export.formats:HF", "a Hugging Face folder"),
        BuiltIn("web", "sagan_cli.export.formats:WEB", "a web page that draws images"),
    ],
}
# fmt: on
