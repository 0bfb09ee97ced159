"""Names that parts of the library agree on and that belong to none of them alone."""

PROOF_PREFIX = "gravswell-proof-"
"""Model names under which an agent proves a version before it is served: it unloads what bears one, so no entry may."""
