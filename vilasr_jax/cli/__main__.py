"""`python -m vilasr_jax.cli`."""

from vilasr_jax.cli import main

main()
