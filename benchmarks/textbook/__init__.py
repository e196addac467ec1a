"""SAGAN as blogs and ports write it, in our own words: what `sagan` is measured against.

Nothing here is tuned, and nothing is slowed down: modules that follow the figures, PyTorch's own spectral-norm hook on
each layer, attention by explicit matrix products, NCHW, fp32, Adam as it comes. `tests/benchmarks/test_textbook.py`
shows that both networks compute the same function as those of `sagan_cli`, from equal weights, in float64.
"""
