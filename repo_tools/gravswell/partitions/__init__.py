"""Partitions: one model for several ranks, each of which holds a part of it.

:func:`partition` cuts a graph and proves that the parts together answer as the whole; :class:`Partition` saves them to
a folder, with a manifest for each rank, or publishes them as one entry. :func:`run_rank` is one rank, in a process of
its own; :class:`RankedClient` asks ranks that are served on a server each.

Its law: what decides where to cut (:mod:`.cuts`, :mod:`.sharding`) is pure; what is written down (:mod:`.records`) is
all that ranks and clients know of it.
"""

from gravswell.partitions.client import RankedClient
from gravswell.partitions.making import partition
from gravswell.partitions.partitioned import Partition
from gravswell.partitions.records import Plan, RankManifest
from gravswell.partitions.running import RankReport, Setting, run_rank

__all__ = ["Partition", "Plan", "RankManifest", "RankReport", "RankedClient", "Setting", "partition", "run_rank"]
