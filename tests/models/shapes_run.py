"""Calls what `models`, `losses` and `sampling` annotate with shapes; the calls are checked.

Run by `test_shapes.py` in a process of its own: annotations are checked only in modules that are imported
inside the hook. Prints, as JSON, the annotated functions that were not called.
"""

import ast
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh

import tests.models.typechecker  # noqa: F401  # the hook finds it by its name

CHECKED = ("vilasr_jax.models", "vilasr_jax.training.losses", "vilasr_jax.rollout.sampling")
KINDS = ("Bool", "Float", "Int", "Int32", "Shaped")

with jaxtyping.install_import_hook(CHECKED, "tests.models.typechecker.check"):
    import vilasr_jax
    from tests import tiny
    from tests.models.small import QWEN3_SMALL, SMALL, image_rows, text_batch
    from vilasr_jax.config import SamplingSection
    from vilasr_jax.config.training import POLICY_LOSSES, SFT_LOSSES
    from vilasr_jax.models.hf_tensors import HFTensor
    from vilasr_jax.models.params import build
    from vilasr_jax.models.products import gather_rows, matrix_form, multiply, pack, unpacked
    from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL, VisionInput, init_cache
    from vilasr_jax.models.transformer.positions import mrope_positions
    from vilasr_jax.processing import Batch
    from vilasr_jax.rollout.sampling import allowed_logits, sample, suppressed_tokens
    from vilasr_jax.training import losses

PACKAGE = Path(vilasr_jax.__file__).parent


def annotated() -> set[str]:
    """`file:qualified name` of every function with a shape in its signature."""
    files = [*PACKAGE.glob("models/**/*.py"), PACKAGE / "training/losses.py", PACKAGE / "rollout/sampling.py"]
    found = set()

    def visit(node: ast.AST, path: Path, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                if not any(getattr(base, "id", "") == "Protocol" for base in child.bases):
                    visit(child, path, f"{name}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                signature = [*child.args.args, *child.args.kwonlyargs]
                text = " ".join(ast.unparse(a.annotation) for a in signature if a.annotation)
                text += f" {ast.unparse(child.returns)}" if child.returns else ""
                if any(f"{kind}[" in text for kind in KINDS):
                    found.add(f"{path.relative_to(PACKAGE)}:{name}{child.name}")

    for path in files:
        if path.name != "family.py":  # a protocol, and a base class that does nothing
            visit(ast.parse(path.read_text()), path, "")
    return found


def call_model(config=SMALL, **changes) -> None:
    """Training, generation and the output head of a small model, traced."""
    config = config.replace(**changes)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: build(config)))
    tokens, positions, segments = map(jnp.asarray, text_batch(2, 11))
    picture = image_rows([(1, 18, 22)], 400, config=config)
    vision = VisionInput(*(jnp.concatenate([a, a]) for a in picture))
    index = jnp.where(jnp.arange(11) < 7, jnp.arange(11), -1)[None].repeat(2, 0)

    def train(params):
        model = nnx.merge(graphdef, params)
        model.gather_head()
        return model.logits(model(tokens, positions, segments, index, vision)).sum()

    def generate(params):
        model = nnx.merge(graphdef, params)
        vision_tokens = model.encode_vision(vision)
        cache = init_cache(config, 2, 13)
        for part in (slice(0, 3), slice(3, 4)):
            x = model.embed(tokens[:, part], index[:, part], vision_tokens)
            hidden, cache = model.extend(x, positions[..., part], jnp.ones(x.shape[:2], bool), cache)
        cache = init_cache(config, 3, 17).copy_rows(cache, jnp.array([2]), jnp.array([1]))
        plain = model.apply_layers(x, positions[..., part], lambda q, k, v: q)
        return model.logits(hidden), model.logits(plain), cache

    jax.eval_shape(jax.grad(train), params)
    if not config.context_parallel:
        jax.eval_shape(generate, params)


