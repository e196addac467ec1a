"""The conformance kit: checks that a data set or an architecture keeps `sagan_cli.contracts`, for authors' own tests.

    from sagan_cli.testing import check_dataset

    def test_contract(tmp_path):
        check_dataset(my_package.build, tmp_path)

Each check raises AssertionError with a sentence that says what is wrong. PyTorch and NumPy are imported when a check
runs. The built-ins are tested with it too.
"""

from sagan_cli.testing.architectures import check_architecture
from sagan_cli.testing.datasets import check_dataset

__all__ = ["check_architecture", "check_dataset"]
