"""Transformer families, one file each."""
