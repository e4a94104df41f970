"""Live parity with transformers' Qwen2_5_VLForConditionalGeneration (eager attention, CPU)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.parity.hf_reference import hf_inputs, hf_model  # noqa: E402
from tests.parity.samples import CASES, CONFIG, CONFIGS, TOKENS, cases, our_inputs, random_tensor  # noqa: E402
from vilasr_jax.checkpoint import load_hf  # noqa: E402
from vilasr_jax.checkpoint.hf_layout import hf_tensors, named_leaves, params_from_hf  # noqa: E402
from vilasr_jax.models import family_of, preset  # noqa: E402
from vilasr_jax.models.params import build  # noqa: E402
from vilasr_jax.models.transformer.attention import self_attention  # noqa: E402
from vilasr_jax.models.transformer.stack import unstack  # noqa: E402


def pair(folder, config=CONFIG, **kwargs):
    reference = hf_model(config, **kwargs)
    reference.save_pretrained(folder)
    return reference, load_hf(folder, dtype="float32")


@pytest.fixture(scope="module", params=CONFIGS)
def models(tmp_path_factory, request):
    return pair(tmp_path_factory.mktemp("hf"), CONFIGS[request.param])


def case(models, name):
    """A batch of the family's own."""
    return cases(models[1].config.model_type)[name]


