"""Small models with every layer. Each is an encoder whose layers are compared one by one."""

from __future__ import annotations

from typing import Any

Layer = dict[str, Any]


def conv(name: str, filters: int | str = 4, **options: Any) -> Layer:
    """A convolution that keeps the size."""
    return {"name": name, "op": "conv2d", "filters": filters, "kernel": 3, "padding": "same",
            **options}


def model(size: tuple[int, int, int], *layers: Layer, **more: Any) -> dict[str, Any]:
    """A model whose code is its last layer, unless `more` names another one."""
    return {"input": list(size), "code": layers[-1]["name"], "layers": list(layers), **more}


ACTIVATIONS: tuple[Any, ...] = (
    "identity", "relu", {"kind": "leaky_relu", "slope": 0.2}, {"kind": "elu", "alpha": 1.5},
    "softplus", "sigmoid", "tanh", "gelu", "silu",
)

# Sides are multiples of the strides: `csae features` resizes other images.
COLOUR, FIELD, THIRDS = (3, 8, 12), (5, 9, 7), (5, 9, 15)


def _name(activation: Any) -> str:
    return activation if isinstance(activation, str) else activation["kind"]


CASES: dict[str, dict[str, Any]] = {
    "conv2d/same": model(COLOUR, conv("a", activation="relu")),
    "conv2d/options": model(
        (4, 12, 18),
        {"name": "a", "op": "conv2d", "filters": 6, "kernel": [3, 2], "stride": [2, 3],
         "padding": [3, 1], "dilation": [2, 1], "groups": 2, "bias": False},
    ),
    "conv2d/depthwise": model(FIELD, conv("a", 5, groups=5)),
    "conv2d/input_filters": model(COLOUR, conv("a"), conv("b", filters="input")),
    "conv_transpose2d/options": model(
        (4, 6, 5),
        {"name": "a", "op": "conv_transpose2d", "filters": 6, "kernel": [3, 4], "stride": [2, 3],
         "padding": [1, 0], "output_padding": [1, 2], "groups": 2},
    ),
    "conv_transpose2d/dilation": model(
        FIELD,
        {"name": "a", "op": "conv_transpose2d", "filters": 3, "kernel": [3, 2], "dilation": [2, 3],
         "padding": [2, 1], "activation": "tanh"},
    ),
    "linear/units": model(COLOUR, {"name": "a", "op": "linear", "units": 7}),
    "linear/shape": model(
        FIELD, {"name": "a", "op": "linear", "shape": [2, 3, 5], "activation": "relu"}
    ),
    "linear/like": model(
        FIELD, conv("a"), {"name": "b", "op": "linear", "units": 5, "bias": False},
        {"name": "c", "op": "linear", "like": "a", "max_norm": 1.0},
    ),
    "linear/shared": model(
        FIELD, {"name": "a", "op": "linear", "units": 6},
        {"name": "b", "op": "linear", "units": 6, "weight": "both"},
        {"name": "c", "op": "linear", "units": 6, "weight": "both"},
    ),
    "max_pool2d": model(
        THIRDS, {"name": "a", "op": "max_pool2d", "kernel": [3, 2], "stride": [3, 1],
                 "padding": [1, 1]}
    ),
    "avg_pool2d": model(
        THIRDS, {"name": "a", "op": "avg_pool2d", "kernel": 4, "stride": 3, "padding": 1}
    ),
    "avg_pool2d/without_pad": model(
        THIRDS, {"name": "a", "op": "avg_pool2d", "kernel": 4, "stride": 3, "padding": 2,
                 "count_include_pad": False}
    ),
    "l2_pool2d": model(
        THIRDS, {"name": "a", "op": "l2_pool2d", "kernel": 4, "stride": 3, "padding": 2}
    ),
    "max_unpool2d": model(
        COLOUR, conv("a"), {"name": "pool", "op": "max_pool2d", "kernel": 2},
        conv("b", activation="relu"), {"name": "c", "op": "max_unpool2d", "switches": "pool"},
    ),
    "max_unpool2d/overlap": model(
        COLOUR, conv("a"),
        {"name": "pool", "op": "max_pool2d", "kernel": 3, "stride": 2, "padding": 1},
        conv("b"), {"name": "c", "op": "max_unpool2d", "switches": "pool"},
    ),
    "upsample_nearest2d": model(
        FIELD, {"name": "a", "op": "upsample_nearest2d", "scale": [2, 3]}
    ),
    "pixel_shuffle": model(
        COLOUR, conv("a", 18), {"name": "b", "op": "pixel_shuffle", "scale": 3}
    ),
    **{
        f"activation/{_name(one)}": model(
            FIELD, {"name": "a", "op": "activation", "activation": one}, conv("b", activation=one)
        )
        for one in ACTIVATIONS
    },
    "dropout": model(FIELD, {"name": "a", "op": "dropout", "p": 0.4}, conv("b")),
    "soft_threshold": model(FIELD, conv("a"), {"name": "b", "op": "soft_threshold"}),
    "soft_threshold/level": model(
        FIELD, conv("a"), {"name": "b", "op": "soft_threshold", "slope": 0.1}
    ),
    "top_k": model(FIELD, conv("a"), {"name": "b", "op": "top_k", "k": 20}),
    "top_k/per_position": model(
        FIELD, conv("a"), {"name": "b", "op": "top_k", "per_position": 0.5}
    ),
    "batch_top_k": model(FIELD, conv("a"), {"name": "b", "op": "batch_top_k", "k": 20}),
    "spatial_wta": model(
        FIELD, conv("a"), {"name": "b", "op": "spatial_wta"}, conv("c")
    ),
    "lifetime_wta": model(
        FIELD, conv("a"), {"name": "b", "op": "lifetime_wta", "rate": 0.3}, conv("c")
    ),
    "lista": model(
        COLOUR,
        {"name": "a", "op": "lista", "filters": 5, "kernel": [5, 3], "stride": [2, 1],
         "iterations": 3},
        {"name": "b", "op": "conv_transpose2d", "filters": "input", "kernel": [5, 3],
         "stride": [2, 1], "padding": [2, 1], "output_padding": [1, 0], "bias": False},
        {"name": "c", "op": "add", "from": ["b", "a.mean"]},
    ),
    "lista/inside": model(
        COLOUR, conv("z"),
        {"name": "a", "op": "lista", "filters": 5, "kernel": 3, "stride": 2, "iterations": 2,
         "slope": 0.1, "masked": False},
    ),
    "lista/masked": model(
        COLOUR, {"name": "a", "op": "lista", "filters": 5, "kernel": 3, "iterations": 2,
                 "masked": True},
    ),
    "local_contrast": model(
        COLOUR, {"name": "a", "op": "local_contrast", "window": 5, "eps": 0.01}, conv("b")
    ),
    "local_contrast/defaults": model(COLOUR, {"name": "a", "op": "local_contrast"}, conv("b")),
    "whiten": model(COLOUR, {"name": "a", "op": "whiten", "kernel": [5, 3]}, conv("b")),
    "known": model(COLOUR, {"name": "a", "op": "known"}, conv("b")),
    "merges": model(
        COLOUR, conv("a"), conv("b", **{"from": ["input"]}),
        {"name": "c", "op": "add", "from": ["a", "b"]},
        {"name": "d", "op": "sub", "from": ["c", "a"]},
        {"name": "e", "op": "concat", "from": ["d", "input", "a"]},
    ),
    "names_of_modules": model(
        COLOUR, conv("half"), conv("half.type"), conv("train.encoder.0"), conv("forward")
    ),
    "frozen": model(COLOUR, conv("a", frozen=True), conv("b")),
    "signals": model(
        (3, 1, 24),
        {"name": "a", "op": "conv1d", "filters": 4, "kernel": 5, "padding": 2, "stride": 2},
        {"name": "p", "op": "max_pool1d", "kernel": 2},
        {"name": "b", "op": "conv_transpose1d", "filters": 3, "kernel": 4, "stride": 2,
         "padding": 1},
        {"name": "u", "op": "upsample_nearest1d", "scale": 2},
    ),
}


