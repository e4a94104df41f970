"""Evaluation: the published scorers, intervals, and evaluation of a checkpoint."""

from vilasr_jax.evaluation.evaluate import score_all as score_all
from vilasr_jax.evaluation.evaluate import summarize as summarize
from vilasr_jax.evaluation.evaluate import write_results as write_results
