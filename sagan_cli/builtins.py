"""The built-in data sets, architectures and commands: to add one, write its file and its line. Standard library only.

They are entry points written in code: one path for them and for plugins, and never stale in an editable installation.
"""

from __future__ import annotations

from importlib import metadata

GROUPS = {"datasets": "sagan.datasets", "architectures": "sagan.architectures", "commands": "sagan.commands"}
"""Kind -> entry-point group."""


def _own(kind: str, name: str, value: str, summary: str = "") -> tuple[metadata.EntryPoint, str]:
    return metadata.EntryPoint(name, value, GROUPS[kind]), summary


_TORCHVISION = "sagan_cli.data.torchvision_sets"
BUILTINS: dict[str, list[tuple[metadata.EntryPoint, str]]] = {
    "datasets": [
        _own("datasets", "quadrupeds", "sagan_cli.data.quadrupeds:build", "four-legged animals, drawn; the default"),
        _own("datasets", "cifar10", f"{_TORCHVISION}:cifar10", "CIFAR-10, 10 classes, 32x32"),
        _own("datasets", "fashion-mnist", f"{_TORCHVISION}:fashion_mnist", "Fashion-MNIST, 10 classes, 28x28 grey"),
        _own("datasets", "mnist", f"{_TORCHVISION}:mnist", "MNIST digits, 10 classes, 28x28 grey"),
        _own("datasets", "svhn", f"{_TORCHVISION}:svhn", "Street View house numbers, 10 classes, 32x32"),
        _own("datasets", "stl10", f"{_TORCHVISION}:stl10", "STL-10, 10 classes, 96x96"),
        _own("datasets", "celeba", f"{_TORCHVISION}:celeba", "CelebA faces, no classes, 178x218"),
    ],
    "architectures": [
        _own("architectures", "sagan", "sagan_cli.model.sagan:build", "SAGAN as its authors released it; the default"),
        _own("architectures", "sagan-dcgan", "sagan_cli.model.port:build", "the PyTorch port's DCGAN-shaped SAGAN"),
        _own("architectures", "sagan-tutorial", "sagan_cli.model.tutorial:build", "the small SAGAN of the tutorials"),
        _own("architectures", "sagan-cifar", "sagan_cli.model.cifar:build", "the narrow ResNet SAGAN for CIFAR-10"),
        _own("architectures", "dcgan", "sagan_cli.model.dcgan:build", "DCGAN (Radford et al. 2016), no attention"),
    ],
    "commands": [
        # A command's help line is the first line of its docstring.
        _own("commands", "train", "sagan_cli.commands.train:train"),
        _own("commands", "sample", "sagan_cli.commands.sample:sample"),
        _own("commands", "eval-fid", "sagan_cli.commands.eval_fid:eval_fid"),
        _own("commands", "compare", "sagan_cli.commands.compare:compare"),
        _own("commands", "visualize-attn", "sagan_cli.commands.visualize_attn:visualize_attn"),
        _own("commands", "export", "sagan_cli.commands.export:export"),
        _own("commands", "info", "sagan_cli.commands.info:info"),
        _own("commands", "ablate", "sagan_cli.commands.ablate:ablate"),
        _own("commands", "import", "sagan_cli.commands.import_:import_"),
        _own("commands", "plugins", "sagan_cli.commands.plugins:plugins"),
    ],
}
