"""Our BERT against transformers' PyTorch one, and what a checkpoint folder may get wrong."""

import json
import os
import pickle
import socket
import subprocess
import tempfile
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data_pipeline import hub
from data_pipeline.schema import UserError
from drin_jax.encoders import hf, pretrained
from drin_jax.encoders.bert import load_bert
from tests.support.paths import GOLDEN, SHARED
from tests.support.tolerance import assert_close


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"bert_{name}.npz") as file:
        return dict(file)


def golden_weights(name: str = "uncased") -> dict[str, np.ndarray]:
    return {key[2:]: value for key, value in golden(name).items() if key.startswith("w/")}


def write_checkpoint(
    folder: Path, name: str = "uncased", weights: dict[str, np.ndarray] | None = None, **config
) -> Path:
    """A checkpoint folder of a golden file, with other weights or config fields where given."""
    folder.mkdir(exist_ok=True)
    values = json.loads(str(golden(name)["config"])) | config
    (folder / "config.json").write_text(json.dumps(values))
    weights = golden_weights(name) if weights is None else weights
    save_file(
        {k: np.ascontiguousarray(v) for k, v in weights.items()}, folder / "model.safetensors"
    )
    return folder


NO_MINILM = (
    "the real MiniLM-L6 (90 MB) is not in the repository: set DRIN_MINILM to its folder; "
    "test_golden_hidden_states holds the encoder to PyTorch without it"
)


def minilm() -> Path:
    """A real MiniLM-L6 in $DRIN_MINILM or fetched by ../shared/tools/minilm.sh; else a skip."""
    if folder := os.environ.get("DRIN_MINILM"):
        return Path(folder)
    script = SHARED / "tools/minilm.sh"
    folder = Path(tempfile.gettempdir()) / "minilm"
    if not script.exists():
        pytest.skip(NO_MINILM)
    if subprocess.run(["bash", script, folder], capture_output=True).returncode:
        pytest.skip(NO_MINILM)
    return folder


def assert_same(model, theirs: dict[str, np.ndarray], **given: np.ndarray) -> None:
    arrays = {key: jnp.asarray(value, jnp.int32) for key, value in given.items()}
    hidden, pooled = jax.jit(lambda **kwargs: model(**kwargs))(**arrays)
    real = given["attention_mask"][..., None]
    assert_close(hidden * real, theirs["hidden"] * real)
    if "pooled" in theirs:
        assert_close(pooled, theirs["pooled"])


@pytest.mark.parametrize("name", ["uncased", "gelu_new"])
def test_golden_hidden_states(name, tmp_path):
    arrays = golden(name)
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert np.abs(arrays["hidden"]).max() > 1
    assert_same(
        load_bert(write_checkpoint(tmp_path / "bert", name)),
        arrays,
        **{k: arrays[k] for k in names},
    )


