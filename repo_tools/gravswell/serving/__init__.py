"""Serving: the embedded Triton, the agent beside a Triton, and the documents that agent and operator exchange."""
