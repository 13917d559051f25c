"""The verbs, one function each with a typed result. Knows nothing of terminals or HTTP."""
