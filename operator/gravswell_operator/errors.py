"""The operator's own error; what the API server answers is in :mod:`gravswell.kube.errors`."""

from gravswell.errors import UnavailableError


class LeaseLostError(UnavailableError):
    """The operator could not renew its lease in time, so another one may be active; this one must end."""
