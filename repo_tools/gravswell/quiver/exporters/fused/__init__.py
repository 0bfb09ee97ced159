"""Many models in one graph, of which each row of a batch reaches the one that it names.

What follows what: each model alone, exported and proved as ever (:mod:`.singles`); all in the same opset
(:mod:`.levels`); one set of inputs and outputs for all (:mod:`.interface`); what several have in common, once
(:mod:`.sharing`); the graph (:mod:`.routing`); the batches that prove it (:mod:`.batches`, :mod:`.exact`).
"""
