"""Synthetic sets as TFDS datasets in ArrayRecord files, without TensorFlow: builders, making, reading."""

from vilasr_jax.tasks.dataset.builder import Maze as Maze
from vilasr_jax.tasks.dataset.builder import Multiview as Multiview
from vilasr_jax.tasks.dataset.builder import Static as Static
from vilasr_jax.tasks.dataset.builder import Video as Video
from vilasr_jax.tasks.dataset.generate import make_data as make_data
from vilasr_jax.tasks.dataset.read import DatasetRow as DatasetRow
from vilasr_jax.tasks.dataset.read import DatasetRows as DatasetRows
from vilasr_jax.tasks.dataset.read import DatasetTraces as DatasetTraces
from vilasr_jax.tasks.dataset.read import dataset_digest as dataset_digest
