"""Keras 3 models, on TensorFlow by tf2onnx and on torch by torch's own exporter."""
