"""Judges that answer live traffic: a roster that changes under it, and engines in processes of their own that may die and come back.

Above the models and below guards and servers. Knows nothing of HTTP.
"""
