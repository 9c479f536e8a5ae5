use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::array::Array;
use super::device::DeviceChoice;
use super::names::unknown;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::infer::reconstruct;
use crate::model::{self, Graph, LoadedModel, Purpose, Store};
use crate::shape::{Dims, Size};
use crate::spec::{Config, CorruptionSpec, ModelSpec};

/// A convolutional sparse autoencoder: its layers, its parameters and its device.
///
/// A model comes from a file ([`Model::load`]), from the library ([`Model::bundled`]), or from a
/// description in TOML ([`Model::from_toml`]). These three use the best GPU, or the CPU if there is
/// no GPU. [`Model::builder`] chooses another device.
///
/// Methods that compute take `&mut self`, since they use the device's memory. A model is neither
/// `Send` nor `Sync`: use it on the thread that created it.
///
/// # Examples
///
/// Reconstruct images in one step, and in two steps by way of their codes:
///
/// ```
/// use csae::{Array, Model, Size};
///
/// let text = csae::preset("sparse")?;
/// let mut model = Model::builder().device("cpu").input(1, Size::new(8, 8)).from_toml(text)?;
/// let images = Array::new([2, 1, 8, 8], vec![0.5; 128])?;
/// let codes = model.encode(&images)?;
/// assert_eq!(codes.shape(), [2, 128, 1, 1]);
/// assert_eq!(model.decode(&codes)?, model.reconstruct(&images)?);
/// # Ok::<(), csae::Error>(())
/// ```
#[derive(Debug)]
pub struct Model {
    /// The settings of training. `config.model` describes `graph`.
    pub(super) config: Config,
    pub(super) graph: Graph,
    pub(super) store: Store,
    pub(super) device: Device,
    /// Whether restoration averages over all flips and rotations by 90 degrees.
    pub(super) ensemble: bool,
    /// Whether to stop the work, see [`Model::set_stop`].
    pub(super) stop: Option<Arc<AtomicBool>>,
}

/// A layer of a [`Model`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// Name of the layer, for [`Model::features`].
    pub name: String,
    /// Shape (C, H, W) of the output for one image of the model's input size. A vector of D units
    /// has the shape D, 1, 1.
    pub shape: [usize; 3],
}

/// Creates a [`Model`] with a device, memory limit, seed or input size.
///
/// # Examples
///
/// ```
/// let model = csae::Model::builder().device("cpu").max_memory(1 << 30).bundled("denoise")?;
/// # Ok::<(), csae::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ModelBuilder {
    device: DeviceChoice,
    max_memory: Option<u64>,
    seed: Option<u64>,
    input: Option<[usize; 3]>,
    set: Vec<String>,
}

impl ModelBuilder {
    /// Sets the device. The default is [`DeviceChoice::Auto`].
    #[must_use]
    pub fn device(self, device: impl Into<DeviceChoice>) -> Self {
        Self { device: device.into(), ..self }
    }

    /// Sets the limit of memory on the device, in bytes. The default is the free memory.
    #[must_use]
    pub fn max_memory(self, bytes: u64) -> Self {
        Self { max_memory: Some(bytes), ..self }
    }

    /// Sets the seed of the random parameters of [`ModelBuilder::from_toml`]. It replaces the
    /// `seed` of the description, whose default is 0.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Sets the number of channels and the size of the input images of
    /// [`ModelBuilder::from_toml`]. They replace `model.input` of the description.
    #[must_use]
    pub fn input(self, channels: usize, size: Size) -> Self {
        Self { input: Some([channels, size.h, size.w]), ..self }
    }

