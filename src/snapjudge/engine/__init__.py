"""The engine: token ids, adapter names and a deadline in, label logits out."""
