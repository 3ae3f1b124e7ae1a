"""DRIN's upstream form in plain PyTorch: the peer that `benchmarks.train_step` times.

It does what the equations say, term by term (docs/parity.md): W_h on every vertex of every layer
and an edge update after each, the last one included. `each_edge` follows them to the letter, where
every relation projects its own two ends: 21 M multiply-adds a candidate and step at the paper's
widths. Without it a vertex is projected once for the two relations it is in, as a careful
programmer would: 16 M. What it does, it does without waste: batched products, no loop over
candidates, and autograd skips whatever reaches no output. Parameters carry our names.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from drin_jax.parity import torch_weights

Graph = Mapping[str, Tensor]  # GraphBatch's arrays by name, as tensors


class Layer(nn.Module):
    """One relation interaction: every term on the right is the old value."""

    def __init__(self, width: int, each_edge: bool = False):
        super().__init__()
        self.each_edge = each_edge
        self.w_h = nn.Linear(width, width)
        self.w_u = nn.Linear(width, width)
        self.w_v = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def _vertex(self, x: Tensor) -> Tensor:
        return functional.gelu(self.norm(self.w_h(x)))

    def forward(
        self, mt: Tensor, mv: Tensor, et: Tensor, ev: Tensor, edges: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """New vertices from old ones and `edges` [b, 2 mention side, 2 entity side, r]."""
        to_text, to_image = edges.transpose(1, 2).unbind(1)  # what reaches et_j, ev_j: [b, 2, r]
        sums = (to_text @ et + to_image @ ev) / slots  # [b, 2, d]
        mentions = torch.stack([mt, mv], 1)
        return (
            self._vertex(mt + sums[:, 0]),
            self._vertex(mv + sums[:, 1]),
            self._vertex(torch.baddbmm(et, to_text.transpose(1, 2), mentions)),
            self._vertex(torch.baddbmm(ev, to_image.transpose(1, 2), mentions)),
        )

    def update_edges(self, mt: Tensor, mv: Tensor, et: Tensor, ev: Tensor, edges: Tensor) -> Tensor:
        """New edges from old vertices: sigmoid of the mean product of both ends, plus the edge."""
        if self.each_edge:
            ends = [(mention, entity) for mention in (mt, mv) for entity in (et, ev)]
            each = [(self.w_v(v) @ self.w_u(u)[..., None])[..., 0] for u, v in ends]
            dots = torch.stack(each, 1).view(edges.shape)
        else:
            u = self.w_u(torch.stack([mt, mv], 1))
            dots = torch.stack([u @ self.w_v(v).transpose(1, 2) for v in (et, ev)], 2)
        return torch.sigmoid(dots / mt.shape[-1] + edges)


class TorchDRIN(nn.Module):
    """Scores [b, r] of a graph; `vertices` and `edges` keep what every layer made of them."""

    def __init__(
        self,
        text: int,
        image: int,
        width: int = 768,
        layers: int = 2,
        dynamic: bool = True,
        each_edge: bool = False,
    ):
        super().__init__()
        self.inputs = nn.ModuleDict(
            {
                "mention_text": nn.Linear(text, width),
                "entity_text": nn.Linear(text, width),
                "mention_image": nn.Linear(image, width),
                "entity_image": nn.Linear(image, width),
            }
        )
        self.layers = nn.ModuleList(Layer(width, each_edge) for _ in range(layers))
        self.dynamic = dynamic
        self.vertices: list[tuple[Tensor, ...]] = []
        self.edges: list[Tensor] = []

    def forward(self, graph: Graph, enabled: tuple[int, int, int, int] = (1, 1, 1, 1)) -> Tensor:
        """`graph` holds the features and `edges` [b, 4, r]; every slot holds a candidate."""
        mt, mv = (self.inputs[name](graph[name]) for name in ("mention_text", "mention_image"))
        et, ev = (self.inputs[name](graph[name]) for name in ("entity_text", "entity_image"))
        x = (mt, mv, et, ev)
        b, _, r = graph["edges"].shape
        flag = graph["edges"].new_tensor(enabled).view(1, 2, 2, 1)
        edges = graph["edges"].view(b, 2, 2, r) * flag
        slots = graph["edges"].new_tensor(r)
        self.vertices, self.edges = [x], [edges]
        for layer in self.layers:
            assert isinstance(layer, Layer)
            mt, mv, et, ev = x
            x = layer(mt, mv, et, ev, edges, slots)
            if self.dynamic:
                edges = layer.update_edges(mt, mv, et, ev, edges) * flag
            self.vertices.append(x)
            self.edges.append(edges)
        return functional.cosine_similarity(x[0][:, None], x[2], dim=-1, eps=1e-8)

    def load(self, params: Mapping[str, np.ndarray]) -> None:
        """Take parameters under the authors' names (`interop.to_torch`, golden `w/*`)."""
        theirs = {_ours(k): v for k, v in torch_weights.torch_names(len(self.layers)).items()}
        state = {ours: torch.tensor(np.array(params[name])) for ours, name in theirs.items()}
        self.load_state_dict(state, strict=True)

    def under_torch_names(self, gradients: bool = False) -> dict[str, np.ndarray]:
        """Parameters, or their gradients (zero where none came), under the authors' names."""
        theirs = {_ours(k): v for k, v in torch_weights.torch_names(len(self.layers)).items()}
        out = {}
        for ours, parameter in self.named_parameters():
            value = parameter.grad if gradients else parameter.detach()
            value = torch.zeros_like(parameter) if value is None else value
            out[theirs[ours]] = value.numpy().copy()
        return out


def _ours(name: str) -> str:
    return name.replace(".kernel", ".weight").replace(".scale", ".weight")


def upstream_loss(scores: Tensor, gold: Tensor, margin: float) -> Tensor:
    """Every positive against every similarity of the batch; S+ = 0 where `gold` is negative."""
    positive = scores.gather(1, gold.clamp(min=0)[:, None])[:, 0] * (gold >= 0)
    return torch.relu(scores.reshape(1, -1) - positive[:, None] + margin).mean()