    /// Sets any key of the description of [`ModelBuilder::from_toml`] to a value in TOML. A layer's
    /// key is `model.layers.NAME.KEY`.
    ///
    /// # Examples
    ///
    /// ```
    /// use csae::{Model, Size};
    ///
    /// let builder = Model::builder().device("cpu").input(1, Size::new(8, 8));
    /// let model =
    ///     builder.set("model.layers.code.units", 32).from_toml(csae::preset("sparse")?)?;
    /// assert_eq!(model.code_shape(), [32, 1, 1]);
    /// # Ok::<(), csae::Error>(())
    /// ```
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.set.push(format!("{key}={value}"));
        self
    }

    /// Reads a model file that this library or the program wrote, or the model of a run folder.
    ///
    /// # Errors
    /// When the file cannot be read or is not a model, the device cannot be opened, or the
    /// parameters do not fit into its memory.
    pub fn load(self, path: impl AsRef<Path>) -> Result<Model> {
        self.open(&model::load(path.as_ref())?)
    }

    /// Reads a model from the bytes of a model file, see [`Model::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are not a model file, the device cannot be opened, or the parameters do not
    /// fit into its memory.
    pub fn from_bytes(self, bytes: &[u8]) -> Result<Model> {
        self.open(&model::load_bytes(bytes, "model in memory")?)
    }

    /// Loads a model that is part of the library: one of [`bundled_models`](crate::bundled_models).
    ///
    /// # Errors
    /// When there is no model with this name, or the device cannot be opened.
    pub fn bundled(self, name: &str) -> Result<Model> {
        let loaded = model::bundled(name)
            .ok_or_else(|| unknown("bundled model", name, model::bundled_names()))?;
        self.open(&loaded)
    }

    /// Creates a model with random parameters from a description: the TOML that `csae train
    /// --config` reads. The sections other than `[model]` are the settings of [`Model::train`].
    ///
    /// The input size must be set, by `model.input` or [`ModelBuilder::input`]. With `train.from`,
    /// parameters with the same name and shape are copied from that model. The filters of whitening
    /// layers are 0 until [`Model::train`] computes them from the images.
    ///
    /// # Errors
    /// When the description is invalid (the message names the key), the model is not an
    /// autoencoder, or the device cannot be opened.
    pub fn from_toml(self, text: &str) -> Result<Model> {
        let mut config = Config::parse(text, "model description", &self.set)?;
        config.seed = self.seed.unwrap_or(config.seed);
        let [c, h, w] = self.input.or(config.model.input).ok_or_else(|| {
            Error::usage(
                "model description: the input size is missing; add input = [channels, height, \
                 width] to [model], or call ModelBuilder::input",
            )
        })?;
        config.model.undoes = config.corruption.clone();
        let graph = Graph::new(&config.model, Dims::new(c, h, w))?;
        graph.check_autoencoder()?;
        config.model = graph.spec.clone();
        let mut device = self.open_device()?;
        let store = Store::new(&mut device, &graph, Purpose::Infer)?;
        store.initialise(&mut device, &graph, config.seed);
        if let Some(from) = config.train.from.take() {
            model::load(Path::new(&from))
                .and_then(|loaded| loaded.copy_matching(&mut device, &graph, &store))
                .map_err(|error| error.at("train.from"))?;
        }
        Ok(Model { config, graph, store, device, ensemble: false, stop: None })
    }

    fn open(self, loaded: &LoadedModel) -> Result<Model> {
        let mut device = self.open_device()?;
        let graph = loaded.graph.clone();
        let store = loaded.place(&mut device, &graph, Purpose::Infer)?;
        let config = default_config(&graph.spec);
        Ok(Model { config, graph, store, device, ensemble: false, stop: None })
    }

    fn open_device(&self) -> Result<Device> {
        let mut device = self.device.open()?;
        device.limit_memory(self.max_memory);
        Ok(device)
    }
}

/// The settings with which a loaded model is trained further: the defaults.
fn default_config(spec: &ModelSpec) -> Config {
    let corruption: CorruptionSpec = spec.undoes.clone();
    Config {
        seed: 0,
        data: Default::default(),
        model: spec.clone(),
        corruption,
        loss: Default::default(),
        sparsity: Default::default(),
        optimizer: Default::default(),
        schedule: Default::default(),
        train: Default::default(),
        classify: None,
        segment: None,
        detect: None,
        prior: None,
    }
}

