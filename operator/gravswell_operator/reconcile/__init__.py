"""One module for each kind: observe what the cache holds, decide with the pure parts, apply what differs, write status.

Its law: level-triggered and idempotent. A reconcile reads the cache and never what woke it, so it may be called at any
time, and called twice it writes nothing the second time.
"""
