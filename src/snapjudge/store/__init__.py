"""Things on disk: judge bundles. Knows nothing of models or statistics."""