impl Model {
    /// Reads a model file that this library or the program wrote, or the model of a run folder.
    ///
    /// # Errors
    /// As [`ModelBuilder::load`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let mut model = csae::Model::load("runs/001")?;
    /// println!("{} parameters on {}", model.parameter_count(), model.device());
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().load(path)
    }

    /// Loads a model that is part of the library: one of [`bundled_models`](crate::bundled_models).
    /// `denoise`, `inpaint` and `upscale` restore images.
    ///
    /// # Errors
    /// As [`ModelBuilder::bundled`].
    pub fn bundled(name: &str) -> Result<Self> {
        Self::builder().bundled(name)
    }

    /// Creates a model with random parameters from a description in TOML.
    ///
    /// # Errors
    /// As [`ModelBuilder::from_toml`].
    ///
    /// # Examples
    ///
    /// ```
    /// use csae::Model;
    ///
    /// let model = Model::from_toml(
    ///     r#"
    ///     [model]
    ///     input = [1, 16, 16]
    ///     code = "code"
    ///
    ///     [[model.layers]]
    ///     name = "code"
    ///     op = "conv2d"
    ///     filters = 8
    ///     kernel = 4
    ///     stride = 4
    ///     activation = "relu"
    ///
    ///     [[model.layers]]
    ///     name = "decoder"
    ///     op = "conv_transpose2d"
    ///     filters = "input"
    ///     kernel = 4
    ///     stride = 4
    ///     "#,
    /// )?;
    /// assert_eq!(model.code_shape(), [8, 4, 4]);
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::builder().from_toml(text)
    }

    /// A builder, which sets the device, memory limit, seed or input size of a new model.
    pub fn builder() -> ModelBuilder {
        ModelBuilder::default()
    }

    /// Writes the model to a safetensors file that [`Model::load`] and the program read. The same
    /// model gives the same bytes.
    ///
    /// # Errors
    /// When the file cannot be written. An existing file then stays as it was.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<()> {
        model::save(path.as_ref(), &mut self.device, &self.graph, &self.store)
    }

    /// The bytes of the file that [`Model::save`] writes, for [`ModelBuilder::from_bytes`].
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use csae::Model;
    ///
    /// let mut model = Model::builder().device("cpu").bundled("denoise")?;
    /// let bytes = model.to_bytes()?;
    /// let mut copy = Model::builder().device("cpu").from_bytes(&bytes)?;
    /// assert_eq!(copy.to_bytes()?, bytes);
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn to_bytes(&mut self) -> Result<Vec<u8>> {
        model::to_bytes(&mut self.device, &self.graph, &self.store)
    }

    /// Sets a flag that stops the model's work when another thread sets it to `true`.
    ///
    /// Training then ends after its step, as if its callback returned `Break`. Methods that compute
    /// on images fail between two batches, images or strips of an image. The flag is not reset.
    pub fn set_stop(&mut self, flag: Arc<AtomicBool>) {
        self.stop = Some(flag);
    }

    /// Display name of the device: the adapter's name, or the CPU with its number of threads.
    pub fn device(&self) -> String {
        self.device.label()
    }

    /// Shape of one input image: C, H, W.
    pub fn input_shape(&self) -> [usize; 3] {
        shape(self.graph.nodes[0].dims)
    }

    /// Shape of the code of one input image: C, H, W. A flat code of D units is D, 1, 1.
    pub fn code_shape(&self) -> [usize; 3] {
        shape(self.graph.nodes[self.graph.code].dims)
    }

    /// The layers in order.
    pub fn layers(&self) -> Vec<Layer> {
        let layers = self.graph.nodes[1..].iter();
        layers.map(|node| Layer { name: node.name.clone(), shape: shape(node.dims) }).collect()
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.graph.parameter_count()
    }

    /// The description of the model and its training in TOML, with every value.
    pub fn to_toml(&self) -> String {
        self.config.to_toml()
    }

    /// Encodes images (N×C×H×W). The codes have the shape N×[`code_shape`](Model::code_shape).
    ///
    /// Images of another size than the model's input are encoded if all layers support that size,
    /// as convolutions do. A model that is conditioned on the noise level encodes the images as
    /// noise-free.
    ///
    /// # Errors
    /// When the model does not support the number of channels or the size, or the device fails.
    pub fn encode(&mut self, images: &Array) -> Result<Array> {
        let graph = resized(&self.graph, images)?;
        let dims = graph.nodes[graph.code].dims;
        let stop = self.stop.as_deref();
        let codes =
            pass(&mut self.device, &graph, &self.store, (images, stop), Inference::run_code)?;
        Ok(Array::of_samples(dims, &codes))
    }

    /// Decodes codes to images (N×C×H×W), in the units of the images that the model was trained on.
    /// Values are not clipped.
    ///
    /// # Errors
    /// When the codes do not have the shape of the model's codes, the decoder also reads layers
    /// before the code, the model reconstructs a layer's output instead of images, or the device
    /// fails.
    pub fn decode(&mut self, codes: &Array) -> Result<Array> {
        self.graph.check_autoencoder()?;
        self.graph.check_reconstructs_images()?;
        let graph = for_codes(&self.graph, codes)?;
        let inference = Inference::new(&graph, &self.store);
        let images = inference.decode(&mut self.device, &codes.to_nhwc())?.ok_or_else(|| {
            Error::usage(
                "codes alone do not determine an image: the decoder also reads layers before the \
                 code; call Model::reconstruct",
            )
        })?;
        Ok(outputs(&graph, graph.nodes[graph.output].dims, images))
    }

    /// Encodes and decodes images (N×C×H×W) of any size. Values are not clipped.
    ///
    /// Images of another size than the model's input are processed in overlapping tiles, which are
    /// blended without seams. Smaller images are mirrored at their edges first.
    ///
    /// # Errors
    /// When the number of channels is not the model's, the model reconstructs a layer's output
    /// instead of images, or the device fails.
    pub fn reconstruct(&mut self, images: &Array) -> Result<Array> {
        self.graph.check_autoencoder()?;
        self.graph.check_reconstructs_images()?;
        let (dims, input) = (images.dims(), self.graph.nodes[0].dims);
        check_channels(input, images)?;
        let output = if dims == input {
            let Self { device, graph, store, stop, .. } = self;
            pass(device, graph, store, (images, stop.as_deref()), Inference::run_output)?
        } else {
            let mut inference = Inference::new(&self.graph, &self.store);
            let mut all = Vec::with_capacity(images.values().len());
            for pixels in inputs(&self.graph, images).chunks_exact(dims.len()) {
                check_stop(self.stop.as_deref())?;
                let (device, inference) = (&mut self.device, &mut inference);
                all.extend(reconstruct::image(device, inference, pixels, dims.size())?);
            }
            all
        };
        Ok(outputs(&self.graph, dims, output))
    }

    /// Computes the output (N×C×H×W) of a layer for images (N×C×H×W). [`Model::layers`] lists the
    /// layers.
    ///
    /// With `None`, the layer is the code, before any winner-take-all selection: these are only for
    /// training. Images of other sizes are supported as by [`Model::encode`].
    ///
    /// # Errors
    /// When there is no such layer, the model does not support the number of channels or the size,
    /// or the device fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use csae::{Array, Model};
    ///
    /// let mut model = Model::builder().device("cpu").bundled("paint-1")?;
    /// let [c, h, w] = model.input_shape();
    /// let images = Array::new([1, c, h, w], vec![0.5; c * h * w])?;
    /// let first = model.layers()[0].clone();
    /// let maps = model.features(&images, first.name.as_str())?;
    /// assert_eq!(maps.shape()[1..], first.shape);
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn features<'a>(
        &mut self,
        images: &Array,
        layer: impl Into<Option<&'a str>>,
    ) -> Result<Array> {
        let spec = model::encoder(&self.graph, layer.into(), None)?;
        let encoder = Graph::new(&spec, self.graph.nodes[0].dims)?;
        let graph = resized(&encoder, images)?;
        // The encoder has a part of the model's parameters, with other indices.
        let store = Store::new(&mut self.device, &encoder, Purpose::Infer)?;
        let copied = self.store.copy_matching(&mut self.device, &self.graph, &store, &encoder);
        let (device, input) = (&mut self.device, (images, self.stop.as_deref()));
        let values = copied.and_then(|()| pass(device, &graph, &store, input, Inference::run_code));
        Ok(Array::of_samples(graph.nodes[graph.output].dims, &values?))
    }
}

