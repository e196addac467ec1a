"""The built-in extensions of every kind: to add one, write its file and its row. Standard library only.

Rows are entry points written in code, so that built-ins and plugins are loaded in the same way. A row holds everything
that a listing shows, so that listing imports nothing.
"""

from __future__ import annotations

from typing import NamedTuple

KINDS = (
    "datasets", "architectures", "commands",
    "metrics", "losses", "penalties", "augmentations", "constraints", "loggers", "exporters",
)  # fmt: skip
GROUPS = {kind: f"sagan.{kind}" for kind in KINDS}
"""Kind -> entry-point group."""


class Point(NamedTuple):
    """An entry point; `importlib.metadata` has a class for it, and takes as long to import as a third of typer."""

    name: str
    value: str
    """`module:attribute`."""
    summary: str


_METRICS = "sagan_cli.evaluation.metrics"
_LOSSES = "sagan_cli.objectives.losses"
_TORCHVISION = "sagan_cli.data.sources.torchvision_sets"
BUILTINS: dict[str, list[Point]] = {
    "datasets": [
        Point("quadrupeds", "sagan_cli.quadrupeds:build", "four-legged animals, drawn; the default"),
        Point("quadrupeds-alone", "sagan_cli.quadrupeds.single_animal:build", "one animal in a wide picture, drawn"),
        Point("cifar10", f"{_TORCHVISION}:cifar10", "CIFAR-10, 10 classes, 32x32"),
        Point("fashion-mnist", f"{_TORCHVISION}:fashion_mnist", "Fashion-MNIST, 10 classes, 28x28 grey"),
        Point("mnist", f"{_TORCHVISION}:mnist", "MNIST digits, 10 classes, 28x28 grey"),
        Point("svhn", f"{_TORCHVISION}:svhn", "Street View house numbers, 10 classes, 32x32"),
        Point("stl10", f"{_TORCHVISION}:stl10", "STL-10, 10 classes, 96x96"),
        Point("celeba", f"{_TORCHVISION}:celeba", "CelebA faces, no classes, 178x218"),
    ],
    "architectures": [
        Point("sagan", "sagan_cli.model.sagan:build", "SAGAN as its authors released it; the default"),
        Point("sagan-dcgan", "sagan_cli.model.sagan_dcgan:build", "the PyTorch port's DCGAN-shaped SAGAN"),
        Point("sagan-tutorial", "sagan_cli.model.sagan_tutorial:build", "the small SAGAN of the tutorials"),
        Point("sagan-cifar", "sagan_cli.model.sagan_cifar:build", "the narrow ResNet SAGAN for CIFAR-10"),
        Point("dcgan", "sagan_cli.model.dcgan:build", "DCGAN (Radford et al. 2016), no attention"),
    ],
    "commands": [
        # What stands in `sagan --help`; the first line of the command's docstring says the same.
        Point("train", "sagan_cli.commands.train:train", "Train a self-attention GAN on a folder of images."),
        Point("sample", "sagan_cli.commands.sample:sample", "Draw images from a trained generator."),
        Point("eval-fid", "sagan_cli.commands.eval_fid:eval_fid", "Score a model or images: FID, KID, IS."),
        Point("compare", "sagan_cli.commands.compare:compare", "Rank scores; stop if they were measured differently."),
        Point("visualize-attn", "sagan_cli.commands.visualize_attn:visualize_attn", "Show attention maps."),
        Point("export", "sagan_cli.commands.export:export", "Export a generator to a file, a folder or a web page."),
        Point("info", "sagan_cli.commands.info:info", "Describe a run; list the published systems."),
        Point("ablate", "sagan_cli.commands.ablate:ablate", "Find out whether attention improves a model."),
        Point("import", "sagan_cli.commands.import_:import_", "Import a generator trained with another project."),
        Point(
            "plugins",
            "sagan_cli.commands.plugins:plugins",
            "List datasets, architectures and all other extensions.",
        ),
    ],
    "metrics": [
        Point("fid", f"{_METRICS}.fid:METRIC", "Fréchet inception distance"),
        Point("isc", f"{_METRICS}.inception_score:METRIC", "inception score"),
        Point("kid", f"{_METRICS}.kid:METRIC", "kernel inception distance"),
        Point("prc", f"{_METRICS}.precision_recall:METRIC", "precision and recall"),
        Point("structure", f"{_METRICS}.structure:METRIC", "share of correct images, by the dataset's own checker"),
        Point("intra_fid", f"{_METRICS}.fid:PER_CLASS", "FID of each class, and their mean"),
    ],
    "losses": [
        Point("hinge", f"{_LOSSES}:HINGE", "hinge loss, SAGAN's; the default"),
        Point("non-saturating", f"{_LOSSES}:NON_SATURATING", "cross-entropy, G maximises log D"),
        Point("minimax", f"{_LOSSES}:MINIMAX", "cross-entropy, G minimises log(1 - D)"),
        Point("least-squares", f"{_LOSSES}:LEAST_SQUARES", "least squares (LSGAN)"),
        Point("wasserstein", f"{_LOSSES}:WASSERSTEIN", "difference of means (WGAN)"),
        Point("relativistic", f"{_LOSSES}:RELATIVISTIC", "cross-entropy of pairs of real and fake images"),
    ],
    "penalties": [
        Point("r1", "sagan_cli.objectives.penalties:R1", "squared gradient on real images"),
        Point("r2", "sagan_cli.objectives.penalties:R2", "squared gradient on fake images"),
        Point("gp", "sagan_cli.objectives.penalties:GP", "gradient penalty of WGAN-GP"),
    ],
    "augmentations": [],
    "constraints": [Point("clip", "sagan_cli.objectives.constraints:CLIP", "largest absolute weight (WGAN)")],
    "loggers": [
        Point("progress", "sagan_cli.loggers.progress:Progress", "progress on standard error; always on"),
        Point("jsonl", "sagan_cli.loggers.metrics_jsonl:MetricsJsonl", "metrics.jsonl in the run; always on"),
    ],
    "exporters": [
        Point("safetensors", "sagan_cli.export.formats:SAFETENSORS", "one file for sagan and PyTorch"),
        Point("onnx", "sagan_cli.export.formats:ONNX", "one ONNX file"),
        Point("pt2", "sagan_cli.export.formats:PT2", "a torch.export program"),
        Point("hf", "sagan_cli.export.formats:HF", "a Hugging Face folder"),
        Point("web", "sagan_cli.export.formats:WEB", "a web page that draws images"),
    ],
}
