"""Among how many ConfigMaps a server's agents divide their reports: one holds 1 MiB, about 2,400 models on replicas."""

import math

from gravswell.serving.contracts import MOST_REPORTS, Desired
from gravswell_operator.api import InferenceServer
from gravswell_operator.desired.placement import peak_replicas

TOGETHER = 600
"""Models times replicas whose reports share one ConfigMap: few servers have more, and then none costs more objects."""
EACH = 256
"""Of those that do not, models times replicas in each, on average: the pods' names decide who shares one with whom, and
messages make reports longer."""


def divided(desired: Desired, server: InferenceServer, previous: Desired | None) -> Desired:
    """``desired`` with the number of ConfigMaps that its reports need when the server has all its replicas.

    Never fewer than agents were told before: what is in a ConfigMap that goes would be missing for a moment.
    """
    told = len(desired.models) * peak_replicas(server)
    needed = 1 if told <= TOGETHER else min(2 ** math.ceil(math.log2(told / EACH)), MOST_REPORTS)
    reports = max(needed, previous.reports if previous is not None else 1)
    return desired if reports == desired.reports else desired.model_copy(update={"reports": reports})
