"""A guard between callers and an OpenAI-compatible chat endpoint (`snapjudge proxy`)."""
