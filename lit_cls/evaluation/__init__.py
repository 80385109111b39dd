"""Predictions to conclusions: no training, no model."""
