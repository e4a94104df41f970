"""Which activations a training step stores, and which its backward pass computes again."""

import jax

ATTENTION = "attention"  # checkpoint name of the inputs and outputs of attention
MLP = "mlp"  # checkpoint name of the two inner matrix products of an MLP
POLICIES = {  # by value of `config.model.remat`
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION),
    "dots": jax.checkpoint_policies.save_only_these_names(ATTENTION, MLP),
    "full": jax.checkpoint_policies.nothing_saveable,
}