def autoencoder(
    size: tuple[int, int, int], code: str, *layers: Layer, **more: Any
) -> dict[str, Any]:
    """An autoencoder with every channel count filled in."""
    return {"input": list(size), "code": code, "layers": list(layers), **more}


#: Autoencoders that train every layer in some combination.
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "averages and thresholds": autoencoder(
        (4, 12, 8), "code", conv("a", 8, groups=2, activation={"kind": "leaky_relu", "slope": 0.2}),
        {"name": "pool", "op": "avg_pool2d", "kernel": 3, "stride": 2, "padding": 1,
         "count_include_pad": False},
        conv("b", 6, kernel=[3, 5], dilation=[2, 1], activation={"kind": "elu", "alpha": 1.5}),
        {"name": "code", "op": "soft_threshold"},
        {"name": "up", "op": "upsample_nearest2d", "scale": 2},
        {"name": "d", "op": "conv_transpose2d", "filters": 6, "kernel": 3, "padding": 1,
         "groups": 2, "activation": "softplus"},
        conv("image", "input", activation="sigmoid"),
    ),
    "winners": autoencoder(
        (3, 12, 12), "code", conv("a", 8, activation="tanh"),
        {"name": "pool", "op": "max_pool2d", "kernel": 3, "stride": 2, "padding": 1},
        conv("b", 8), {"name": "winners", "op": "spatial_wta"},
        {"name": "code", "op": "lifetime_wta", "rate": 0.4},
        {"name": "unpool", "op": "max_unpool2d", "switches": "pool"},
        conv("image", "input", kernel=5),
    ),
    "odd sizes": autoencoder(
        (3, 7, 9), "code", conv("a", 6, activation="softplus"),
        {"name": "pool", "op": "max_pool2d", "kernel": 2}, conv("code", 6, activation="relu"),
        {"name": "unpool", "op": "max_unpool2d", "switches": "pool"}, conv("image", "input"),
    ),
    "roots and shuffles": autoencoder(
        (3, 8, 12), "code", conv("a", 8, activation="gelu"),
        {"name": "pool", "op": "l2_pool2d", "kernel": 2},
        {"name": "f", "op": "activation", "activation": "gelu"}, conv("b", 12, activation="silu"),
        {"name": "code", "op": "top_k", "per_position": 1.5},
        {"name": "dropout", "op": "dropout", "p": 0.3},
        {"name": "up", "op": "pixel_shuffle", "scale": 2}, conv("e", 3),
        {"name": "both", "op": "concat", "from": ["e", "a"]}, conv("g", 3),
        {"name": "image", "op": "sub", "from": ["g", "e"]},
    ),
    "vectors": autoencoder(
        (2, 5, 7), "code", {"name": "a", "op": "linear", "units": 20, "activation": "silu"},
        {"name": "b", "op": "linear", "units": 20, "weight": "both", "activation": "tanh"},
        {"name": "c", "op": "linear", "units": 20, "weight": "both"},
        {"name": "code", "op": "batch_top_k", "k": 5, "rate": 0.3},
        {"name": "image", "op": "linear", "shape": [2, 5, 7], "bias": False},
    ),
    "prepared": autoencoder(
        (3, 12, 12), "code", {"name": "white", "op": "whiten", "kernel": 3},
        {"name": "contrast", "op": "local_contrast", "window": 5, "eps": 0.1},
        conv("a", 6, activation="relu", stride=2),
        {"name": "code", "op": "soft_threshold", "threshold": "all.threshold"},
        {"name": "d", "op": "conv_transpose2d", "filters": "input", "kernel": 3, "stride": 2,
         "padding": 1, "output_padding": 1},
        {"name": "image", "op": "soft_threshold"}, target="contrast",
    ),
    "frozen": autoencoder(
        (3, 8, 8), "code", conv("a", 6, frozen=True, activation="relu"),
        conv("code", 6, activation="relu"), conv("image", "input"),
    ),
}

#: An autoencoder with atoms of bounded norm, and one with atoms of norm 1.
CONSTRAINED = autoencoder(
    (3, 8, 8), "code", conv("a", 6, stride=2, activation="relu"),
    {"name": "code", "op": "linear", "units": 9, "activation": "relu"},
    {"name": "b", "op": "linear", "like": "a", "max_norm": 0.8},
    {"name": "image", "op": "conv_transpose2d", "filters": "input", "kernel": 4, "stride": 2,
     "padding": 1, "unit_norm": True},
)
