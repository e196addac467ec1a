"""Generators made portable: one file, a hub folder, ONNX, a torch program, a web page; each proven first."""
