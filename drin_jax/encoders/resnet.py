"""ResNet (He et al., 2016) in Flax NNX, with the weights of a Hugging Face checkpoint."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from data_pipeline.schema import UserError
from drin_jax.encoders import pretrained
from drin_jax.encoders.layers import ACTIVATIONS

# Tensors of a checkpoint that are no part of the encoder: the head, and a counter of training.
IGNORED = ("classifier.*", "*.num_batches_tracked")
NAMES = {  # as `pretrained.load` takes them
    "stem": "embedder.embedder.convolution",
    "stem.norm": "embedder.embedder.normalization",
    "stages.*.*.layers.*": "encoder.stages.{0}.layers.{1}.layer.{2}.convolution",
    "stages.*.*.layers.*.norm": "encoder.stages.{0}.layers.{1}.layer.{2}.normalization",
    "stages.*.*.shortcut": "encoder.stages.{0}.layers.{1}.shortcut.convolution",
    "stages.*.*.shortcut.norm": "encoder.stages.{0}.layers.{1}.shortcut.normalization",
}
_REDUCTION = 4  # a bottleneck's inner layers are this many times narrower than its output


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The fields of a ResNet `config.json` that shape the arithmetic; defaults as in transformers
    (ResNet-50)."""

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False

    @classmethod
    def from_folder(cls, folder: Path) -> "ResNetConfig":
        """Reads `config.json`; UserError where it is not a ResNet this module computes."""
        values, where = pretrained.read_config(folder, "resnet")
        config = pretrained.from_fields(cls, values, where)
        if config.layer_type not in ("basic", "bottleneck"):
            raise UserError(
                f"{where}: layer_type {config.layer_type!r} is not supported; "
                "pass a checkpoint with 'basic' or 'bottleneck'"
            )
        if len(config.depths) != len(config.hidden_sizes):
            raise UserError(
                f"{where}: has {len(config.depths)} depths and {len(config.hidden_sizes)} "
                "hidden_sizes; the file is damaged"
            )
        return config


class ConvNorm(nnx.Module):
    """Convolution without bias and batch norm, for pictures [b, h, w, c].

    The norm uses stored statistics. `model.train()` makes it use the batch's and update the stored
    ones, as `nnx.BatchNorm` has it.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.stride = stride
        init = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), dtype))
        self.norm = nnx.BatchNorm(
            outputs,
            use_running_average=True,
            momentum=0.9,
            epsilon=1e-5,
            dtype=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Float32 of whatever comes in."""
        return self.norm(convolve(x, self.kernel[...], self.stride))


def convolve(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"], stride: int
) -> Float[Array, "b h2 w2 o"]:
    """Convolution with k // 2 zeros around the picture, accumulated in float32."""
    k = kernel.shape[0]
    if k == 1:  # a matrix product: several times as fast on a CPU
        return jnp.matmul(
            x[:, ::stride, ::stride], kernel[0, 0], preferred_element_type=jnp.float32
        )
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((k // 2, k // 2),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )


class Block(nnx.Module):
    """Two ("basic") or three ("bottleneck") convolutions beside a residual."""

    def __init__(
        self,
        config: ResNetConfig,
        inputs: int,
        outputs: int,
        stride: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.activation = ACTIVATIONS[config.hidden_act]
        if config.layer_type == "basic":
            shapes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        else:
            inner = outputs // _REDUCTION
            early = config.downsample_in_bottleneck
            shapes = [
                (inputs, inner, 1, stride if early else 1),
                (inner, inner, 3, 1 if early else stride),
                (inner, outputs, 1, 1),
            ]
        self.layers = nnx.List([ConvNorm(*shape, dtype, rngs) for shape in shapes])
        shortcut = inputs != outputs or stride != 1
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, dtype, rngs) if shortcut else None

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """The block's output."""
        residual = x if self.shortcut is None else self.shortcut(x)
        y = x
        for layer in list(self.layers)[:-1]:  # inside, checkpoints have ReLU whatever hidden_act is
            y = jax.nn.relu(layer(y)).astype(x.dtype)
        return self.activation(self.layers[-1](y) + residual).astype(x.dtype)


class ResNet(nnx.Module):
    """The encoder.

    Args:
        dtype: of kernels and activations; batch norm and sums are always float32.
    """

    def __init__(self, config: ResNetConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.stem = ConvNorm(config.num_channels, config.embedding_size, 7, 2, dtype, rngs)
        stages = []
        inputs = config.embedding_size
        for i, (outputs, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
            stride = 2 if i or config.downsample_in_first_stage else 1
            blocks = [Block(config, inputs, outputs, stride, dtype, rngs)]
            blocks += [Block(config, outputs, outputs, 1, dtype, rngs) for _ in range(depth - 1)]
            stages.append(nnx.List(blocks))
            inputs = outputs
        self.stages = nnx.List(stages)

    def __call__(
        self, pixels: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b g v"], Float[Array, "b v"]]:
        """The last feature map's regions, row by row (49 of a picture of 224 x 224), and their
        mean, both float32.

        Args:
            pixels: normalised as the checkpoint's preprocessor says.
        """
        x = self.activation(self.stem(pixels.astype(self.dtype))).astype(self.dtype)
        x = max_pool(x)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        regions = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        return regions, regions.mean(1)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Largest of 3 x 3, stride 2, one pixel of nothing around the picture."""
    for axis in (1, 2):  # as slices: on a CPU more than twice as fast as a window of reduce_window
        around = [(0, 0)] * 4
        around[axis] = (1, 1)
        padded = jnp.pad(x, around, constant_values=-jnp.inf)
        last = x.shape[axis] - 1  # the last window starts here or one before
        cut = [jax.lax.slice_in_dim(padded, i, last + i + 1, 2, axis) for i in range(3)]
        x = jnp.maximum(jnp.maximum(*cut[:2]), cut[2])
    return x


def load_resnet(folder: Path, dtype: str = "float32") -> ResNet:
    """The model of a checkpoint folder (`config.json`, weights), frozen weights in `dtype`.

    Raises UserError for another kind of model and for weights that do not fit it.
    """
    config = ResNetConfig.from_folder(folder)
    tensors = pretrained.read(folder, prefix="resnet.", ignore=IGNORED)
    build = partial(ResNet, config, dtype=jnp.dtype(dtype))
    return pretrained.load(build, tensors, NAMES, where=folder)
