"""Backbone, prompt, adapter and readout: from an example to label logits. Knows nothing of files of data or of statistics."""
