//! Convolutional sparse autoencoders on any GPU, and a CPU path with the same results.
//!
//! [`Model`] holds the layers, the parameters and the device. It restores images ([`Image`]), and
//! encodes, decodes and trains on arrays ([`Array`]: N×C×H×W, `f32`, pixels from 0 to 1).
//!
//! ```no_run
//! use csae::{Image, Model, Noise};
//!
//! let noisy = Image::open("noisy.png")?;
//! let clean = Model::bundled("denoise")?.denoise(&noisy, Noise::Auto)?;
//! clean.save("clean.png")?;
//! # Ok::<(), csae::Error>(())
//! ```
//!
//! | Task | Items |
//! |---|---|
//! | restore images | [`Model::denoise`], [`Model::inpaint`], [`Model::upscale`] |
//! | remove the artefacts of JPEG | [`Model::deblock`] |
//! | encode and decode | [`Model::encode`], [`Model::decode`], [`Model::reconstruct`] |
//! | extract features for a classifier | [`Model::features`] |
//! | train on arrays | [`Model::train`], [`TrainOptions`] |
//! | describe a model | [`Model::from_toml`], [`preset`] |
//! | choose a device | [`Model::builder`], [`DeviceChoice`] |
//!
//! [`guide`] is the guide to the program, one page for each topic.
//!
//! `tests/examples` has four programs: `denoise_image`, `train_on_arrays`, `own_model` and
//! `features_to_file`.
//!
//! # Cargo features
//!
//! `cli` (default) builds the program `csae` and everything that only the program needs: the
//! command line, charts, XML. A library can do without: `csae = { version = "0.1", default-features
//! = false }`.
//!
//! `hdf5` (default) reads files of HDF5, NetCDF-4 and MATLAB 7.3. It adds 0.9 MB to the program.
//!
//! # Architecture
//!
//! This section and those below are for work on csae itself. The modules that they name are not
//! part of the documented interface and change without notice.
//!
//! Each name is a room: a module, or a folder of modules. A room imports only from rooms below it.
//! `tests/suite/rooms.rs` reads this table and checks every import.
//!
//! ```text
//! cli        the command line, one file per command
//! api        the documented interface of the library: Model, Array, Image
//! bench      times of training steps and kernels; profiles by kernel
//! verify     tests of a device: the case table, stored PyTorch cases, central differences
//! tasks      the tasks of users, one folder per task
//! priors     probability models of codes, to sample new codes
//! train      batches, the recorded training step, log, validation, checkpoints, run folders
//! export     a model as a file for other programs: ONNX, a page for browsers
//! report     pictures, charts, pages, the training history
//! infer      running a trained model on batches and on images of any size; evaluation
//! metrics    image quality, ranking, detection, segmentation, distances between sets
//! spec       TOML → Config: model, data, loss, sparsity, optimiser, schedule; presets; --set
//! record     the forward and backward pass of a graph as calls, and their shared memory
//! model      ModelSpec → Graph: layers, shapes, parameters, receptive fields; the model file
//! device     the CPU path or a GPU behind one interface: buffers, compile, run, profile
//! program    a call is any operation; a program is a list of calls that both interpreters run
//! ops        one file per operation: sizes, minimum work, GPU dispatches, CPU computation
//! reference  the CPU path's memory, generic over f32 (work) and f64 (oracle), and its threads
//! gpu        shaders → naga reflection → pipelines; plans, replayed in one submission
//! annotations  labels of pixels and boxes of objects: files, matching to images, augmentation
//! data       files and bundled sets → images in memory or streamed; patches
//! raster     functions on pixel arrays: resampling, filling holes, noise and masks, colours
//! linalg     matrix products, distances, minimisation
//! profile    the time of each dispatch, and its minimum work
//! budget     memory limits
//! view       ranges of buffers, and the parameters of a step
//! sample_type  the types of stored samples: bytes, 16 bits, floats
//! shape      every size formula
//! ranks      processes that train together: MPI loaded at run time, sockets on one machine
//! cache      measurements of this machine's adapters, kept between runs
//! tensor_file  safetensors files, written part by part
//! protobuf   messages of protocol buffers
//! files      atomic file writes, locks
//! rng        counter-based random numbers, the same on every device
//! advice     what messages advise; the program names the flags that do it
//! names      enums with names: the values that a key or flag accepts
//! hash       fingerprints of checkpoints, model files and cache entries
//! error      the error type
//! guide      the pages of the guide
//! ```
//!
//! The binary (`main.rs`) calls `cli`, and owns what concerns the whole process: its allocator and
//! its environment. The Python package (`python/`) is a crate of its own, which calls `api` and
//! `cli`.
//!
//! # Conventions
//!
//! Shapes are NCHW at every interface. In memory channels are innermost, on every device. Names: x,
//! w, b, y and dx, dw, db, dy; K filters of R×S; output P×Q.
//!
//! Three operations compute every product: `Conv2dFwd`, `Conv2dBwdInput` and `Conv2dBwdWeight`. A
//! fully connected layer is a convolution with one pixel. A transposed convolution is the adjoint
//! of a convolution.
//!
//! A selection (TopK, winner-take-all, dropout) writes a mask. `MaskApply` multiplies by the mask
//! in the forward and in the backward pass.
//!
//! Memory-bound work is fused into the operation before it: products apply bias and activation, and
//! losses write their gradient. An operation that writes a whole gradient multiplies it by the
//! slope of the activation below (a *gate*, see [`record::Builder`]). A convolution followed by 2×2
//! max pooling is one operation, which does not store the convolution's output
//! (`Conv2dMaxPoolFwd`). A weight gradient computes the bias gradient, too. A gate also adds the
//! gradient of an L1 penalty ([`ops::Gate`]). Sums of partial results wait until a dispatch needs
//! one of them, and then run together ([`gpu::Recorder::wait`]). On a GPU, the update of the
//! parameters computes those that are gradients itself (`ops/sums.rs`).
//!
//! Only maps (layer values, their gradients, masks) can be in half precision. The CPU path rounds
//! them where it stores them ([`view::View::half`]). Kernels with cooperative matrices also round
//! weights as they load them.
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
//! # Contributing
//!
//! `.github/CONTRIBUTING.md` says which files a new operation, optimiser, data format or command
//! touches, and what goes where.