const fn shape(dims: Dims) -> [usize; 3] {
    [dims.c, dims.h, dims.w]
}

/// A method of [`Inference`] that processes a batch.
type Pass<'a> = fn(
    &mut Inference<'a>,
    &mut Device,
    &[f32],
    &[crate::infer::conditions::Condition],
) -> Result<Vec<f32>>;

/// Whether the work is to be stopped.
pub(super) fn is_set(stop: Option<&AtomicBool>) -> bool {
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// Fails if the work is to be stopped.
pub(super) fn check_stop(stop: Option<&AtomicBool>) -> Result<()> {
    if is_set(stop) { Err(Error::failed("stopped before the end of the work")) } else { Ok(()) }
}

/// Runs images batch by batch; the result has the channels innermost.
fn pass<'a>(
    device: &mut Device,
    graph: &'a Graph,
    store: &Store,
    (images, stop): (&Array, Option<&AtomicBool>),
    run: Pass<'a>,
) -> Result<Vec<f32>> {
    let mut inference = Inference::new(graph, store);
    let batch = inference.batch(device) * graph.nodes[0].dims.len();
    let mut all = Vec::new();
    for samples in inputs(graph, images).chunks(batch) {
        check_stop(stop)?;
        all.extend(run(&mut inference, device, samples, &[])?);
    }
    Ok(all)
}

