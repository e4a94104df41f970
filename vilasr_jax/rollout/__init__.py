"""Multi-turn generation with drawing in the loop, over a live KV cache."""

from vilasr_jax.rollout.conversation import Cancelled as Cancelled
from vilasr_jax.rollout.conversation import Request as Request
from vilasr_jax.rollout.conversation import make_prompt as make_prompt
from vilasr_jax.rollout.engine import Engine as Engine
from vilasr_jax.rollout.redrawn import RedrawnImages as RedrawnImages
from vilasr_jax.rollout.redrawn import redrawn as redrawn
from vilasr_jax.rollout.redrawn import without_images as without_images
from vilasr_jax.rollout.sampling import allowed_logits as allowed_logits
from vilasr_jax.rollout.sampling import suppressed_tokens as suppressed_tokens
from vilasr_jax.rollout.trajectory import Trajectory as Trajectory
from vilasr_jax.rollout.transcript import messages_of as messages_of
