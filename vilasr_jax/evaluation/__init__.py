"""Evaluation: the published scorers and means, intervals, results files, and comparison of runs."""

from vilasr_jax.evaluation.compare import compare as compare
from vilasr_jax.evaluation.results import ResultsFile as ResultsFile
from vilasr_jax.evaluation.results import figures as figures
from vilasr_jax.evaluation.results import result_line as result_line
from vilasr_jax.evaluation.results import write_results as write_results
from vilasr_jax.evaluation.score_file import ScoredRun as ScoredRun
from vilasr_jax.evaluation.score_file import read_results as read_results
from vilasr_jax.evaluation.score_file import score_lines as score_lines
from vilasr_jax.evaluation.summary import score_all as score_all
from vilasr_jax.evaluation.summary import summarize as summarize
from vilasr_jax.evaluation.tables import print_comparison as print_comparison
from vilasr_jax.evaluation.tables import print_scores as print_scores
