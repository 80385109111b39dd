"""A trained classifier in the formats of others, each measured against the original."""