def call_losses() -> None:
    """The losses of a batch of 2 rows of 11 tokens."""
    tokens, positions, segments = text_batch(2, 11)
    mask = np.tile(np.arange(11) % 2 == 0, (2, 1))
    no_image = np.full((2, 11), -1, np.int32)
    batch = Batch(*map(jnp.asarray, (tokens, positions, segments, no_image)), None, jnp.asarray(mask), {})
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Qwen2_5_VL(SMALL, rngs=nnx.Rngs(0))))
    jax.eval_shape(partial(trace_losses, graphdef), params, batch)


def trace_losses(graphdef: nnx.GraphDef, params: nnx.State, batch: Batch) -> None:
    """Every loss."""
    model, suppressed = nnx.merge(graphdef, params), np.zeros(SMALL.vocab_size, bool)
    logprobs, entropy = losses.token_logprobs(model, batch, suppressed=suppressed, chunk=4)
    losses.map_head(model, batch, losses.token_logprob)
    for kind in SFT_LOSSES:
        losses.sft_loss(logprobs, batch, kind)
    weights = losses.importance_weights(logprobs, logprobs, batch.loss_mask, 2.0)
    grpo = partial(losses.grpo_loss, clip_low=0.2, clip_high=0.3, dual_clip=3.0, weights=weights)
    for kind in POLICY_LOSSES:
        grpo(logprobs, logprobs, logprobs, batch.loss_mask, kind=kind)
    more = dict(ref_logprobs=logprobs, kl_weight=0.1, entropy=entropy, entropy_weight=0.1)
    grpo(logprobs, logprobs, logprobs, batch.loss_mask, segment_ids=batch.segment_ids, **more)


def call_sampling() -> None:
    """A token for each of 5 rows, greedy and not."""
    suppressed = suppressed_tokens(tiny.tokenizer(), 4096)
    logits, keys = jnp.zeros((5, 4096)), jax.random.split(jax.random.key(0), 5)
    allowed_logits(logits, jnp.asarray(suppressed), 0.0)
    for section in (SamplingSection(temperature=0.0), SamplingSection(top_k=7, top_p=0.5)):
        sample(logits, keys, suppressed, section)
    sample(logits, keys, suppressed, SamplingSection(), own=(jnp.ones(5), jnp.ones(5)))


def call_products() -> None:
    """Products with a matrix and with a token table, as arrays and as a sampler holds them."""
    x, matrix, ids = jnp.ones((2, 3, 37), jnp.bfloat16), jnp.ones((37, 29)), jnp.zeros((2, 3), int)
    for weights, platform in (("", "tpu"), ("", "cpu"), ("int8", "tpu"), ("int8", "cpu")):
        form = matrix_form(weights, "bfloat16", platform)
        for per_row in (False, True):
            packed = pack(matrix.T if per_row else matrix, form, per_row=per_row)
            unpacked(packed, jnp.float32)
            if per_row:
                gather_rows(packed, ids, jnp.bfloat16)
            if not per_row or not form.plain:
                multiply(x, packed)


def call_host_code() -> None:
    """Positions and published weights."""
    mrope_positions(np.arange(7, dtype=np.int32), [], tiny.tokenizer().special)
    kernel = HFTensor("up_proj.weight", (5, 3), "up_proj/kernel", None)
    kernel.to_hf(kernel.to_ours(np.zeros((5, 3), np.float32)))


def main() -> None:
    """Prints what was not called."""
    called = set()

    def note(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(PACKAGE)):
            called.add(f"{Path(file).relative_to(PACKAGE)}:{frame.f_code.co_qualname}")

    sys.setprofile(note)
    call_model()
    call_model(QWEN3_SMALL, attention="splash_interpret")
    call_model(tie_word_embeddings=True, remat="attention", attention="splash_interpret")
    axes = ("data", "fsdp", "model")
    mesh = Mesh(np.array(jax.devices()).reshape(1, 1, 2), axes, axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        for attention in ("xla", "splash_interpret"):
            call_model(context_parallel=True, attention=attention)
        call_model(QWEN3_SMALL, context_parallel=True)
    call_losses()
    call_sampling()
    call_products()
    call_host_code()
    sys.setprofile(None)
    try:
        losses.token_logprob(jnp.zeros((2, 3, 5)), jnp.zeros((3, 2), int))
    except jaxtyping.TypeCheckError:
        print(json.dumps(sorted(annotated() - called)))


if __name__ == "__main__":
    main()
