"""Evaluation: the published scorers, intervals, and evaluation of a checkpoint."""
