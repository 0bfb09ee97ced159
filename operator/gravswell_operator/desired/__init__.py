"""What the operator wants: builders of plain Kubernetes objects and documents from typed state.

Its law: pure. No client library, no clock, no environment: everything is an argument, so every builder is a table.
"""
