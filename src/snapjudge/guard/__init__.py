"""Rules over judgements that end in an action. `evaluate` decides and touches nothing; `guarding` asks the judges and does what was decided.

Knows nothing of HTTP servers.
"""
