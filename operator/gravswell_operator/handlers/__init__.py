"""kopf at the edge: what it watches, how it logs in, and how little it may do.

Its law: handlers hand events on and return. kopf watches, resumes and logs in; it keeps nothing of the objects, writes
nothing to them (no finalizers, no annotations) and decides nothing.
"""