@pytest.mark.parametrize(
    ("vocabulary", "layers", "width", "heads", "length", "kind"),
    [
        (28996, 2, 32, 4, 30, "BertModel"),  # bert-base-cased's vocabulary
        (30522, 4, 24, 3, 256, "BertModel"),  # bert-base-uncased's; queries taken in blocks
        (200, 12, 48, 12, 7, "BertForPreTraining"),  # "bert." before names, heads beside
        (100, 3, 40, 5, 64, "BertForMaskedLM"),  # no pooler
    ],
)
def test_live_pytorch(vocabulary, layers, width, heads, length, kind, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    import transformers

    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=3 * width,
        hidden_act="relu" if kind == "BertForMaskedLM" else "gelu",
        max_position_embeddings=256,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, kind)(config).eval()
    theirs.save_pretrained(tmp_path)
    bert = getattr(theirs, "bert", theirs)
    ids = np.random.default_rng(0).integers(0, vocabulary, (3, length))
    mask = (np.arange(length) < np.array([[length], [length // 2], [1]])).astype(np.int32)
    with torch.no_grad():
        out = bert(torch.tensor(ids), attention_mask=torch.tensor(mask))
    expected = {"hidden": out.last_hidden_state.numpy()}
    model = load_bert(tmp_path)
    if kind == "BertForMaskedLM":
        assert model.pooler is None
    else:
        expected["pooled"] = out.pooler_output.numpy()
    assert_same(model, expected, input_ids=ids, attention_mask=mask)


def test_real_minilm():
    folder = minilm()
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    import transformers

    theirs = transformers.BertModel.from_pretrained(folder).eval()
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (4, 40))
    mask = (np.arange(40) < np.array([[40], [31], [8], [1]])).astype(np.int32)
    with torch.no_grad():
        out = theirs(torch.tensor(ids), attention_mask=torch.tensor(mask))
    expected = {"hidden": out.last_hidden_state.numpy(), "pooled": out.pooler_output.numpy()}
    assert_same(load_bert(folder), expected, input_ids=ids, attention_mask=mask)


def test_first_only_is_the_first_row(tmp_path):
    model = load_bert(write_checkpoint(tmp_path / "bert"))
    arrays = golden("uncased")
    ids, mask = jnp.asarray(arrays["input_ids"]), jnp.asarray(arrays["attention_mask"])
    hidden, pooled = jax.jit(lambda *given: model(*given))(ids, mask)
    first, first_pooled = jax.jit(lambda *given: model(*given, first_only=True))(ids, mask)
    assert first.shape == (3, 1, 32)
    assert_close(first, hidden[:, :1])
    assert_close(first_pooled, pooled)


def test_bfloat16_is_near_float32_and_keeps_norms_in_float32(tmp_path):
    folder = write_checkpoint(tmp_path / "bert")
    arrays = golden("uncased")
    ids, mask = jnp.asarray(arrays["input_ids"]), jnp.asarray(arrays["attention_mask"])
    model = load_bert(folder, "bfloat16")
    hidden, _ = jax.jit(lambda *given: model(*given))(ids, mask)
    exact = load_bert(folder)
    full, _ = jax.jit(lambda *given: exact(*given))(ids, mask)
    assert hidden.dtype == jnp.bfloat16
    assert model.layers[0].qkv.kernel[...].dtype == jnp.bfloat16
    assert model.layers[0].norm.scale[...].dtype == jnp.float32
    error = (
        np.abs(np.asarray(hidden, np.float32) - np.asarray(full))
        * arrays["attention_mask"][..., None]
    )
    assert 0 < error.max() < 0.1  # hidden states reach about 3; bfloat16 keeps 8 bits


def test_old_norm_names_prefix_heads_and_shards(tmp_path):
    weights = {
        "bert." + key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for key, value in golden_weights().items()
    }
    weights["cls.predictions.bias"] = np.zeros(64, np.float32)
    weights["bert.embeddings.position_ids"] = np.arange(40)[None]
    folder = write_checkpoint(tmp_path / "bert", weights=weights)
    whole = load_file(folder / "model.safetensors")
    names = sorted(whole)
    files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, file in enumerate(files):
        save_file({name: whole[name] for name in names[i::2]}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: files[i % 2] for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    arrays = golden("uncased")
    keys = ("input_ids", "attention_mask", "token_type_ids")
    assert_same(load_bert(folder), arrays, **{key: arrays[key] for key in keys})
    (folder / files[1]).unlink()
    with pytest.raises(UserError, match=files[1]):
        load_bert(folder)


def test_weights_that_do_not_fit_are_listed_on_both_sides(tmp_path):
    weights = golden_weights()
    del weights["encoder.layer.1.attention.self.key.weight"]
    weights["encoder.layer.7.output.dense.bias"] = np.zeros(3, np.float32)
    weights["encoder.layer.0.intermediate.dense.weight"] = np.zeros((32, 48), np.float32)
    with pytest.raises(UserError) as caught:
        load_bert(write_checkpoint(tmp_path / "bert", weights=weights))
    told = str(caught.value)
    assert "missing: encoder.layer.1.attention.self.key.weight" in told
    assert "unexpected: encoder.layer.7.output.dense.bias" in told
    assert "wrong shape: encoder.layer.0.intermediate.dense.weight (32, 48), not (48, 32)" in told
    assert "\n" not in told
    assert "query" not in told


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_act": "mish"}, "hidden_act 'mish'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
        ({"num_hidden_layers": 1}, "unexpected: encoder.layer.1"),
    ],
)
def test_config_that_is_refused(config, told, tmp_path):
    with pytest.raises(UserError, match=told):
        load_bert(write_checkpoint(tmp_path / "bert", **config))


@pytest.mark.parametrize("damage", ["truncated", "foreign", "config"])
def test_damaged_files_are_named(damage, tmp_path):
    folder = write_checkpoint(tmp_path / "bert")
    path = folder / ("config.json" if damage == "config" else "model.safetensors")
    path.write_bytes(b"<html>" * 50 if damage == "foreign" else path.read_bytes()[:-40])
    with pytest.raises(UserError, match=path.name) as caught:
        load_bert(folder)
    assert "\n" not in str(caught.value)


def pickled(folder: Path) -> bytes:
    """The weights of a checkpoint folder as PyTorch's own file."""
    import torch

    tensors = {
        name: torch.from_numpy(x) for name, x in load_file(folder / "model.safetensors").items()
    }
    torch.save(tensors, folder / "pytorch_model.bin")
    return (folder / "pytorch_model.bin").read_bytes()


def test_pytorchs_file_is_read_where_there_are_no_safetensors(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch's files are read by torch alone")
    folder = write_checkpoint(tmp_path / "bert")
    safe = pretrained.fingerprint(folder)
    pickled(folder)
    assert pretrained.fingerprint(folder) == safe  # of what is read
    (folder / "model.safetensors").unlink()
    assert pretrained.fingerprint(hf.resolve(folder, ("config.json",))) != safe
    arrays = golden("uncased")
    keys = ("input_ids", "attention_mask", "token_type_ids")
    assert_same(load_bert(folder), arrays, **{key: arrays[key] for key in keys})
    torch.save({"epoch": 3}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: holds no state dict"):
        load_bert(folder)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(torch, "__version__", "2.5.1+cpu")
        with pytest.raises(UserError, match=r"install 2\.6 or later"):
            load_bert(folder)


def test_code_in_pytorchs_file_is_not_run(tmp_path):
    pytest.importorskip("torch", reason="PyTorch's files are read by torch alone")
    folder = write_checkpoint(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    done = tmp_path / "done"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (done,))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(UserError, match="not a whole file of weights") as caught:
        load_bert(folder)
    assert "\n" not in str(caught.value)
    assert not done.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert done.exists()  # it would have been


def test_resolve_takes_folders_and_refuses_what_is_none(tmp_path):
    files = ("config.json",)
    folder = write_checkpoint(tmp_path / "bert")
    assert hf.resolve(folder, files) == folder
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    for name, told in [
        (folder, "no model.safetensors, .* convert"),
        (tmp_path / "nowhere", "does not exist"),
        (folder / "config.json", "is a file"),
        ("two words", "check the name"),
    ]:
        with pytest.raises(UserError, match=told):
            hf.resolve(name, files)


@pytest.mark.parametrize("listening", [True, False])
def test_hub_that_does_not_answer(listening, tmp_path, monkeypatch):
    """Neither a closed port nor a server that says nothing holds a run up."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(hub, "_SECONDS", 0.2)
        with pytest.raises(UserError, match="hub cannot be reached") as caught:
            hf.resolve("bert-base-cased", ("config.json",))
        assert "\n" not in str(caught.value)


def test_hub_cache_is_used_without_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hf, "_download", lambda *_: pytest.fail("went to the network"))
    repository = tmp_path / "models--some--bert"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder = write_checkpoint(repository / "snapshots" / commit)
    assert hf.resolve("some/bert", ("config.json",)).samefile(folder)


def test_fingerprint_follows_the_bytes_not_the_place(tmp_path):
    one, two = write_checkpoint(tmp_path / "one"), write_checkpoint(tmp_path / "two")
    (two / "README.md").write_text("read me")
    assert pretrained.fingerprint(one) == pretrained.fingerprint(two)
    weights = golden_weights()
    weights["pooler.dense.bias"][0] += 1e-3
    assert pretrained.fingerprint(write_checkpoint(two, weights=weights)) != pretrained.fingerprint(
        one
    )
    before = pretrained.fingerprint(one)
    (one / "vocab.txt").write_text("[CLS]\n")
    assert pretrained.fingerprint(one) != before
