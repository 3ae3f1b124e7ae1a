"""The paper's tables, and more, as one command each: `python -m drin_jax.experiments SUITE`.

A suite (`suites`) is rows of config overrides. The runner (`runner`) trains every row with several
seeds (`seed_runs`), keeps each finished run in a folder of its own, and never repeats one. What
lies there is read back (`results`), tested (`significance`) and shown (`suite_tables`,
`suite_plots`, `suite_report`).
"""
