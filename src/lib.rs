//! `csae`: convolutional sparse autoencoders on any GPU, with a CPU path that is the kernels' twin.
//!
//! # The architecture, on one page
//!
//! ```text
//!  spec     what a run is: TOML → Config (model, data, loss, sparsity, optimiser, schedule); presets; --set
//!    │
//!  model    ModelSpec → Graph (shapes inferred, parameters named) → Builder walks it forward and backward → Tape: calls on virtual
//!    │      buffers → laid into real ones by their lifetimes. Store: parameters, gradients, moments, each one buffer. File: safetensors.
//!  ops      one struct an operation (its sizes and views), and how it is recorded as dispatches; `Call` is any of them
//!    ├── gpu        shaders → naga reflection → pipelines; Plan: prebuilt {pipeline, bind group, grid}, replayed in one submission
//!    └── reference  the same call on the CPU, generic over f32 (work) and f64 (oracle)
//!  device   the enum over both: buffers, write, read, compile, run, profile (when each dispatch or call ran, and what it costs at least)
//!    │
//!  train    data on the device, one step recorded once, replayed with what changes in one small uniform; log, validation,
//!           checkpoints; a run's folder, from its creation to its end
//!  tasks    what users do with a model: evaluate, inspect (pictures, charts, a page), reconstruct; features, linear probes of them, classifiers, segmenters,
//!           detectors (one training loop: `tasks::supervised`), anomaly maps, sweeps over sparsity rules; priors on codes and new images (`tasks::generate`); textures and styles
//!           (`tasks::paint`); what restoration needs beside a model: tiles, noise levels, image files as they were saved, the published protocols
//!  verify   the case table against the oracle, stored cases with another program's answers, central differences
//!  bench    training steps and kernels, timed; a step's time by kernel beside the floor of its work; how cost grows; then and now
//!  hash     of what is kept: checkpoints, model files, the cache's names
//!  cache    where measurements of this machine's adapters are kept between runs
//!  data     folders, lists, IDX, CIFAR and npy files, bundled sets → bytes and a table, or a catalogue to stream from; patches;
//!           resizing, colours, noise and masks
//! ```
//!
//! # Conventions
//!
//! Shapes are NCHW at every interface; memory is dense with channels innermost, on every device.
//! Names: x, w, b, y and dx, dw, db, dy; K filters of R×S, output P×Q. A fully connected layer is a
//! convolution with one pixel, a transposed convolution the adjoint of a convolution: three
//! operations (`Conv2dFwd`, `Conv2dBwdInput`, `Conv2dBwdWeight`) are all of them. A selection
//! (TopK, winner-take-all, dropout) is an operation that writes a mask, and `MaskApply`, forward
//! and backward alike. Maps (values of layers, their gradients, masks) may be in half precision,
//! and nothing else: `Map` in the shaders, [`ops::View::half`] on the host, rounded where they are
//! stored by the CPU path. Kernels by cooperative matrices round weights too, as they load them.
//! What is memory-bound is part of what comes before it: bias and activation end a product, a loss
//! writes its gradient, and an operation that writes all of a gradient multiplies it by the slope
//! of the activation below (a gate, `model::Builder`). A max pooling of 2×2 ends a convolution,
//! whose own output is never stored (`Conv2dMaxPoolFwd`). Parameters are learned, frozen, or fixed
//! (computed from the images before training: `train/whiten.rs`); in memory the learned ones come
//! first, so that gradients, moments and updates cover those alone. What the output is to be like
//! is the input, or a layer that nothing learned comes before ([`model::Graph::target`]). A layer
//! of a description may be several of a graph (`lista`, `model::layers`); a graph whose thresholds
//! depend on the noise is told each sample's level ([`model::Builder::level`]).
//!
//! # Adding an operation
//!
//! `shaders/foo_fwd.wgsl`, `shaders/foo_bwd.wgsl`, a line each in `gpu/kernels.rs`; `ops/foo.rs`
//! and a name in `ops/mod.rs`; `reference/foo.rs`; rows in `verify/table.rs`; if it is a layer, its
//! keys in `spec/layer.rs` and its part in `model/layers/`. A test fails for each of them that is
//! forgotten.

pub mod bench;
pub mod cache;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod gpu;
pub mod hash;
pub mod model;
pub mod ops;
pub mod profile;
pub mod reference;
pub mod rng;
pub mod shape;
pub mod spec;
pub mod tasks;
pub mod train;
pub mod verify;
