"""Every field there is, with its default and what it means. The other configs override a few."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper's hyper-parameters over no data: a base to override, not one to run."""
    config = ConfigDict()
    config.seed = 0  # parameters, the order of the training mentions, everything random

    config.data = data = ConfigDict()
    data.name = ""  # names the corpus in reports
    # format under data.root: "jsonl" (your own), "wikimel", "wikidiverse", "richpedia", "mimic",
    # "kgmel", "candidates", "sample", or "release" (the authors' preprocessed arrays)
    data.reader = "jsonl"
    data.root = ""  # folder of the raw files
    # "disjoint" drops training samples that share text or picture with test, "published" keeps them
    data.split = "disjoint"
    # share of samples held out by a hash, where the data set publishes no valid split
    data.valid_fraction = 0.1
    # share of the golds that are taken out of the knowledge base: what means them is NIL
    data.withheld = 0.0
    data.outside = False  # whether pictures may lie outside data.root: absolute paths, and ../
    data.kb = ""  # knowledge base that mentions are linked to; empty: the data set's own entities
    data.store = ""  # feature store; empty: WORKDIR/store
    # check every byte of an existing store against its checksums at the start
    data.verify = True
    data.source = ""  # "hub:OWNER/NAME": a Hugging Face dataset, downloaded into data.root
    # where features are while training: "device" (on every device), "bfloat16" (there, halved),
    # "sharded" (their rows spread over the devices), "host" (read from the store, ahead of each
    # step); "auto": the first of these that fits. The same batches in the same order
    data.tables = "auto"
    data.hint = ""  # what to download and where to put it, told when data.root lacks it

    config.retrieval = retrieval = ConfigDict()
    # "union" (names, fullest form in the text, words and vectors together), "names" (fuzzy match
    # of the surface form), "statistics" (prior, words and names together), "given" (the data set's
    # own candidates) or "vectors" (nearest of the whole base)
    retrieval.method = "union"
    retrieval.r = 100  # candidates of a mention
    retrieval.scorer = "WRatio"  # names: rapidfuzz scorer
    # statistics: weights of name likeness, prior and shared words (from WikiMEL's valid split),
    # and how many entities names (0: names are not compared) and words bring in to be scored
    retrieval.name_weight = 1.0
    retrieval.prior_weight = 0.2
    retrieval.word_weight = 0.5
    retrieval.names_pool = 100
    retrieval.words_pool = 100
    retrieval.vectors = "text"  # vectors: "text" (encoders.text, edge pooling) or "clip"

    config.text = text = ConfigDict()
    # templates of what the encoder reads; fields {sentence}, {mention} and {name}, {description}
    text.mention = "{sentence}"
    text.entity = "{name}. {description}"
    text.clip_mention = "{sentence}"  # the same for CLIP, which reads at most 77 tokens
    text.clip_entity = "{name}. {description}"

    config.encoders = encoders = ConfigDict()
    # folder (of its own or under data.root) or hub id of a Hugging Face BertModel
    encoders.text = "bert-base-cased"
    encoders.dtype = "float32"  # "float32" or "bfloat16"
    encoders.max_length = 512  # tokens; longer texts are cut around the mention
    encoders.batch_tokens = 4096  # padded tokens in one encoder batch, on one device
    # pooling of each vertex and of each side of R_tt: "span" (mean over the mention's tokens),
    # "cls", "mean", "inner" (mean without CLS and SEP) or "pooler"
    encoders.mention_vertex = "span"
    encoders.mention_edge = "cls"
    encoders.entity_vertex = "cls"
    encoders.entity_edge = "cls"
    # pictures; folders or hub ids as above. Without encoders.image every picture is masked
    encoders.image = ""  # ResNetModel: the picture's vertex, as in microsoft/resnet-152
    encoders.clip = ""  # CLIPModel: edges tv and vt, as in openai/clip-vit-base-patch32
    # edge vv: "fasterrcnn" or "maskrcnn" (extra "detector"), or a file of boxes under data.root
    encoders.objects = ""
    encoders.detector_weights = ""  # file of torchvision weights; empty: torchvision downloads them
    encoders.mention_objects = 3  # objects of a mention's picture, the best ones
    encoders.entity_objects = 3  # the paper has the same number, the published program 3 and 1
    encoders.batch_images = 32  # pictures in one encoder batch, on one device
    # token vectors of the mentions, which mel_hi, ghmfc and dzmned read, and regions of their
    # pictures, which ghmfc reads; a store without them gets them when model.name needs them
    encoders.tokens = False
    encoders.max_tokens = 128  # of a mention's text, around the mention (at most this)
    encoders.regions = False
    # instead of all that: .npz of features from elsewhere (data_pipeline/pictures/precomputed.py)
    encoders.pictures = ""

    config.image = image = ConfigDict()
    # ResNet's input: "paper" (scaled to the size, whatever the shape) or "processor" (as the
    # checkpoint has it: scaled by the short side, the middle cut out); CLIP always has its own
    image.preprocess = "paper"
    # pictures of more pixels (at most this), or that take more memory to decode, are masked
    image.max_pixels = 178_956_970
    image.max_bytes = 1_000_000_000
    image.min_side = 8  # narrower or lower ones are masked
    image.workers = 0  # processes that decode; 0: one a core

    config.graph = graph = ConfigDict()
    graph.r = 0  # candidates in the graph, the first of those retrieved; 0: all
    # the paper's relations; "relational" also takes names, words, years, vectors, pictures,
    # retrieval, votes, exemplars, neighbours, association and context (docs/relations.md)
    graph.relations = ("tt", "tv", "vt", "vv")
    graph.edges = "dynamic"  # "dynamic" (updated in every layer) or "static"
    graph.adjacency = "block"  # "block" [b,2,2r] or "dense" [b,n,n]: the same numbers
    # "never", or "upstream": the gold in every graph, only to reproduce published numbers
    graph.gold_slot = "never"

    config.model = model = ConfigDict()
    model.name = "drin"  # a name of drin_jax.models.MODELS
    # "upstream" (what produced the published numbers) or "paper" (its equations)
    model.form = "upstream"
    model.width = 768  # d
    model.layers = 2  # L
    # paper form: mention rows of A averaged over candidates ("mean") or not ("sum")
    model.mention_rows = "mean"
    # paper form: dot product of [13] times 1/sqrt(d) ("rsqrt"), 1/d ("mean") or 1 ("none")
    model.edge_scale = "rsqrt"
    model.edge_activation = "sigmoid"  # paper form: "sigmoid", "tanh" or "identity"
    model.vertex_activation = "gelu"  # paper form: "gelu", "relu" or "tanh"
    # mel_hi: width of its LSTM; 0: as published, three times the text's, most of its time
    model.recurrent_width = 0
    # mel_hi: pictures count where the cosine of the mention's text with its picture is above the
    # first, and that of its picture with some candidate's above the second
    model.image_text_threshold = 0.0
    model.image_entity_threshold = 0.3
    # relational: networks that read the evidence, whose scores are averaged
    model.members = 1
    # relational: width of an edge's state, dropout of it, shares of mentions that train without a
    # relation (of each) and without pictures, and whether texts and pictures are vertices too
    model.state = 128
    model.dropout = 0.3
    model.drop_relations = 0.0
    model.drop_pictures = 0.0
    model.vertices = True
    model.nil = False  # relational: learns to say that no candidate is right (loss.form "softmax")
    model.dtype = "float32"  # of the arithmetic; parameters and cosines are always float32

    config.loss = loss = ConfigDict()
    loss.form = "upstream"  # or "hinge", "paper_own", "paper_batch", "hardest", "softmax"
    loss.margin = 0.25

    config.train = train = ConfigDict()
    # workdir of a finished run, or a folder of save_pretrained, whose parameters training starts
    # from; empty: from random ones
    train.init = ""
    train.epochs = 30
    train.batch = 64  # mentions, over all devices
    # parts of a device's share of a batch that are computed one after another: less memory, a
    # forward pass more, the same loss
    train.accumulate = 1
    train.learning_rate = 1e-3  # Adam
    # what a step keeps of the average of the parameters, which is then what is evaluated; 0: none
    train.average = 0.0
    train.patience = 0  # stop after this many epochs without a better valid score; 0: never
    train.save_every = 500  # steps between checkpoints, beside those at the ends of epochs
    train.log_every = 20  # most steps in a dispatch, after which losses are looked at and written
    train.max_mentions = 0  # this many training mentions, drawn once by the seed; 0: all

    # A second reading of the best candidates of undecided mentions; may be set, once, on a run that
    # is finished, and is then all that is left to train
    config.reranker = reranker = ConfigDict()
    # folder or hub id of a BERT, or of a cross-encoder made of one, which reads the texts of a
    # mention and a candidate together and is trained for that; empty: none
    reranker.text = ""
    reranker.best = 5  # candidates of a mention that are read
    reranker.undecided = 0.9  # of those whose likeliest candidate is not likelier than this
    reranker.max_length = 128  # tokens of a pair
    reranker.max_mentions = 0  # training mentions, the least decided first; 0: all those
    reranker.epochs = 2
    reranker.batch = 16  # mentions
    reranker.learning_rate = 5e-5  # Adam with weight decay: rises for a tenth, then falls to 0

    config.eval = evaluate = ConfigDict()
    evaluate.batch = 256
    evaluate.ks = (1, 3, 5, 10, 20, 50)
    # "candidates", or "kb": beside that, over the whole knowledge base, with raw encoders alone
    evaluate.scope = "candidates"
    # valid score that picks the best checkpoint, tie-aware over answerable: "mrr" or "hits@K"
    evaluate.select_by = "mrr"
    evaluate.pictures = True  # False: every mention is scored as if it had no picture

    config.parallel = parallel = ConfigDict()
    parallel.impl = "shard_map"  # "shard_map" or "pmap"
    parallel.devices = 0  # local devices to use; 0: all

    config.lock()
    return config
