"""The HTTP server: judges in front of live traffic. Each file is one side of it; `app` puts them together, `run` runs them."""
