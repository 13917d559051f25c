"""Language models on OpenAI-compatible endpoints: asked with retries, a price and a memory. Knows nothing of metrics or data sets."""
