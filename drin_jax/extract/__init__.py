"""Raw files -> feature store: every frozen feature once, before training.

Reads the corpus, retrieves candidates, runs the frozen encoders over everything unique, and
computes the graphs' initial edges. A run that is killed goes on where it stopped; nothing
half-written is ever read. As a command: `python -m drin_jax.extract --config=… --workdir=…`.
"""