def jitted(config):
    """(params, *inputs) -> logits of a model of that config."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(config)))

    @jax.jit
    def run(params, *inputs):
        model = nnx.merge(graphdef, params)
        return model.logits(model(*inputs))

    return run


@pytest.fixture(scope="module")
def forward(models):
    run, params = jitted(models[1].config), nnx.split(models[1])[1]
    return lambda *inputs: np.asarray(run(params, *inputs))


@pytest.mark.parametrize("name", CASES)
def test_logits(models, forward, name):
    samples, (reference, _) = case(models, name), models
    layouts = [("right", True), ("right", False)] if len(samples) == 1 else [("right", True), ("left", False)]
    for side, pack in layouts:
        with torch.no_grad():
            wanted = reference(**hf_inputs(samples, side=side)).logits.numpy()
        inputs = our_inputs(samples, side=side, pack=pack)
        real = inputs[2] > 0
        np.testing.assert_allclose(forward(*inputs)[real], wanted[real], atol=2e-4)


OTHER_SHAPES = {
    "one key-value head, one full block first": preset(
        "tiny",
        **TOKENS,
        hidden_size=56,
        intermediate_size=61,
        num_layers=2,
        num_heads=7,
        num_kv_heads=1,
        head_dim=8,
        mrope_section=(1, 1, 2),
        rope_theta=1e6,
        rms_norm_eps=1e-5,
        vision={"hidden_size": 36, "intermediate_size": 47, "num_heads": 3, "fullatt_block_indexes": (0,)},
    ),
    "as many key-value heads, deep tower of windows": preset(
        "tiny",
        **TOKENS,
        hidden_size=60,
        intermediate_size=44,
        num_layers=1,
        num_heads=3,
        num_kv_heads=3,
        head_dim=20,
        mrope_section=(2, 4, 4),
        vision={
            "depth": 5,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_heads": 1,
            "fullatt_block_indexes": (3,),
        },
    ),
}


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_logits_of_other_shapes(tmp_path, shape):
    reference, ours = pair(tmp_path, OTHER_SHAPES[shape])
    samples = CASES["a mixed batch"]
    inputs = our_inputs(samples)
    with torch.no_grad():
        wanted = reference(**hf_inputs(samples)).logits.numpy()
    logits = jitted(ours.config)(nnx.split(ours)[1], *inputs)
    real = inputs[2] > 0
    np.testing.assert_allclose(np.asarray(logits)[real], wanted[real], atol=2e-4)


def test_tied_embeddings(tmp_path):
    reference, ours = pair(tmp_path, tie=True)
    assert ours.lm_head is None
    samples = CASES["one image"]
    with torch.no_grad():
        wanted = reference(**hf_inputs(samples)).logits.numpy()
    np.testing.assert_allclose(ours.logits(ours(*our_inputs(samples))), wanted, atol=2e-4)


def test_hidden_states_layer_by_layer(models):
    reference, ours = models
    samples = case(models, "five ragged images over three turns")
    with torch.no_grad():
        out = reference(**hf_inputs(samples), output_hidden_states=True)
        features = reference.model.get_image_features(
            *(hf_inputs(samples)[k] for k in ("pixel_values", "image_grid_thw"))
        )
    tokens, positions, segments, index, vision = our_inputs(samples)
    vision_tokens = ours.encode_vision(vision)
    depths = [features.pooler_output, *getattr(features, "deepstack_features", [])]
    wanted = torch.cat([torch.cat(depth) for depth in depths], dim=-1).numpy()
    np.testing.assert_allclose(vision_tokens[0], wanted, atol=1e-4)

    x = ours.embed(tokens, index, vision_tokens)
    language = ours.language_model
    rope, (x, added) = language._rope(positions), language._parts(x)
    assert len(added) == len(depths) - 1
    np.testing.assert_allclose(x, out.hidden_states[0].numpy(), atol=1e-4)
    last = ours.config.num_layers
    for i, layer in enumerate(unstack(language.layers, last), 1):
        x = layer(x, rope, lambda q, k, v: self_attention(q, k, v, segments, causal=True))
        wanted = out.hidden_states[i].numpy()  # the last one is after the final norm
        np.testing.assert_allclose(language.norm(x) if i == last else x, wanted, atol=1e-4)
        if i <= len(added):
            x = x + added[i - 1]


def test_gradients_of_every_parameter(models):
    reference, ours = models
    samples = case(models, "a mixed batch")
    inputs = our_inputs(samples)
    tokens, _, segments = inputs[:3]
    weight = (segments[:, 1:] > 0).astype(np.float32)

    reference.zero_grad()
    logits = reference(**hf_inputs(samples)).logits
    picked = logits.log_softmax(-1)[:, :-1].gather(-1, torch.tensor(tokens[:, 1:, None], dtype=torch.int64))[
        ..., 0
    ]
    (-(picked * torch.tensor(weight)).sum() / weight.sum()).backward()
    wanted = dict(reference.named_parameters())

    graphdef, params = nnx.split(ours)

    @jax.jit
    @jax.grad
    def gradients(params):
        model = nnx.merge(graphdef, params)
        logp = jax.nn.log_softmax(model.logits(model(*inputs)))[:, :-1]
        return -(jnp.take_along_axis(logp, tokens[:, 1:, None], 2)[..., 0] * weight).sum() / weight.sum()

    got = {name: np.asarray(leaf) for name, leaf in named_leaves(gradients(params)).items()}
    nested_name = family_of(ours.config).nested_name
    names = {nested_name(t.key): t for t in hf_tensors(ours.config)}
    assert set(names) == set(wanted)
    for name, tensor in names.items():
        leaf = got[tensor.path]
        mine = tensor.to_hf(leaf if tensor.layer is None else leaf[tensor.layer])
        theirs = wanted[name].grad.numpy()
        assert np.abs(mine - theirs).max() <= 1e-3 * np.abs(theirs).max() + 1e-9, name


@pytest.mark.parametrize("name", CONFIGS)
def test_bf16_is_no_further_from_f32_than_transformers(name):
    """Both run the same bf16 weights in bf16; the truth is those weights in f32.

    The mean is compared for each model and conversation. The largest of thousands of rounding errors is one
    draw, and the largest thousandth few: these are compared over all of many models.
    """
    small = CONFIGS[name]
    configs = [small.replace(dtype=dtype, param_dtype="bfloat16") for dtype in ("float32", "bfloat16")]
    exact, rounded = map(jitted, configs)
    errors = {"mine": [], "theirs": []}
    for seed in range(12):
        reference = hf_model(small, dtype=torch.bfloat16, seed=seed)
        params = params_from_hf(configs[1], lambda t, s=seed: random_tensor(t.key, t.shape, seed=s))
        for batch in ("five ragged images over three turns", "a mixed batch"):
            samples = cases(name)[batch]
            inputs = our_inputs(samples)
            real = inputs[2] > 0
            truth = np.asarray(exact(params, *inputs))[real]
            with torch.no_grad():
                theirs = reference(**hf_inputs(samples)).logits.float().numpy()[real]
            for who, logits in (("mine", np.asarray(rounded(params, *inputs))[real]), ("theirs", theirs)):
                error = np.abs(logits - truth)
                errors[who].append([error.mean(), np.quantile(error, 0.999), error.max()])
    mine, theirs = np.array(errors["mine"]), np.array(errors["theirs"])
    assert (mine[:, 0] <= theirs[:, 0]).all(), (mine, theirs)
    assert (mine.mean(0) <= theirs.mean(0)).all(), (mine, theirs)
