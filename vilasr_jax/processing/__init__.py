"""Host side: text, images and conversations to input arrays of a model, with NumPy alone."""

from vilasr_jax.models import VisionInput as VisionInput
from vilasr_jax.processing.batching import Batch as Batch
from vilasr_jax.processing.batching import Buckets as Buckets
from vilasr_jax.processing.batching import collate as collate
from vilasr_jax.processing.batching import empty_batch as empty_batch
from vilasr_jax.processing.chat import Encoded as Encoded
from vilasr_jax.processing.chat import encode_conversation as encode_conversation
from vilasr_jax.processing.chat import encode_turn as encode_turn
from vilasr_jax.processing.chat import join as join
from vilasr_jax.processing.images import check_image as check_image
from vilasr_jax.processing.images import image_grid as image_grid
from vilasr_jax.processing.images import image_size as image_size
from vilasr_jax.processing.images import load_image as load_image
from vilasr_jax.processing.images import patch_layout as patch_layout
from vilasr_jax.processing.images import patchify as patchify
from vilasr_jax.processing.images import resize_image as resize_image
from vilasr_jax.processing.images import smart_resize as smart_resize
from vilasr_jax.processing.packing import Budget as Budget
from vilasr_jax.processing.packing import PackedRow as PackedRow
from vilasr_jax.processing.packing import check_fits as check_fits
from vilasr_jax.processing.packing import collate_packed as collate_packed
from vilasr_jax.processing.packing import pack as pack
from vilasr_jax.processing.tiny_tokenizer import train_tiny_tokenizer as train_tiny_tokenizer
from vilasr_jax.processing.tokenizer import SpecialTokens as SpecialTokens
from vilasr_jax.processing.tokenizer import Tokenizer as Tokenizer
from vilasr_jax.processing.vision_rows import patch_counts as patch_counts
