"""From the description of a model in its file to its layers, with sizes and tensor names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import layers, sparsity
from .file import ModelFileError
from .layer import REQUIRED, Layer, Pair, Plan, Size, Spec, pair

#: The layers by the name of their operation.
OPERATIONS: Mapping[str, type[Layer]] = {
    "conv2d": layers.Conv2d,
    "conv_transpose2d": layers.ConvTranspose2d,
    "linear": layers.Linear,
    "max_pool2d": layers.MaxPool2d,
    "avg_pool2d": layers.AvgPool2d,
    "l2_pool2d": layers.L2Pool2d,
    "max_unpool2d": layers.MaxUnpool2d,
    "upsample_nearest2d": layers.UpsampleNearest2d,
    "pixel_shuffle": layers.PixelShuffle,
    "activation": layers.Activation,
    "dropout": sparsity.Dropout,
    "soft_threshold": sparsity.SoftThreshold,
    "top_k": sparsity.TopK,
    "batch_top_k": sparsity.BatchTopK,
    "spatial_wta": sparsity.SpatialWta,
    "lifetime_wta": sparsity.LifetimeWta,
    "local_contrast": layers.LocalContrast,
    "whiten": layers.Whiten,
    "known": sparsity.Known,
    "add": layers.Add,
    "sub": layers.Sub,
    "concat": layers.Concat,
}

#: Parts of `lista` that no description names.
PARTS: Mapping[str, type[Layer]] = {"map_mean": layers.MapMean, "spread": layers.Spread}

#: The options of `lista`, which `expand` replaces by simpler layers.
LISTA: Mapping[str, Any] = {
    "filters": REQUIRED, "kernel": REQUIRED, "stride": 1, "iterations": REQUIRED, "value": 0.01,
    "slope": None, "masked": False,
}

#: Layers that have a spelling for signals, such as conv1d: images of one row.
SIGNAL_LAYERS = ("conv", "conv_transpose", "max_pool", "max_unpool", "avg_pool", "l2_pool",
                 "upsample_nearest")
#: What a size along a signal becomes across it.
ACROSS_SIGNALS = {"kernel": 1, "stride": 1, "dilation": 1, "scale": 1, "padding": 0,
                  "output_padding": 0}


@dataclass(frozen=True)
class Description:
    """The layers of a model in the order in which they run, and which of them matter."""

    layers: tuple[Layer, ...]
    image: Size
    code: str
    output: str
    #: The layer whose output is the reconstruction target; `input` by default.
    target: str

    def tensors(self) -> dict[str, Spec]:
        """The tensors by name. Layers can share them."""
        found: dict[str, Spec] = {}
        for layer in self.layers:
            for spec in layer.tensors.values():
                role = "frozen" if layer.plan.frozen and spec.role == "learned" else spec.role
                known = found.get(spec.name)
                if known is not None and known.shape != spec.shape:
                    raise layer.refuse(
                        f"it shares {spec.name}, whose shape is {known.shape}, but needs "
                        f"{spec.shape}"
                    )
                # A shared tensor is frozen if any of its layers is.
                if known is None or role == "frozen":
                    found[spec.name] = spec._replace(role=role)
        return found

    def find(self, name: str) -> Layer:
        """The layer called `name`."""
        for layer in self.layers:
            if layer.plan.name == name:
                return layer
        names = ", ".join(layer.plan.name for layer in self.layers)
        raise ModelFileError(f"the model has no layer {name!r}; its layers are {names}")

    def sources(self, layer: Layer) -> list[str]:
        """The layers that a layer reads, switches included."""
        more = [layer.plan.options["switches"]] if isinstance(layer, layers.MaxUnpool2d) else []
        return [*layer.plan.inputs, *more]

    def needed(self, *ends: str, given: tuple[str, ...] = ("input",)) -> list[Layer]:
        """The layers that `ends` depend on, in order; `given` are known already."""
        wanted, live = set(ends) - set(given), []
        for layer in reversed(self.layers):
            if layer.plan.name in wanted:
                live.append(layer)
                wanted.update(set(self.sources(layer)) - set(given))
        return live[::-1]

    def geometry(self, end: str) -> tuple[int, str | None]:
        """How the output of a layer depends on the size of images.

        Returns the number that sides must be multiples of, and the layer that fixes the size of
        images, if there is one: it is fully connected, or compares whole maps of a sample.
        """
        align, fixed = 1, None
        live = self.needed(end)
        for side in (0, 1):
            scales: dict[str, Pair] = {"input": (1, 1)}
            for layer in live:
                name = layer.plan.name
                if isinstance(layer, layers.MapMean):
                    # Of a map inside the model the program knows only the mean of a tile.
                    fixed = fixed or (None if layer.plan.inputs == ("input",) else name)
                    continue
                if isinstance(layer, layers.Linear) or sparsity.compares_maps(layer):
                    fixed = fixed or name
                known = [scales[source] for source in self.sources(layer) if source in scales]
                if isinstance(layer, layers.Spread) or not known:
                    continue
                pixels, positions = known[0]
                step = self.step(layer, side)
                pixels, positions = pixels * step[0], positions * step[1]
                common = math.gcd(pixels, positions)
                scales[name] = (pixels // common, positions // common)
                align = math.lcm(align, pixels // common)
        return align, fixed

    def step(self, layer: Layer, side: int) -> Pair:
        """As `Layer.step`; unpooling is the adjoint of its pooling."""
        if isinstance(layer, layers.MaxUnpool2d):
            stride, _ = self.find(layer.plan.options["switches"]).step(side)
            return (1, stride)
        return layer.step(side)


def describe(model: Mapping[str, Any]) -> Description:
    """Builds the layers of a model description. Raises `ModelFileError` for what it cannot."""
    try:
        image = Size(*model["input"])
        found: list[Layer] = []
        sizes: dict[str, Size] = {"input": image}
        # Sizes of what max_pool2d layers read, for max_unpool2d.
        pools: dict[str, Size] = {}
        last = "input"
        for table in model["layers"]:
            for name, op, inputs, options in expand(dict(table), last, sizes):
                layer = _build(name, op, inputs, options, sizes, pools, bool(table.get("frozen")))
                found.append(layer)
                sizes[name], last = layer.size, name
                if isinstance(layer, layers.MaxPool2d):
                    pools[name] = layer.plan.sizes[0]
        description = Description(
            tuple(found), image, model["code"], model.get("output", last),
            model.get("target", "input"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"the model description is not complete: {error}") from error
    for end in {description.code, description.output, description.target} - {"input"}:
        description.find(end)
    return description


def _build(
    name: str, op: str, inputs: tuple[str, ...], options: Mapping[str, Any],
    sizes: Mapping[str, Size], pools: Mapping[str, Size], frozen: bool,
) -> Layer:
    kind = OPERATIONS.get(op) or PARTS.get(op)
    if kind is None:
        known = ", ".join(OPERATIONS)
        raise ModelFileError(
            f"layer {name}: op {op!r} is unknown to this version; it knows {known}"
        )
    wanted = kind.INPUTS
    if name in sizes or any(one not in sizes for one in inputs) or (
        len(inputs) < 2 if wanted is None else len(inputs) != wanted
    ):
        raise ModelFileError(f"layer {name}: its name or its inputs {list(inputs)} do not fit")
    options = _filled(name, kind.OPTIONS, options)
    read = tuple(sizes[one] for one in inputs)
    if kind is layers.MaxUnpool2d:
        if options["switches"] not in pools:
            raise ModelFileError(
                f"layer {name}: switches = {options['switches']!r} is not a max_pool2d before it"
            )
        read += (pools[options["switches"]],)
    return kind(Plan(name, op, inputs, read, options, sizes["input"], dict(sizes), frozen))


def _filled(name: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a layer with their defaults."""
    unknown = [key for key in given if key not in known]
    missing = [key for key, value in known.items() if value is REQUIRED and key not in given]
    if unknown or missing:
        keys = ", ".join(unknown or missing)
        raise ModelFileError(
            f"layer {name}: option {keys} is {'unknown to this version' if unknown else 'missing'}"
        )
    return {**known, **given}


