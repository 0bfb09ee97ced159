"""Partitions: one model for several ranks, each of which holds a part of it.

:func:`partition` cuts a graph and proves that the parts together answer as the whole; :class:`Partition` saves them to
a folder, with a manifest for each rank, or publishes them as one entry.

Its law: what decides where to cut (:mod:`.cuts`, :mod:`.sharding`) is pure; what is written down (:mod:`.records`) is
read without ONNX, as whoever runs a rank or asks them all needs it.
"""

from gravswell.partitions.making import Partition, partition
from gravswell.partitions.records import Plan, RankManifest

__all__ = ["Partition", "Plan", "RankManifest", "partition"]
