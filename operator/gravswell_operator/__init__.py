"""The gravswell operator: reconciles ``gravswell.dev`` resources into GPU node pools and Triton deployments.

Its law: imports go one way, handlers → reconcile → {cluster | providers | statuses} → desired → state →
{conditions | quantities | names} → api → errors. ``cluster`` is the only I/O: beside and below it there is no kopf, no
client library, no clock, no environment, so every decision is a function that a table tests.
"""