mod api;

pub use api::{
    Array, Compression, Depth, DeviceChoice, Error, ErrorKind, Image, Layer, Model, ModelBuilder,
    Noise, Progress, Result, Size, TrainOptions, TrainReport, bundled_models, devices, preset,
    presets,
};

mod advice;
#[cfg(feature = "cli")]
mod annotations;
#[cfg(feature = "cli")]
mod bench;
mod budget;
mod cache;
#[cfg(feature = "cli")]
mod cli;
mod data;
mod device;
mod error;
#[cfg(feature = "cli")]
mod export;
mod files;
mod gpu;
pub mod guide;
mod hash;
mod infer;
mod linalg;
mod metrics;
mod model;
mod names;
mod ops;
#[cfg(feature = "cli")]
mod priors;
mod profile;
mod program;
#[cfg(feature = "cli")]
mod protobuf;
mod ranks;

mod raster;
mod record;

mod reference;
#[cfg(feature = "cli")]
mod report;
mod rng;
mod sample_type;
mod shape;
mod spec;
mod tasks;
mod tensor_file;
#[cfg(test)]
mod testing;
mod train;
#[cfg(feature = "cli")]
mod verify;
mod view;

/// Everything that the program, the tests and the benchmarks use in addition to the documented
/// interface. It changes without notice.
#[allow(missing_docs)]
#[doc(hidden)]
pub mod internals {
    pub mod advice {
        pub use crate::advice::*;
    }
    #[cfg(feature = "cli")]
    pub mod annotations {
        pub use crate::annotations::*;
    }
    #[cfg(feature = "cli")]
    pub mod bench {
        pub use crate::bench::*;
    }
    pub mod budget {
        pub use crate::budget::*;
    }
    pub mod cache {
        pub use crate::cache::*;
    }
    /// The program, for `main.rs` and for the Python package.
    #[cfg(feature = "cli")]
    pub mod cli {
        pub use crate::cli::{Allocator, main, share_heap, without_displays};
    }
    pub mod data {
        pub use crate::data::*;
    }
    pub mod device {
        pub use crate::device::*;
    }
    pub mod error {
        pub use crate::error::*;
    }
    #[cfg(feature = "cli")]
    pub mod export {
        pub use crate::export::*;
    }
    pub mod files {
        pub use crate::files::*;
    }
    pub mod gpu {
        pub use crate::gpu::*;
    }
    pub mod hash {
        pub use crate::hash::*;
    }
    pub mod infer {
        pub use crate::infer::*;
    }
    pub mod linalg {
        pub use crate::linalg::*;
    }
    pub mod metrics {
        pub use crate::metrics::*;
    }
    pub mod model {
        pub use crate::model::*;
    }
    pub mod ops {
        pub use crate::ops::*;
    }
    #[cfg(feature = "cli")]
    pub mod priors {
        pub use crate::priors::*;
    }
    pub mod profile {
        pub use crate::profile::*;
    }
    pub mod program {
        pub use crate::program::*;
    }
    pub mod raster {
        pub use crate::raster::*;
    }
    pub mod record {
        pub use crate::record::*;
    }
    pub mod reference {
        pub use crate::reference::*;
    }
    #[cfg(feature = "cli")]
    pub mod report {
        pub use crate::report::*;
    }
    pub mod rng {
        pub use crate::rng::*;
    }
    pub mod sample_type {
        pub use crate::sample_type::*;
    }
    pub mod shape {
        pub use crate::shape::*;
    }
    pub mod spec {
        pub use crate::spec::*;
    }
    pub mod tasks {
        pub use crate::tasks::*;
    }
    pub mod train {
        pub use crate::train::*;
    }
    #[cfg(feature = "cli")]
    pub mod verify {
        pub use crate::verify::*;
    }
    pub mod view {
        pub use crate::view::*;
    }
}
