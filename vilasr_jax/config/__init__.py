"""Typed configuration of every job.

A file in `configs/` builds a `JobConfig` and returns `to_config_dict(job)`: a locked
`ml_collections.ConfigDict` that the command line overrides key by key. `from_config_dict` reads it back
strictly: a key that does not exist, or a value of another type, is a `ConfigError`.

Limits of a value are declared with its field (`setting`), rules between values in a method `check` of their
section; `check_section` checks both.
"""

from vilasr_jax.config.comments import config_keys as config_keys
from vilasr_jax.config.comments import key_comments as key_comments
from vilasr_jax.config.data import DATA_FOLDERS as DATA_FOLDERS
from vilasr_jax.config.data import DataSection as DataSection
from vilasr_jax.config.data import DrawingSection as DrawingSection
from vilasr_jax.config.data import MakeSection as MakeSection
from vilasr_jax.config.data import MazeSection as MazeSection
from vilasr_jax.config.data import SceneSection as SceneSection
from vilasr_jax.config.fields import check_section as check_section
from vilasr_jax.config.fields import setting as setting
from vilasr_jax.config.job import TRAINED as TRAINED
from vilasr_jax.config.job import WEIGHTS as WEIGHTS
from vilasr_jax.config.job import JobConfig as JobConfig
from vilasr_jax.config.job import with_weights as with_weights
from vilasr_jax.config.model import BucketSection as BucketSection
from vilasr_jax.config.model import ImageSection as ImageSection
from vilasr_jax.config.model import MeshSection as MeshSection
from vilasr_jax.config.model import ModelSection as ModelSection
from vilasr_jax.config.model import PackingSection as PackingSection
from vilasr_jax.config.reading import config_files as config_files
from vilasr_jax.config.reading import differences as differences
from vilasr_jax.config.reading import flatten as flatten
from vilasr_jax.config.reading import from_config_dict as from_config_dict
from vilasr_jax.config.reading import read_config as read_config
from vilasr_jax.config.reading import split_config_path as split_config_path
from vilasr_jax.config.reading import to_config_dict as to_config_dict
from vilasr_jax.config.reading import to_dict as to_dict
from vilasr_jax.config.renamed import new_key as new_key
from vilasr_jax.config.renamed import with_new_keys as with_new_keys
from vilasr_jax.config.sampling import EngineSection as EngineSection
from vilasr_jax.config.sampling import EvalSection as EvalSection
from vilasr_jax.config.sampling import SamplingSection as SamplingSection
from vilasr_jax.config.sampling import SynthesisSection as SynthesisSection
from vilasr_jax.config.training import ColdStartSection as ColdStartSection
from vilasr_jax.config.training import OptimizerSection as OptimizerSection
from vilasr_jax.config.training import ReflectSection as ReflectSection
from vilasr_jax.config.training import RLSection as RLSection
from vilasr_jax.config.training import SoftDrawingSection as SoftDrawingSection
