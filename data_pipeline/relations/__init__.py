"""Relations beyond the paper's four: what is known of a pair of a mention and a candidate.

A relation is a small vector of named values (`schema.EVIDENCE`), computed once for every pair into
the store and, for one new mention, by the same code. Values are NaN where they are not known.
"""
