"""Report: the self-contained HTML page of a run, and the table at the end of one."""

from vilasr_jax.report.page import render_report as render_report
from vilasr_jax.report.table import print_summary as print_summary
from vilasr_jax.report.watch import watch as watch
from vilasr_jax.report.workdir import read_run as read_run
