"""Pure functions on tensors, one equation a file; they know no module, file or flag."""
