"""The local node: a small node agent whose pods are child processes, without root, namespaces or a container engine.

Its law: what a kubelet would say is said only when it is so. A pod's status, conditions, events and logs come from the
processes and probes themselves; what this node cannot do (an unknown image, a volume that needs a mount) is refused in
the pod's status, with the reason. Modules with decisions (``images``, ``rewriting``, ``environment``, ``states``) do no
I/O of their own.

What differs from a real node, on purpose: pods share the machine's files, users and processes; resource limits,
security contexts and read-only mounts are not enforced; GPUs are simulated. Volumes are folders, and the paths at which
a container expects them are rewritten in its command, arguments and environment.

There is no ``kubectl exec``, ``attach`` or ``port-forward`` (the answer says what to do instead); logs have no times.
"""
