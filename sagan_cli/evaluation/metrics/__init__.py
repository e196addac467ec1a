"""The built-in metrics, each an instance of `contracts.Metric` in a file of this package.

A file imports torch and NumPy inside its functions, so that names and directions are known without them.
"""
