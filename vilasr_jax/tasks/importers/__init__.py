"""Importers of published data and of a user's own pictures to the program's own rows."""

from vilasr_jax.tasks.importers.marks import Canvas as Canvas
from vilasr_jax.tasks.importers.run import BROKEN as BROKEN
from vilasr_jax.tasks.importers.run import FORMATS as FORMATS
from vilasr_jax.tasks.importers.run import PICTURES as PICTURES
from vilasr_jax.tasks.importers.run import evaluation_files as evaluation_files
from vilasr_jax.tasks.importers.run import find_files as find_files
from vilasr_jax.tasks.importers.run import import_data as import_data
from vilasr_jax.tasks.importers.run import read_pictures as read_pictures
