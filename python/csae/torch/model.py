"""The model as a PyTorch module."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import torch
from torch import Tensor, nn

from . import layers, sparsity
from .description import Description, describe
from .file import ModelFileError
from .layer import Layer, Run, Size

#: A number for all samples, or one for each.
Numbers = float | Tensor


class Model(nn.Module):
    """A model of csae: an autoencoder, a restorer, or a classifier, segmenter or detector.

    It takes and returns float tensors (N, C, H, W), or (N, C, L) for signals, in the units of the
    data that it was trained on: a normalization is a part of the model. Images without one have
    values from 0 to 1.

    The keys of `state_dict` are `layers.` and the names of the tensors in the model file. Tensors
    that training does not learn by gradients are buffers; those of frozen layers are parameters
    that require no gradient.
    """

    #: The architecture, as in the metadata of the model file.
    description: dict[str, Any]
    _offset: Tensor | None
    _divisor: Tensor | None

    def __init__(
        self, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Builds the layers of a description. Without `tensors` all values are 0."""
        super().__init__()
        self.description = copy.deepcopy(dict(description))
        self._plan: Description = describe(self.description)
        self._align = {end: self._plan.geometry(end) for end in self._ends()}
        self.layers = _tree(self._plan, tensors)
        self._set_normalization(self.description.get("normalization"))

    # ---- what the model is -----------------------------------------------------------------

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the samples that it was trained on."""
        c, h, w = self._plan.image
        return (c, h, w)

    @property
    def code_size(self) -> tuple[int, int, int]:
        """Size of the code of a sample of the size `input_size`."""
        c, h, w = self._size(self._plan.code)
        return (c, h, w)

    @property
    def any_size(self) -> bool:
        """Whether it takes images of any height and width."""
        return self._align[self._plan.output][1] is None or self._is_restorer()

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the output's channels; empty for autoencoders."""
        return list(self.description.get("classes", []))

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers, the parts of `lista` included, in the order in which they run."""
        return [layer.plan.name for layer in self._plan.layers]

    # ---- passes ----------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        *,
        sigma: Numbers | None = None,
        scale: Numbers | None = None,
        level: Numbers | None = None,
        missing: Tensor | None = None,
        return_code: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Reconstructions; of a classifier, segmenter or detector its raw output.

        A model that is conditioned on a corruption level takes `sigma`, the standard deviation of
        the noise on the 0–255 scale, or `scale`, the factor by which the image was enlarged, or
        the `level` itself. A model that fills missing pixels takes `missing`, which is true there;
        those pixels of `x` must hold a guess (`csae.torch.fill`). Without them the level is 0 and
        all pixels are known.

        With `return_code` it returns the code of the same pass, too, for a penalty in training.
        """
        names = [self._plan.output] + [self._plan.code] * return_code
        run, outer = self._start(x, self._plan.output, sigma, scale, level, missing)
        self._run(run, self._plan.needed(*names))
        y = run.values[self._plan.output]
        if self._reconstructs_samples():
            y = self.denormalize(y[..., : outer.h, : outer.w])
        y = self._shaped(y, self._plan.output, x.dim())
        if not return_code:
            return y
        return y, self._shaped(run.values[self._plan.code], self._plan.code, x.dim())

    def encode(
        self,
        x: Tensor,
        *,
        sigma: Numbers | None = None,
        scale: Numbers | None = None,
        level: Numbers | None = None,
        missing: Tensor | None = None,
    ) -> Tensor:
        """Codes (N, C, H, W), or (N, units) for codes without positions. Arguments as `forward`."""
        return self._output(x, self._plan.code, sigma, scale, level, missing)

    def features(
        self,
        x: Tensor,
        layer: str | None = None,
        *,
        sigma: Numbers | None = None,
        scale: Numbers | None = None,
        level: Numbers | None = None,
        missing: Tensor | None = None,
    ) -> Tensor:
        """Output of a layer; by default of the code before winner-take-all selections at its end.

        These are the features of `csae features`. Other arguments as `forward`.
        """
        name = self._plan.code if layer is None else layer
        at = self._plan.find(name)
        while layer is None and sparsity.is_winner_rule(at):
            name = at.plan.inputs[0]
            at = self._plan.find(name)
        return self._output(x, name, sigma, scale, level, missing)

    def decode(
        self, code: Tensor, given: Tensor | None = None, *, missing: Tensor | None = None
    ) -> Tensor:
        """Reconstructions of codes.

        A decoder can read more than the code: the means of the images, or the switches of
        max_pool2d layers. It then needs `given`, the images to take them from. `missing` is as in
        `forward`.
        """
        plan = self._plan
        needed = plan.needed(plan.output, given=(plan.code,))
        names = {layer.plan.name for layer in needed}
        reads = {source for layer in needed for source in plan.sources(layer)}
        outside = "input" in reads or any(self._is_before(name) for name in names)
        if outside and given is None:
            raise ValueError(
                "the decoder also reads "
                + ", ".join(sorted(n for n in names | reads if self._is_before(n)))
                + ": pass the images that the codes are of as `given`"
            )
        run, outer = Run(), None
        if given is not None:
            run, outer = self._start(given, plan.output, None, None, None, missing)
        size, dim = self._size(plan.code), code.dim()
        if dim == 2:
            code = code.reshape(len(code), *size)
        elif dim == 3:
            code = code.unsqueeze(2)
        run.values[plan.code] = code
        self._run(run, needed)
        y = run.values[plan.output]
        if self._reconstructs_samples():
            y = self.denormalize(y if outer is None else y[..., : outer.h, : outer.w])
        signal = dim == 3 or given is not None and given.dim() == 3
        return self._shaped(y, plan.output, 3 if signal else 4)

    def target(self, x: Tensor) -> Tensor:
        """What the reconstructions of `x` are compared with: `x`, or the output of a layer."""
        if self._plan.target == "input":
            return x
        return self._output(x, self._plan.target)

    # ---- normalization ---------------------------------------------------------------------

    def normalize(self, x: Tensor) -> Tensor:
        """Maps samples in the units of the data to those that the layers take (N, C, …)."""
        if self._offset is None or self._divisor is None:
            return x
        shape = (-1,) + (1,) * (x.dim() - 2)
        return (x - self._offset.view(shape)) / self._divisor.view(shape)

    def denormalize(self, y: Tensor) -> Tensor:
        """Undoes `normalize`."""
        if self._offset is None or self._divisor is None:
            return y
        shape = (-1,) + (1,) * (y.dim() - 2)
        return y * self._divisor.view(shape) + self._offset.view(shape)

    # ---- training --------------------------------------------------------------------------

    @torch.no_grad()
    def constrain(self) -> None:
        """Applies the norms of atoms (`max_norm`, `unit_norm`). Call it after each update."""
        for weight, norm, exact in self._atoms():
            length = _norms(weight)
            factor = norm / length
            factor = torch.where(length > 0, factor, 1.0) if exact else factor.clamp(max=1.0)
            weight.mul_(factor)

    @torch.no_grad()
    def project_gradients(self) -> None:
        """Removes the component of gradients along atoms of norm 1. Call it before each update."""
        for weight, _, exact in self._atoms():
            if exact and weight.grad is not None:
                axes = _atom_axes(weight)
                along = (weight * weight.grad).sum(axes, keepdim=True)
                square = (weight * weight).sum(axes, keepdim=True)
                weight.grad -= torch.where(square > 0, along / square, 0.0) * weight

    def _atoms(self) -> Iterator[tuple[Tensor, float, bool]]:
        """Weights with a constraint on their atoms, the norm, and whether it is exact."""
        for layer in self._plan.layers:
            options = layer.plan.options
            exact, norm = bool(options.get("unit_norm")), options.get("max_norm")
            if exact or norm is not None:
                weight = self.tensor(layer.tensors["weight"].name)
                if weight.requires_grad:
                    yield weight, 1.0 if exact else float(norm or 0.0), exact

    # ---- tensors ---------------------------------------------------------------------------

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer with this name in the model file."""
        path, _, leaf = f"layers.{name}".rpartition(".")
        module: nn.Module = self
        for part in path.split("."):
            module = module._modules[part]  # type: ignore[assignment]
        found = module._parameters.get(leaf)
        return module._buffers[leaf] if found is None else found  # type: ignore[return-value]

    def tensors(self) -> dict[str, np.ndarray]:
        """The values of all tensors in 32-bit floats, by their names in the model file."""
        values = {name: self.tensor(name) for name in self._plan.tensors()}
        return {name: value.detach().cpu().float().numpy() for name, value in values.items()}

    # ---- inside ----------------------------------------------------------------------------

    def _ends(self) -> set[str]:
        plan = self._plan
        return {plan.output, plan.code, plan.target, *self.layer_names} - {"input"}

    def _size(self, name: str) -> Size:
        return self._plan.image if name == "input" else self._plan.find(name).size

    def _is_restorer(self) -> bool:
        """Whether it restores whole images of any size, if no layer is fully connected."""
        linear = any(isinstance(layer, layers.Linear) for layer in self._plan.layers)
        return bool(self.description.get("undoes")) and not linear

    def _reconstructs_samples(self) -> bool:
        plan = self._plan
        return (plan.target == "input" and not self.classes
                and self._size(plan.output) == plan.image)

    def _is_before(self, name: str) -> bool:
        """Whether a layer runs before the code, so that a decoder cannot know its output."""
        names = ["input", *self.layer_names]
        return names.index(name) < names.index(self._plan.code)

    def _set_normalization(self, table: Mapping[str, Any] | None) -> None:
        numbers: dict[str, Tensor | None] = {"offset": None, "divisor": None}
        if table is not None:
            numbers = {key: torch.tensor(table[key]) for key in numbers}
            if any(len(table[key]) != self._plan.image.c for key in numbers):
                raise ModelFileError("normalization: it needs a number for each channel")
        # They are part of the description, so that they are in no state_dict.
        self.register_buffer("_offset", numbers["offset"], persistent=False)
        self.register_buffer("_divisor", numbers["divisor"], persistent=False)

    def _output(self, x: Tensor, name: str, *conditions: Any) -> Tensor:
        conditions = conditions or (None,) * 4
        self._plan.find(name)
        run, _ = self._start(x, name, *conditions)
        self._run(run, self._plan.needed(name))
        return self._shaped(run.values[name], name, x.dim())

    def _run(self, run: Run, needed: list[Layer]) -> None:
        for layer in needed:
            name = layer.plan.name
            if name in run.values:
                continue
            tensors = {role: self.tensor(spec.name) for role, spec in layer.tensors.items()}
            inputs = (run.values[source] for source in layer.plan.inputs)
            run.values[name] = layer(run, *inputs, **tensors)

    def _start(
        self,
        x: Tensor,
        end: str,
        sigma: Numbers | None,
        scale: Numbers | None,
        level: Numbers | None,
        missing: Tensor | None,
    ) -> tuple[Run, Size]:
        """Checks and pads the samples, and returns the pass and the size before padding."""
        image, signal = self._plan.image, self._plan.image.h == 1
        if not x.is_floating_point():
            raise TypeError(
                f"x has type {x.dtype}, but a model takes floats"
                + ("" if self._offset is not None else " from 0 to 1, such as x.float() / 255")
            )
        if x.dim() == 3 and signal:
            x = x.unsqueeze(2)
        if x.dim() != 4 or x.shape[1] != image.c:
            axes = f"(N, {image.c}, L)" if signal else f"(N, {image.c}, H, W)"
            raise ValueError(f"x has shape {tuple(x.shape)}, but the model takes {axes}")
        outer = Size(*x.shape[1:])
        align, fixed = self._align[end]
        if outer != image and fixed is not None and not self._is_restorer():
            raise ValueError(
                f"x has {outer.h}x{outer.w} pixels, but layer {fixed} works for {image.h}x"
                f"{image.w} only: cut or resize the images"
            )
        # The program pads images that it reconstructs, but not the samples of a training step.
        if fixed is not None and not self._is_restorer() or self.training and outer == image:
            align = 1
        x = _mirrored(self.normalize(x), align)
        run = Run(values={"input": x})
        run.level = self._level(x, sigma, scale, level)
        if missing is not None:
            if not any(isinstance(layer, sparsity.Known) for layer in self._plan.layers):
                raise ValueError("missing has no effect on this model: it takes no mask")
            known = 1.0 - missing.to(x)
            known = known.reshape(-1, *(known.shape[1:] if known.dim() == 4 else (1, outer.h,
                                                                                   outer.w)))
            run.known = _mirrored(known.expand(len(x), *outer), align)
        return run, outer

    def _level(
        self, x: Tensor, sigma: Numbers | None, scale: Numbers | None, level: Numbers | None
    ) -> Tensor | None:
        given = {"sigma": sigma, "scale": scale, "level": level}
        named = [name for name, value in given.items() if value is not None]
        if not named:
            return None
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} exclude each other: pass one of them")
        if not any("slope" in layer.tensors for layer in self._plan.layers):
            raise ValueError(f"{named[0]} has no effect on this model: it takes no level")
        value = torch.as_tensor(given[named[0]], dtype=x.dtype, device=x.device)
        if named == ["sigma"]:
            value = value / 255.0
        elif named == ["scale"]:
            # As the program defines it: the magnitude of noise levels.
            value = 0.1 * (value - 1.0)
        return value.expand(len(x))

    def _shaped(self, y: Tensor, name: str, dim: int) -> Tensor:
        """Drops the axes of positions of vectors, and the one row of signals."""
        if self._size(name).area == 1:
            return y.flatten(1)
        return y.squeeze(2) if dim == 3 and y.shape[2] == 1 else y


def _tree(plan: Description, tensors: Mapping[str, np.ndarray] | None) -> nn.Module:
    """A tree of modules in which every layer and every tensor is where its name says.

    Names are inserted as they are: `half` and `type` are names of layers, although they are
    attributes of modules, too.
    """
    root = nn.Module()

    def place(parts: list[str]) -> nn.Module:
        module = root
        for part in parts:
            if part not in module._modules:
                module._modules[part] = nn.Module()
            module = module._modules[part]  # type: ignore[assignment]
        return module

    # A layer comes before those whose names begin with its name.
    for layer in sorted(plan.layers, key=lambda layer: layer.plan.name.count(".")):
        *parts, leaf = layer.plan.name.split(".")
        place(parts)._modules[leaf] = layer
    for name, spec in plan.tensors().items():
        values = np.zeros(spec.shape, dtype=np.float32) if tensors is None else tensors.get(name)
        if values is None:
            raise ModelFileError(f"the file has no tensor {name}; it does not fit its architecture")
        if values.shape != spec.shape:
            raise ModelFileError(
                f"tensor {name} has shape {values.shape}, but the model needs {spec.shape}"
            )
        if not np.isfinite(values).all():
            raise ModelFileError(
                f"tensor {name} is not finite: the file is damaged, or its training diverged"
            )
        *parts, leaf = name.split(".")
        module = place(parts)
        if leaf in module._modules:
            raise ModelFileError(f"tensor {name} has the name of a layer; rename one of them")
        value = torch.from_numpy(values.copy())
        if spec.role in ("learned", "frozen"):
            module._parameters[leaf] = nn.Parameter(value, requires_grad=spec.role == "learned")
        else:
            module._buffers[leaf] = value
    return root


def _mirrored(x: Tensor, align: int) -> Tensor:
    """Pads maps at the right and the bottom to multiples of `align`, mirrored at the edge."""
    for axis in (2, 3):
        size = x.shape[axis]
        full = -(-size // align) * align
        if full > size:
            at = torch.arange(full, device=x.device) % (2 * size)
            x = x.index_select(axis, torch.where(at < size, at, 2 * size - 1 - at))
    return x


def _atom_axes(weight: Tensor) -> tuple[int, ...]:
    """Axes of an atom: the weights that lead out of one input channel."""
    return (0,) if weight.dim() == 2 else (1, 2, 3)


def _norms(weight: Tensor) -> Tensor:
    return weight.square().sum(_atom_axes(weight), keepdim=True).sqrt()
