"""Entries that are made of others' versions: pipelines, as the repository knows them.

Its law: a pipeline names its members by number, and its manifest by digest too, so that what is proved is what is
served; and a version that a pipeline needs is not removed before it. How pipelines are written is not known here
(:mod:`gravswell.pipelines`).

:mod:`~gravswell.quiver.composition.config` reads and writes what a configuration says of members,
:mod:`~gravswell.quiver.composition.holding` keeps them, :mod:`~gravswell.quiver.composition.opening` runs a published
version here: a graph in ONNX Runtime, an ensemble step by step, Python in an interpreter of its own.
:mod:`~gravswell.quiver.composition.proving` compares one so with its reference before it is published.
"""
