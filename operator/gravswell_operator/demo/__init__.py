"""``gravswell demo``: the whole way, once, from a trained network to a scaled server, with real parts.

Its law: it tells a story with the pieces that users have (the library, the embedded Triton, the development cluster,
the operator as its own process) and has no way of its own to do what they do.
"""
