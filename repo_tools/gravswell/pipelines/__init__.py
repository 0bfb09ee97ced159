"""Many models as one: pipelines written as Python functions. ``from gravswell import quiver as qv; qv.pipeline``.

Its law: a pipeline is checked when it is written, and published as every version is: proved first, then all at once.
How the repository knows pipelines is in :mod:`gravswell.quiver.composition`; what runs them in a server is
:mod:`gravswell.pipelines.runtime` and :mod:`gravswell.pipelines.calling`, two files that are published with each.
"""

from gravswell.pipelines.authoring import Pipeline, pipeline
from gravswell.pipelines.calling import Member, Outputs

__all__ = ["Member", "Outputs", "Pipeline", "pipeline"]
