"""The gravswell operator: reconciles ``gravswell.dev`` resources into GPU node pools and Triton deployments.

Its law: imports go one way, handlers → reconcile → {cluster | providers} → {desired | conditions | plan} →
{state | names} → api → errors. Below ``cluster`` there is no kopf, no client library, no clock, no environment.
"""
