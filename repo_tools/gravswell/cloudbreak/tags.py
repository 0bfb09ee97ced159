"""The labels, in a cloud, of what the operator made there: by them it is found again, and its owner is known.

Lower-case letters, digits, ``-`` and ``_`` only, which every cloud takes.
"""

POOL_ID = "gravswell-pool"
"""The uid of the ``GPUNodePool`` that it was made for."""
CLUSTER_ID = "gravswell-cluster"
"""The uid of the namespace kube-system of the operator's cluster."""
RETAINED = "gravswell-retained"
"""There with the value ``true`` where it shall stay when its ``GPUNodePool`` is deleted (deletionPolicy: Retain)."""
