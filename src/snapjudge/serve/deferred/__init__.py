"""What is judged later: observations, files, batches and schedules, kept in a folder that outlives the server."""
