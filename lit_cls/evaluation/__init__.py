"""Predictions to figures: no training, no model."""
