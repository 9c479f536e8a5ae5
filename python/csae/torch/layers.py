"""Convolutions, fully connected layers, pooling, preprocessing and merges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .layer import REQUIRED, Layer, Pair, Run, Size, Spec, pair, per_channel


def activate(activation: Any, x: Tensor) -> Tensor:
    """An activation function: a name, or a table of its name and its constant."""
    table = activation if isinstance(activation, Mapping) else {"kind": activation}
    kind = table.get("kind")
    if kind in ("identity", "linear"):
        return x
    if kind == "relu":
        return F.relu(x)
    if kind == "leaky_relu":
        return F.leaky_relu(x, table.get("slope", 0.01))
    if kind == "elu":
        return F.elu(x, table.get("alpha", 1.0))
    if kind == "softplus":
        return F.softplus(x)
    if kind == "sigmoid":
        return torch.sigmoid(x)
    if kind == "tanh":
        return torch.tanh(x)
    if kind == "gelu":
        return F.gelu(x)
    if kind == "silu":
        return F.silu(x)
    raise ValueError(f"activation {activation!r} is unknown")


class Product(Layer):
    """A layer that multiplies by a weight, adds a bias and applies an activation."""

    OPTIONS: Mapping[str, Any] = {"bias": True, "activation": "identity", "init": "auto",
                                  "weight": None}

    def add_tensors(self, weight: tuple[int, ...], bias: int) -> None:
        """Sets the tensors: the weight, which can be shared, and the bias."""
        name, options = self.plan.name, self.plan.options
        self.tensors["weight"] = Spec(options["weight"] or f"{name}.weight", weight)
        if options["bias"]:
            self.tensors["bias"] = Spec(f"{name}.bias", (bias,))
        try:
            activate(options["activation"], torch.zeros(1))
        except ValueError as error:
            raise self.refuse(str(error)) from None

    def filters(self) -> int:
        """Number of output channels."""
        filters = self.plan.options["filters"]
        return self.plan.image.c if filters == "input" else filters

    def taps(self) -> tuple[Pair, Pair, Pair, Pair]:
        """Kernel, stride, padding and dilation of a convolution."""
        options = self.plan.options
        kernel, stride, dilation = (pair(options[key]) for key in ("kernel", "stride", "dilation"))
        if options["padding"] == "same":
            across, along = (d * (k - 1) // 2 for d, k in zip(dilation, kernel))
            return kernel, stride, (across, along), dilation
        return kernel, stride, pair(options["padding"]), dilation


class Conv2d(Product):
    """Convolution; the weight is (filters, channels/groups, height, width)."""

    OPTIONS = {"filters": REQUIRED, "kernel": REQUIRED, "stride": 1, "padding": 0, "dilation": 1,
               "groups": 1, **Product.OPTIONS}

    def setup(self, **options: Any) -> None:
        (kernel, stride, padding, dilation), x = self.taps(), self.size
        side = [(size + 2 * p - d * (k - 1) - 1) // s + 1
                for size, k, s, p, d in zip(x[1:], kernel, stride, padding, dilation)]
        if min(side) < 1 or x.c % options["groups"] or self.filters() % options["groups"]:
            raise self.refuse(f"its kernel or its groups do not fit maps of {x}")
        self.size = Size(self.filters(), side[0], side[1])
        self.add_tensors((self.filters(), x.c // options["groups"], *kernel), self.filters())

    def step(self, side: int) -> Pair:
        return (self.taps()[1][side], 1)

    def forward(self, run: Run, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        _, stride, padding, dilation = self.taps()
        options = self.plan.options
        y = F.conv2d(x, weight, bias, stride, padding, dilation, options["groups"])
        return activate(options["activation"], y)


class ConvTranspose2d(Product):
    """Transposed convolution; the weight is (channels, filters/groups, height, width)."""

    OPTIONS = {**Conv2d.OPTIONS, "output_padding": 0, "max_norm": None, "unit_norm": False}

    def setup(self, **options: Any) -> None:
        (kernel, stride, padding, dilation), x = self.taps(), self.size
        extra = pair(options["output_padding"])
        side = [(size - 1) * s - 2 * p + d * (k - 1) + 1 + e for size, k, s, p, d, e
                in zip(x[1:], kernel, stride, padding, dilation, extra)]
        if min(side) < 1 or x.c % options["groups"] or self.filters() % options["groups"]:
            raise self.refuse(f"its padding or its groups do not fit maps of {x}")
        self.size = Size(self.filters(), side[0], side[1])
        self.add_tensors((x.c, self.filters() // options["groups"], *kernel), self.filters())

    def step(self, side: int) -> Pair:
        return (1, self.taps()[1][side])

    def forward(self, run: Run, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        _, stride, padding, dilation = self.taps()
        options = self.plan.options
        y = F.conv_transpose2d(x, weight, bias, stride, padding, pair(options["output_padding"]),
                               options["groups"], dilation)
        return activate(options["activation"], y)


class Linear(Product):
    """Fully connected layer; the weight is (outputs, inputs), maps in the order C, H, W."""

    OPTIONS = {"units": None, "shape": None, "like": None, **Product.OPTIONS, "max_norm": None,
               "unit_norm": False}

    def setup(self, **options: Any) -> None:
        inputs = self.size.elements
        if options["units"] is not None:
            self.size = Size(options["units"], 1, 1)
        elif options["shape"] is not None:
            self.size = Size(*options["shape"])
        elif options["like"] in self.plan.known:
            self.size = self.plan.known[options["like"]]
        else:
            raise self.refuse("set units, shape, or like with the name of a layer before it")
        self.add_tensors((self.size.elements, inputs), self.size.elements)

    def forward(self, run: Run, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.linear(x.flatten(1), weight, bias).reshape(-1, *self.size)
        return activate(self.plan.options["activation"], y)


class Pool(Layer):
    """A layer that reduces windows of maps."""

    OPTIONS: Mapping[str, Any] = {"kernel": REQUIRED, "stride": None, "padding": 0}

    def window(self) -> tuple[Pair, Pair, Pair]:
        """Kernel, stride and padding."""
        options = self.plan.options
        kernel, stride = pair(options["kernel"]), options["stride"]
        return kernel, kernel if stride is None else pair(stride), pair(options["padding"])

    def setup(self, **options: Any) -> None:
        side = [(size + 2 * p - k) // s + 1 for size, k, s, p in zip(self.size[1:], *self.window())]
        if min(side) < 1:
            raise self.refuse(f"its window does not fit maps of {self.size}")
        self.size = Size(self.size.c, side[0], side[1])

    def step(self, side: int) -> Pair:
        return (self.window()[1][side], 1)


class MaxPool2d(Pool):
    """Max pooling. It keeps the positions of the maxima for max_unpool2d."""

    def forward(self, run: Run, x: Tensor) -> Tensor:
        y, switches = F.max_pool2d(x, *self.window(), return_indices=True)
        run.switches[self.plan.name] = (switches, (x.shape[2], x.shape[3]))
        return y


class AvgPool2d(Pool):
    """Average pooling."""

    OPTIONS = {**Pool.OPTIONS, "count_include_pad": True}

    def forward(self, run: Run, x: Tensor) -> Tensor:
        include = self.plan.options["count_include_pad"]
        return F.avg_pool2d(x, *self.window(), count_include_pad=include)


class L2Pool2d(Pool):
    """L2 pooling: the root of the sum of squares. Its gradient is 0 where the root is 0."""

    def forward(self, run: Run, x: Tensor) -> Tensor:
        squares = F.avg_pool2d(x * x, *self.window(), divisor_override=1)
        # The root has an infinite slope at 0, and 0 times infinity is not a number.
        some = squares > 0
        return torch.where(some, torch.sqrt(torch.where(some, squares, 1.0)), 0.0)


class MaxUnpool2d(Layer):
    """Max-unpooling: each value goes to the position of a maximum of a max_pool2d layer."""

    OPTIONS = {"switches": REQUIRED}

    def setup(self, **options: Any) -> None:
        # The description adds the size of what the pooling reads.
        self.size = self.plan.sizes[1]

    def forward(self, run: Run, x: Tensor) -> Tensor:
        switches, size = run.switches[self.plan.options["switches"]]
        target = x.new_zeros(*x.shape[:2], size[0] * size[1])
        # Overlapping windows can share a position: the last one wins, and all get its gradient.
        y: Tensor = _Unpool.apply(x.flatten(2), switches.flatten(2), target)
        return y.reshape(*x.shape[:2], *size)


class _Unpool(torch.autograd.Function):
    """y[switch] = x, whose gradient is dx = dy[switch]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, switches: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(switches)
        return target.scatter(2, switches, x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (switches,) = ctx.saved_tensors
        return dy.gather(2, switches), None, None


class UpsampleNearest2d(Layer):
    """Nearest-neighbour upsampling by whole factors."""

    OPTIONS = {"scale": REQUIRED}

    def setup(self, **options: Any) -> None:
        (rows, columns), x = pair(options["scale"]), self.size
        self.size = Size(x.c, x.h * rows, x.w * columns)

    def step(self, side: int) -> Pair:
        return (1, pair(self.plan.options["scale"])[side])

    def forward(self, run: Run, x: Tensor) -> Tensor:
        rows, columns = pair(self.plan.options["scale"])
        return x.repeat_interleave(rows, 2).repeat_interleave(columns, 3)


class PixelShuffle(Layer):
    """Sub-pixel rearrangement: scale² channels become one with `scale` times both sides."""

    OPTIONS = {"scale": REQUIRED}

    def setup(self, **options: Any) -> None:
        scale, x = options["scale"], self.size
        if x.c % (scale * scale):
            raise self.refuse(f"scale = {scale} needs a multiple of {scale * scale} channels")
        self.size = Size(x.c // (scale * scale), x.h * scale, x.w * scale)

    def step(self, side: int) -> Pair:
        return (1, self.plan.options["scale"])

    def forward(self, run: Run, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.plan.options["scale"])


class Activation(Layer):
    """An activation as a layer of its own."""

    OPTIONS = {"activation": REQUIRED}

    def setup(self, **options: Any) -> None:
        try:
            activate(options["activation"], torch.zeros(1))
        except ValueError as error:
            raise self.refuse(str(error)) from None

    def forward(self, run: Run, x: Tensor) -> Tensor:
        return activate(self.plan.options["activation"], x)


class LocalContrast(Layer):
    """Local contrast normalisation: (x − mean)/√(variance + eps) over a window and all channels."""

    OPTIONS = {"window": 9, "eps": 1e-3}

    def forward(self, run: Run, x: Tensor) -> Tensor:
        options = self.plan.options
        # The variance is a difference of two means, which single precision rounds too coarsely.
        # MPS has no double precision.
        wide = x if x.device.type == "mps" else x.double()

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(values.mean(1, keepdim=True), options["window"], 1,
                                options["window"] // 2, count_include_pad=False)

        centre = mean(wide)
        variance = (mean(wide * wide) - centre * centre).clamp_min(0.0)
        y: Tensor = (wide - centre) / (variance + options["eps"]).sqrt()
        return y.to(x.dtype)


class Whiten(Layer):
    """Whitening: scales and shifts each channel, then filters. Its tensors are never learned."""

    OPTIONS = {"kernel": REQUIRED, "eps": 0.1}

    def setup(self, **options: Any) -> None:
        name, c = self.plan.name, self.size.c
        self.tensors = {
            "weight": Spec(f"{name}.weight", (c, c, *pair(options["kernel"])), "fixed"),
            "shift": Spec(f"{name}.shift", (c,), "fixed"),
            "scale": Spec(f"{name}.scale", (c, 1, 1, 1), "fixed"),
        }

    def forward(
        self, run: Run, x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor
    ) -> Tensor:
        # The mean is subtracted before filtering, so that the zero padding equals the mean.
        scaled = x * per_channel(scale.flatten()) + per_channel(shift)
        rows, columns = pair(self.plan.options["kernel"])
        return F.conv2d(scaled, weight, padding=(rows // 2, columns // 2))


class Add(Layer):
    """Sum of two layers."""

    INPUTS = 2

    def setup(self, **options: Any) -> None:
        if len(set(self.plan.sizes)) > 1:
            raise self.refuse(f"its inputs differ in size: {_listed(self.plan.sizes)}")

    def forward(self, run: Run, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Sub(Add):
    """The first layer minus the second."""

    def forward(self, run: Run, x: Tensor, y: Tensor) -> Tensor:
        return x - y


class Concat(Layer):
    """Concatenation of several layers along the channels."""

    INPUTS = None

    def setup(self, **options: Any) -> None:
        sizes = self.plan.sizes
        if len({size[1:] for size in sizes}) > 1:
            raise self.refuse(f"its inputs differ in height or width: {_listed(sizes)}")
        self.size = Size(sum(size.c for size in sizes), *sizes[0][1:])

    def forward(self, run: Run, *x: Tensor) -> Tensor:
        return torch.cat(x, 1)


def _listed(sizes: tuple[Size, ...]) -> str:
    return ", ".join(map(str, sizes))


class MapMean(Layer):
    """Mean of each channel of a whole map of any size, a part of `lista`."""

    def setup(self, **options: Any) -> None:
        self.size = Size(self.size.c, 1, 1)

    def forward(self, run: Run, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Spread(Layer):
    """A value of each channel as a map of the size of the second input, a part of `lista`."""

    INPUTS = 2

    def setup(self, **options: Any) -> None:
        self.size = self.plan.sizes[1]

    def forward(self, run: Run, x: Tensor, like: Tensor) -> Tensor:
        return x.expand(-1, -1, *like.shape[2:])
