"""Makes bert_*.npz with transformers' PyTorch BertModel: `python tests/golden/make_bert.py`.

Each file holds `config` (JSON), the weights by their checkpoint name after "w/", inputs (with
padding and two token types), hidden states and pooler output, all float32 on a CPU.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

SMALL = {
    "uncased": {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    },
    "gelu_new": {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    },
}


def main() -> None:
    for name, sizes in SMALL.items():
        torch.manual_seed(0)
        # A wide initialisation: with the usual one every token of a tiny BERT looks alike.
        config = transformers.BertConfig(**sizes, initializer_range=0.3)
        model = transformers.BertModel(config).eval()
        with torch.no_grad():  # biases and norms start at 0 and 1: make them say something
            for tensor in model.parameters():
                tensor.add_(0.1 * torch.randn_like(tensor))
        rng = np.random.default_rng(0)
        ids = rng.integers(0, config.vocab_size, (3, 17))
        mask = (np.arange(17) < np.array([[17], [9], [2]])).astype(np.int64)
        types = (np.arange(17) >= np.array([[17], [5], [1]])).astype(np.int64)
        with torch.no_grad():
            out = model(
                torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                token_type_ids=torch.tensor(types),
            )
        np.savez_compressed(
            Path(__file__).parent / f"bert_{name}.npz",
            config=json.dumps({"model_type": "bert"} | sizes),
            input_ids=ids.astype(np.int32),
            attention_mask=mask.astype(np.int32),
            token_type_ids=types.astype(np.int32),
            hidden=out.last_hidden_state.numpy(),
            pooled=out.pooler_output.numpy(),
            **{f"w/{key}": value.numpy() for key, value in model.state_dict().items()},
        )


if __name__ == "__main__":
    main()
