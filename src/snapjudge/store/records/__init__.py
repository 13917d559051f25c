"""What a server has to remember: observations and batches that wait, what was judged of them, and what others are still to be told. SQLite."""
