"""Suites of runs: planned (`suites`), trained (`runner`), read back (`results`) and reported."""
