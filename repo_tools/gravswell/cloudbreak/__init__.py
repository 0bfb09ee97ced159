"""Cloud clusters and node pools: as a library for people and notebooks, and as what the operator's providers call.

====================  ======================================================================
:mod:`.machines`      which machines a GPU comes with; stands on nothing
:mod:`.errors`        what a cloud answers, as members of the library's tree of errors
:mod:`.waiting`       bounded waits with back-off, and how they are shown
:mod:`.manifests`     templates of Kubernetes objects, and the values that are put into them
:mod:`.kubernetes`    what a notebook does with a cluster's API server, blocking
:mod:`.google`        Google Kubernetes Engine; needs the extra ``gke``
====================  ======================================================================
"""
