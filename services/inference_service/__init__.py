"""Model registry and ONNX inference. Owns versions: rows in SQL, and ONNX files named by their content."""
