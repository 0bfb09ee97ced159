"""What the operator says of an object: its conditions and status fields, decided from typed state.

Its law: pure, as ``desired``. Each module is a list of facts in the order in which a person would want to hear them.
"""
