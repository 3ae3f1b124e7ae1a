"""The linker over HTTP: `drin_jax.serve` starts it."""
