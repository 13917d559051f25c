"""The nouns of the project as frozen values. Knows nothing of torch, files, networks or terminals."""
