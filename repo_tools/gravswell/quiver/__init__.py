"""The library: repositories of verified model versions. ``from gravswell import quiver as qv``.

Its law is the order of its layers: repository → entry → {stores | exporters} → {layout, config} → platform → errors.
ONNX and frameworks are imported only inside :mod:`gravswell.quiver.exporters`, which is imported when it is used.
"""
