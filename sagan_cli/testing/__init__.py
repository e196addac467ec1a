"""Conformance checks of extensions against `sagan_cli.contracts`, for the tests of their authors.

    from sagan_cli.testing import check_dataset

    def test_contract(tmp_path):
        check_dataset(my_package.build, tmp_path)

Each check raises AssertionError with a message about the first violation; exceptions of the extension propagate.
PyTorch and NumPy are imported when a check runs. The built-ins are tested with the same checks.
"""

from sagan_cli.testing.architectures import check_architecture
from sagan_cli.testing.datasets import check_dataset
from sagan_cli.testing.extensions import (
    CHECKS,
    check_augmentation,
    check_constraint,
    check_exporter,
    check_logger,
    check_loss,
    check_metric,
    check_penalty,
)

__all__ = [
    "CHECKS", "check_architecture", "check_augmentation", "check_constraint", "check_dataset", "check_exporter",
    "check_logger", "check_loss", "check_metric", "check_penalty",
]  # fmt: skip
