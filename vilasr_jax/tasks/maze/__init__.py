"""Maze navigation: moves that walls may block, and four lettered cells, one of them the end."""

from vilasr_jax.tasks.maze.generate import make_maze as make_maze
from vilasr_jax.tasks.maze.generate import make_maze_row as make_maze_row
from vilasr_jax.tasks.maze.maze import Maze as Maze
from vilasr_jax.tasks.maze.perception import KINDS as KINDS
from vilasr_jax.tasks.maze.perception import perception_example as perception_example
from vilasr_jax.tasks.maze.phrases import corpus as corpus
from vilasr_jax.tasks.maze.phrases import template_phrases as template_phrases
from vilasr_jax.tasks.maze.picture import draw_maze as draw_maze
from vilasr_jax.tasks.maze.spec import LOOKS as LOOKS
from vilasr_jax.tasks.maze.spec import Look as Look
from vilasr_jax.tasks.maze.spec import MazeSpec as MazeSpec
from vilasr_jax.tasks.maze.traces import direct_trace as direct_trace
from vilasr_jax.tasks.maze.traces import expert_trace as expert_trace
from vilasr_jax.tasks.maze.traces import text_trace as text_trace
