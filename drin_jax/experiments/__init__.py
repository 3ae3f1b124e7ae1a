"""The paper's tables, and more, as one command each: `python -m drin_jax.experiments SUITE`.

A suite (`suites`) is rows of config overrides. The runner (`runner`) trains every row with several
seeds, keeps each finished run in a folder of its own, and never repeats one. What lies there is
read back (`results`), tested (`statistics`) and shown (`tables`, `plots`, `page`).
"""
