"""Every field there is, with its default and what it means. The other configs override a few."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper's hyper-parameters over no data: a base to override, not one to run."""
    config = ConfigDict()
    config.seed = 0  # parameters, the order of the training mentions, everything random

    config.data = data = ConfigDict()
    data.name = ""  # names the corpus in reports
    data.reader = "jsonl"  # "jsonl", "wikimel" or "sample": the format under data.root
    data.root = ""  # folder of the raw files
    data.split = "disjoint"  # "disjoint" drops training samples that share text with test, "published" keeps them
    data.valid_fraction = (
        0.1  # share of samples held out by a hash, where the data set publishes no valid split
    )
    data.store = ""  # feature store; empty: WORKDIR/store
    data.verify = True  # check every byte of an existing store against its checksums at the start
    data.source = ""  # what to download and where to put it, told when data.root lacks it

    config.retrieval = retrieval = ConfigDict()
    retrieval.method = "names"  # "names" (fuzzy match of the surface form) or "given" (the data set's own candidates)
    retrieval.r = 100  # candidates of a mention
    retrieval.scorer = "WRatio"  # rapidfuzz scorer

    config.text = text = ConfigDict()
    text.mention = "{sentence}"  # template of the mention's text; fields {sentence} and {mention}
    text.entity = (
        "{name}. {description}"  # template of the entity's text; fields {name} and {description}
    )

    config.encoders = encoders = ConfigDict()
    encoders.text = "bert-base-cased"  # folder or hub id of a Hugging Face BertModel
    encoders.dtype = "float32"  # "float32" or "bfloat16"
    encoders.max_length = 512  # tokens; longer texts are cut around the mention
    encoders.batch_tokens = 4096  # padded tokens in one encoder batch
    encoders.mention_vertex = (
        "span"  # pooling: "span", "cls", "mean", "inner" (mean without CLS and SEP) or "pooler"
    )
    encoders.mention_edge = "cls"  # the same, for R_tt
    encoders.entity_vertex = "cls"
    encoders.entity_edge = "cls"
    encoders.pictures = (
        ""  # .npz of precomputed picture features, relative to data.root; empty: none
    )

    config.graph = graph = ConfigDict()
    graph.r = 0  # candidates in the graph, the first of those retrieved; 0: all
    graph.relations = ("tt", "tv", "vt", "vv")  # enabled edge types
    graph.edges = "dynamic"  # "dynamic" (updated in every layer) or "static"
    graph.adjacency = "block"  # "block" [b,2,2r] or "dense" [b,n,n]: the same numbers
    graph.gold_slot = "never"  # "never", or "upstream": the gold in every graph, to reproduce published numbers only

    config.model = model = ConfigDict()
    model.name = "drin"  # a name of drin_jax.models.MODELS
    model.form = (
        "upstream"  # "upstream" (what produced the published numbers) or "paper" (its equations)
    )
    model.width = 768  # d
    model.layers = 2  # L
    model.mention_rows = (
        "mean"  # paper form: mention rows of A averaged over candidates ("mean") or not ("sum")
    )
    model.edge_scale = "rsqrt"  # paper form: dot product of [13] times 1/sqrt(d) ("rsqrt"), 1/d ("mean") or 1 ("none")
    model.edge_activation = "sigmoid"  # paper form: "sigmoid", "tanh" or "identity"
    model.vertex_activation = "gelu"  # paper form: "gelu", "relu" or "tanh"
    model.dtype = "float32"  # of the arithmetic; parameters and cosines are always float32

    config.loss = loss = ConfigDict()
    loss.form = "upstream"  # "upstream", "hinge", "paper_own" or "paper_batch"
    loss.margin = 0.25

    config.train = train = ConfigDict()
    train.epochs = 30
    train.batch = 64  # mentions, over all devices
    train.learning_rate = 1e-3  # Adam
    train.patience = 0  # stop after this many epochs without a better valid score; 0: never
    train.save_every = 500  # steps between checkpoints, beside one at the end of each epoch
    train.log_every = 20  # steps between metric lines
    train.max_mentions = 0  # a prefix of the shuffled training mentions; 0: all

    config.eval = evaluate = ConfigDict()
    evaluate.batch = 256
    evaluate.ks = (1, 3, 5, 10, 20, 50)
    evaluate.select_by = "mrr"  # valid score that picks the best checkpoint: "mrr" or "hits@1" (tie-aware, answerable)

    config.parallel = parallel = ConfigDict()
    parallel.impl = "shard_map"  # "shard_map" or "pmap"
    parallel.devices = 0  # local devices to use; 0: all

    config.lock()
    return config
