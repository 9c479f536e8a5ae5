"""What all layers have in common: their plan, and the state of a pass through the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from .file import ModelFileError

#: Marks an option that a description must set.
REQUIRED = object()

Pair = tuple[int, int]


class Size(NamedTuple):
    """Size of a sample: channels, height, width. A vector of n units is (n, 1, 1)."""

    c: int
    h: int
    w: int

    def __str__(self) -> str:
        return f"{self.c}x{self.h}x{self.w}"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.c * self.h * self.w

    @property
    def area(self) -> int:
        """Number of positions of the maps."""
        return self.h * self.w


class Spec(NamedTuple):
    """A tensor that a layer needs. `role` is `learned`, `frozen`, `fixed` or `state`."""

    name: str
    shape: tuple[int, ...]
    role: str = "learned"


@dataclass(frozen=True)
class Plan:
    """A layer as the description gives it, with every default and size filled in."""

    name: str
    op: str
    #: Names of the layers that it reads; `input` is the image.
    inputs: tuple[str, ...]
    #: Sizes of what it reads, at the size that the model was trained with.
    sizes: tuple[Size, ...]
    options: Mapping[str, Any]
    #: Size of the model's input.
    image: Size
    #: Sizes of the layers before this one, by name.
    known: Mapping[str, Size]
    #: Whether training leaves its tensors unchanged.
    frozen: bool = False


@dataclass
class Run:
    """State of one pass: the conditions of the samples, and what layers leave for later ones."""

    #: Corruption level of each sample (N), for thresholds with slopes.
    level: Tensor | None = None
    #: 1 at known pixels and 0 at missing ones (N, C, H, W).
    known: Tensor | None = None
    #: Values of the layers so far, by name.
    values: dict[str, Tensor] = field(default_factory=dict)
    #: Positions of the maxima of each max_pool2d layer, and the height and width of its input.
    switches: dict[str, tuple[Tensor, tuple[int, int]]] = field(default_factory=dict)


class Layer(nn.Module):
    """A layer of a model. `forward` takes the state of the pass, inputs and tensors by name.

    Its own attributes are `plan`, `size` and `tensors`. Everything else that a module can hold are
    parameters, and the layers and tensors whose names begin with the name of this layer.
    """

    #: Number of inputs; None for two or more.
    INPUTS: int | None = 1
    #: The options and their defaults.
    OPTIONS: Mapping[str, Any] = {}

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        #: Size of a sample of the output, at the size that the model was trained with.
        self.size: Size = plan.sizes[0]
        #: The tensors that it needs, by their role in the layer.
        self.tensors: dict[str, Spec] = {}
        self.setup(**plan.options)

    def setup(self, **options: Any) -> None:
        """Checks the options, and sets `size` and `tensors`."""

    def step(self, side: int) -> Pair:
        """The shift of the input that shifts the output by the second number (0: rows)."""
        return (1, 1)

    def extra_repr(self) -> str:
        """The options that are not defaults, for `print(model)`."""
        set_here = (item for item in self.plan.options.items()
                    if self.OPTIONS.get(item[0], REQUIRED) != item[1])
        options = ", ".join(f"{key}={value!r}" for key, value in set_here)
        return ", ".join(filter(None, [options, f"size={self.size}"]))

    def refuse(self, why: str) -> ModelFileError:
        """The error for an option that does not fit."""
        return ModelFileError(f"layer {self.plan.name}: {why}")


def pair(value: Any) -> Pair:
    """[height, width] of an option: one number stands for both."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, Sequence) and len(value) == 2 and all(type(n) is int for n in value):
        return (value[0], value[1])
    raise ModelFileError(f"{value!r} is not a size: a whole number, or [height, width]")


def per_channel(values: Tensor) -> Tensor:
    """Values of channels (C), shaped for maps (N, C, H, W)."""
    return values[None, :, None, None]
