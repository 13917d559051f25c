"""Other people's protocols, one file each, so that their official clients work unchanged against this server.

A wire reads its own body, asks the same judges as the native API, and answers in its own shape. `material` and `questions` are what they share.
"""
