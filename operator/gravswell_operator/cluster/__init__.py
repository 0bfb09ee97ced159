"""Cluster I/O: the API server's client, what was seen of the cluster, the work queue, the lease, events.

Its law: mechanism only. Nothing here knows what a server or a pool should be; it may know what kinds there are.
"""
