"""Why a finished run ranks as it does: one mention's edges before and after, and kinds of errors.

`cases` asks the model, `sources` finds texts and pictures again, `outcomes` picks mentions and
sorts the wrong ones; `terminal` and `figure` show. As a command: `python -m drin_jax.explain`.
"""