def expand(
    table: dict[str, Any], last: str, sizes: Mapping[str, Size]
) -> list[tuple[str, str, tuple[str, ...], dict[str, Any]]]:
    """The layers that a layer of a description stands for: name, op, inputs and options."""
    name, op = table.pop("name"), table.pop("op")
    given = table.pop("from", None) or [last]
    inputs = tuple([given] if isinstance(given, str) else given)
    table.pop("frozen", None)
    if op.endswith("1d") and op[:-2] in SIGNAL_LAYERS:
        op = f"{op[:-2]}2d"
        for key, across in ACROSS_SIGNALS.items():
            if isinstance(table.get(key), int):
                table[key] = [across, table[key]]
    if op != "lista":
        return [(name, op, inputs, table)]
    if len(inputs) != 1 or inputs[0] not in sizes:
        raise ModelFileError(f"layer {name}: its inputs {list(inputs)} do not fit")
    return _lista(name, inputs[0], _filled(name, LISTA, table), sizes[inputs[0]])


def _lista(
    name: str, source: str, options: Mapping[str, Any], x: Size
) -> list[tuple[str, str, tuple[str, ...], dict[str, Any]]]:
    """Unrolled iterative soft thresholding: z ← soft(z − A(B z − y), t), which starts from z = 0.

    y is the input minus its mean in each channel.
    """
    stride = pair(options["stride"])
    if x.h % stride[0] or x.w % stride[1]:
        raise ModelFileError(f"layer {name}: its stride must divide the input size {x}")
    shared = {"kernel": options["kernel"], "stride": options["stride"], "padding": "same",
              "bias": False, "init": "dictionary"}
    analysis = {**shared, "filters": options["filters"]}
    synthesis = {**shared, "filters": x.c, "output_padding": [stride[0] - 1, stride[1] - 1]}
    found: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
        (f"{name}.pooled", "map_mean", (source,), {}),
        (f"{name}.mean", "spread", (f"{name}.pooled", source), {}),
        (f"{name}.y", "sub", (source, f"{name}.mean"), {}),
    ]
    z = ""
    for i in range(options["iterations"]):
        step = f"{name}.{i}"
        residual = f"{name}.y"
        if i > 0:
            found += [(f"{step}.synthesis", "conv_transpose2d", (z,), synthesis),
                      (f"{step}.residual", "sub", (f"{step}.synthesis", residual), {})]
            residual = f"{step}.residual"
            if options["masked"]:
                found.append((f"{step}.known", "known", (residual,), {}))
                residual = f"{step}.known"
        found.append((f"{step}.analysis", "conv2d", (residual,), analysis))
        before = f"{step}.analysis"
        if i > 0:
            found.append((f"{step}.step", "sub", (z, before), {}))
            before = f"{step}.step"
        z = name if i + 1 == options["iterations"] else f"{step}.z"
        threshold = {"value": options["value"], "slope": options["slope"],
                     "threshold": f"{step}.threshold"}
        found.append((z, "soft_threshold", (before,), threshold))
    return found
