"""The agent: the process beside one Triton that brings versions to it, proves them and says what is really loaded.

Its law: it talks to the repository, to its own Triton and to the ConfigMaps of its server, and to nothing else. What is
loaded is what Triton says, what is on disk is what the folder holds; memory and the state file only spare work that
could be done again. Decisions (:mod:`.decide`, :mod:`.loadconfig`, :mod:`.health`) are pure; the rest carries them out.

=================  ====================================================================================
:mod:`.desired`    where the desired state comes from: a ConfigMap, a file, or the repository's latest
:mod:`.decide`     desired + loaded + local → the next step for each model
:mod:`.folder`     the models folder: staged by digest, placed by rename
:mod:`.supply`     from the repository into the models folder, every byte checked
:mod:`.nodecache`  verified versions on a volume that outlives pods
:mod:`.keeping`    what serves goes into it, and what is wanted stays
:mod:`.loadconfig` the config that Triton gets at load, as an override of what the version published
:mod:`.triton`     Triton's control and inference APIs
:mod:`.prove`      golden tensors, reproduced by the Triton that will serve them
:mod:`.hanging`    calls into a volume that may never return
:mod:`.health`     when a failed probe is proof of a dead backend process
:mod:`.view`       what one Triton says of itself
:mod:`.failures`   the errors of disk, repository and Triton as reasons of the report
:mod:`.private`    golden proofs under private names, before any traffic
:mod:`.members`    what pipelines are made of, under private names
:mod:`.patience`   waits for a Triton that may never answer
:mod:`.steps`      fetch, verify, load, infer: each whole or not at all
:mod:`.ledger`     what is noted of each model, and the pod's readiness
:mod:`.worker`     look, decide, do one step, look again: for one model
:mod:`.reconciler` the loop: a look at Triton, and a worker for each model that needs one
:mod:`.reporting`  the report, and its way into the ConfigMap
:mod:`.server`     ``/readyz``, ``/livez``, ``/report``, ``/metrics``
:mod:`.lister`     the other program of the same image: what a repository holds, for the operator
=================  ====================================================================================
"""
