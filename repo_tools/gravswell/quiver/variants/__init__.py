"""Variants: versions of lower precision, made of one that is published, with their error measured and bounded.

A variant is the next version of the same entry: its tensors are the parent's, float32 ones too, so that clients see no
difference. Its golden batches are the parent's, with the framework's own outputs, and its ``max_error`` is the
tolerance by which they are compared, here and by every server that is to serve it: processors that round 8-bit products
otherwise, or compute in float16 what the CPU computes in float32, are held to the same promise.

ONNX Runtime's own converters do the work. It imports ONNX, so the rest of the library imports it only to quantize.
"""

from gravswell.quiver.variants.convert import Kind
from gravswell.quiver.variants.making import MAX_ERRORS, Quantized, quantize

__all__ = ["MAX_ERRORS", "Kind", "Quantized", "quantize"]
