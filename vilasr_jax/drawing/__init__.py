"""Drawing: the action grammar, the overlay and its renderer, and one conversation's session."""

from vilasr_jax.drawing.actions import ParsedTurn as ParsedTurn
from vilasr_jax.drawing.actions import parse_actions as parse_actions
from vilasr_jax.drawing.actions import tagged_answer as tagged_answer
from vilasr_jax.drawing.calls import Box as Box
from vilasr_jax.drawing.calls import Call as Call
from vilasr_jax.drawing.calls import Line as Line
from vilasr_jax.drawing.formats import ActionFormat as ActionFormat
from vilasr_jax.drawing.formats import get_format as get_format
from vilasr_jax.drawing.metrics import drawing_metrics as drawing_metrics
from vilasr_jax.drawing.metrics import metric_sums as metric_sums
from vilasr_jax.drawing.overlay import Applied as Applied
from vilasr_jax.drawing.overlay import Overlay as Overlay
from vilasr_jax.drawing.prompts import PROMPTS as PROMPTS
from vilasr_jax.drawing.render import render as render
from vilasr_jax.drawing.session import DrawingSession as DrawingSession
from vilasr_jax.drawing.session import DrawingSettings as DrawingSettings
from vilasr_jax.drawing.session import Reply as Reply
from vilasr_jax.drawing.session import joined as joined
from vilasr_jax.drawing.style import STYLES as STYLES
from vilasr_jax.drawing.style import Style as Style
from vilasr_jax.drawing.style import get_style as get_style
from vilasr_jax.drawing.tools import PUBLISHED as PUBLISHED
from vilasr_jax.drawing.tools import TOOLS as TOOLS
from vilasr_jax.drawing.tools import get_tools as get_tools
