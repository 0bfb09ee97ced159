"""Boosted trees of XGBoost and LightGBM: read into one form, and from there to ONNX by a converter of our own."""
