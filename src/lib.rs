//! Convolutional sparse autoencoders on any GPU, with a CPU path that computes the same.
//!
//! # The architecture, on one page
//!
//! Each name is a room: a module, or a folder of modules. A room imports only from rooms below it.
//! `tests/suite/rooms.rs` reads this picture and checks it against every import.
//!
//! ```text
//! bench      training steps and kernels, timed; a step's time by kernel against the floor
//! verify     the case table, stored PyTorch cases and central differences: does this device compute right?
//! tasks      what users do with a model, one folder a task
//! priors     probability models of codes, from which new codes are sampled
//! train      data on the device, one recorded step, its replay; log, validation, checkpoints, run folders
//! report     pictures, charts, pages, the training history
//! infer      a trained model on batches and on images of any size; evaluation
//! metrics    image quality, ranking, detection, segmentation, distances between sets
//! spec       TOML → Config: model, data, loss, sparsity, optimiser, schedule; presets; --set
//! record     a graph's forward and backward pass as calls, and the memory that they share
//! model      ModelSpec → Graph: layers, shapes, parameters, receptive fields; the model file
//! device     the CPU path or a GPU behind one interface: buffers, write, read, compile, run, profile
//! program    a call is any operation; a program is a list of calls that both interpreters run
//! ops        one file an operation: sizes, least work, dispatches on a GPU, computation on the CPU
//! reference  the CPU path's memory, generic over f32 (work) and f64 (oracle), and its threads
//! gpu        shaders → naga reflection → pipelines; a plan, recorded once and replayed in one submission
//! data       files and bundled sets → images in memory or streamed; annotations; patches
//! raster     functions on pixel arrays: resampling, filling holes, noise and masks, colours
//! linalg     matrix products, distances, minimisation
//! profile    when each dispatch ran, and the least work it stands for
//! budget     how much memory may be used
//! view       ranges of buffers, and the parameters of a step
//! shape      every size formula
//! cache      measurements of this machine's adapters, kept between runs
//! files      files that are written completely or not at all
//! rng        random numbers by counter: the same on every device
//! names      closed sets of names: what may be written for a key
//! hash       fingerprints of checkpoints, model files and cache entries
//! error      the error type
//! ```
//!
//! The binary (`main.rs` and `cli/`, one file a command) uses the library and nothing else.
//!
//! # Conventions
//!
//! Shapes are NCHW at every interface. In memory channels are innermost, on every device. Names: x,
//! w, b, y and dx, dw, db, dy; K filters of R×S; output P×Q.
//!
//! Three operations compute every product: `Conv2dFwd`, `Conv2dBwdInput` and `Conv2dBwdWeight`. A
//! fully connected layer is a convolution with one pixel. A transposed convolution is the adjoint of
//! a convolution.
//!
//! A selection (TopK, winner-take-all, dropout) writes a mask. `MaskApply` multiplies by it, forward
//! and backward alike.
//!
//! Memory-bound work is fused into the operation before it. Bias and activation end a product. A
//! loss writes its gradient. An operation that writes a whole gradient multiplies it by the slope of
//! the activation below (a *gate*, see [`record::Builder`]). A 2×2 max pooling ends a convolution,
//! whose own output is never stored (`Conv2dMaxPoolFwd`).
//!
//! Maps (layer values, their gradients, masks) may be in half precision, nothing else may. The CPU
//! path rounds them where it stores them ([`view::View::half`]). Kernels with cooperative matrices
//! also round weights as they load them.
//!
//! Parameters are learned, frozen, or fixed (computed from the images before training, see
//! `train/whiten.rs`). Learned ones come first in memory, so that gradients, moments and updates
//! cover only those. The reconstruction target is the input, or a layer without learned layers
//! before it ([`model::Graph::target`]).
//!
//! One layer of a description can become several graph nodes (`lista`, `model::layers`). A graph
//! whose thresholds depend on the noise level takes that level for each sample
//! ([`record::Builder::level`]).
//!
//! # Adding to it
//!
//! `.github/CONTRIBUTING.md` says which files a new operation, optimiser, data format or command
//! touches, and what goes where.

pub mod bench;
pub mod budget;
pub mod cache;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod gpu;
pub mod hash;
pub mod infer;
pub mod linalg;
pub mod metrics;
pub mod model;
mod names;
pub mod ops;
pub mod priors;
pub mod profile;
pub mod program;
pub mod raster;
pub mod record;
pub mod reference;
pub mod report;
pub mod rng;
pub mod shape;
pub mod spec;
pub mod tasks;
#[cfg(test)]
mod testing;
pub mod train;
pub mod verify;
pub mod view;
