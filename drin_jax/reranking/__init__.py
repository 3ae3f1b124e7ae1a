"""A second reading: a cross-encoder over the texts of the best candidates of undecided mentions.

RUN/reranker/    the network, as a checkpoint of transformers; reranker.json, what it was made of
                 and how much it counts; said_SPLIT.npy, its scores; checkpoints/ while it trains
"""
