"""Evaluation results as pages, plots and console tables."""
