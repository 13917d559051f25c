"""Examples in: reading, checking and splitting labelled data. Knows nothing of models."""
