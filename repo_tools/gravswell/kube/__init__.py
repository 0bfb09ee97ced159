"""The Kubernetes API server, as every part of gravswell talks to it: the agent, the operator, the local node.

Its law: mechanism only, and one of each. Nothing here knows what the objects mean; who we are, what an answer's status
means and when to come back are decided here once, for all callers. So is how a watch goes on after a fault, but for the
operator's own kinds: their watches are kopf's, and it looks at all of these anew when kopf had to.

=====================  ================================================================
:mod:`.credentials`    where the API server is and who we are; tokens that rotate
:mod:`.resources`      kinds, and where their objects are in the API
:mod:`.client`         the verbs, on plain documents
:mod:`.watch`          what a list and a watch say
:mod:`.errors`         what an answer's status means
:mod:`.backoff`        waits between attempts
=====================  ================================================================
"""
