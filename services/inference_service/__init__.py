"""Model registry and ONNX inference. Owns versions (SQL, content-addressed files); writes topic models."""
