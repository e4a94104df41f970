"""Importers of published data to the program's own rows."""

from vilasr_jax.tasks.importers.run import BROKEN as BROKEN
from vilasr_jax.tasks.importers.run import FORMATS as FORMATS
from vilasr_jax.tasks.importers.run import import_data as import_data