/// The images with the channels innermost, normalised as the model wants.
fn inputs(graph: &Graph, images: &Array) -> Vec<f32> {
    let mut values = images.to_nhwc();
    if let Some(normalization) = &graph.spec.normalization {
        normalization.apply(&mut values);
    }
    values
}

/// Images from reconstructions with the channels innermost, in the units of the data.
fn outputs(graph: &Graph, dims: Dims, mut values: Vec<f32>) -> Array {
    if let Some(normalization) = &graph.spec.normalization {
        normalization.undo(&mut values);
    }
    Array::of_samples(dims, &values)
}

fn check_channels(input: Dims, images: &Array) -> Result<()> {
    if images.channels() != input.c {
        return Err(Error::usage(format!(
            "the model takes {} channels, but the images have {}",
            input.c,
            images.channels()
        )));
    }
    Ok(())
}

/// The graph at the size of the images. Fails if the shape of a parameter depends on the size.
fn resized<'g>(graph: &'g Graph, images: &Array) -> Result<Cow<'g, Graph>> {
    let input = graph.nodes[0].dims;
    check_channels(input, images)?;
    at_size(graph, images.size())
}

fn at_size(graph: &Graph, size: Size) -> Result<Cow<'_, Graph>> {
    let input = graph.nodes[0].dims;
    if size == input.size() {
        return Ok(Cow::Borrowed(graph));
    }
    let place = || format!("images of {size}, but the model's input is {}", input.size());
    let other =
        Graph::new(&graph.spec, Dims::of(size, input.c)).map_err(|error| error.at(place()))?;
    let mut pairs = graph.params.iter().zip(&other.params);
    if let Some((fixed, _)) = pairs.find(|(one, other)| one.shape != other.shape) {
        return Err(Error::usage(format!(
            "{}: the shape of {} depends on the size; resize the images to the input size",
            place(),
            fixed.name
        )));
    }
    Ok(Cow::Owned(other))
}

/// The graph at the input size for which codes have the shape of `codes`.
fn for_codes<'g>(graph: &'g Graph, codes: &Array) -> Result<Cow<'g, Graph>> {
    let (input, code, given) = (graph.nodes[0].dims, graph.nodes[graph.code].dims, codes.dims());
    if given == code {
        return Ok(Cow::Borrowed(graph));
    }
    let fits = given.c == code.c && code.area() > 1;
    let size = Size { h: given.h * input.h / code.h, w: given.w * input.w / code.w };
    let other = if fits { at_size(graph, size).ok() } else { None };
    other.filter(|other| other.nodes[other.code].dims == given).ok_or_else(|| {
        Error::usage(format!(
            "the codes have shape {given}, but the model's codes have shape {code}"
        ))
    })
}
