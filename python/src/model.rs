//! The class behind `csae.Model`.

use std::path::PathBuf;

use csae::{
    Array, Compression, DeviceChoice, ErrorKind, Image, Model, ModelBuilder, Noise, Result, Size,
    TrainOptions,
};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict};

use crate::errors::convert;
use crate::worker::Worker;

/// A shape (N, C, H, W) and the bytes of the values.
type Given<'py> = ([usize; 4], Bound<'py, PyBytes>);
type Returned<'py> = ([usize; 4], Bound<'py, PyByteArray>);

/// The name of a layer, and the shape (C, H, W) of its output.
type Layer = (String, (usize, usize, usize));

/// A bundled model, to find out whether a device can be opened.
const SMALL: &str = "denoise";

/// A model on its thread.
#[pyclass(module = "csae._csae", frozen)]
pub struct Core {
    worker: Worker,
}

#[pymethods]
impl Core {
    /// Reads a model file, the model of a run folder, or a bundled model.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, device: &str, memory: Option<u64>) -> PyResult<Self> {
        Self::open(py, device, memory, move |builder| builder.load(&path))
    }

    /// Reads a model from the bytes of a file.
    #[staticmethod]
    fn of_bytes(
        py: Python<'_>,
        content: Vec<u8>,
        device: &str,
        memory: Option<u64>,
    ) -> PyResult<Self> {
        Self::open(py, device, memory, move |builder| builder.from_bytes(&content))
    }

    /// Creates a model with random parameters. `input` is C, H, W. `settings` are keys of the
    /// description and their values in TOML.
    #[staticmethod]
    fn create(
        py: Python<'_>,
        description: String,
        settings: Vec<(String, String)>,
        input: [usize; 3],
        seed: u64,
        device: &str,
        memory: Option<u64>,
    ) -> PyResult<Self> {
        let [c, h, w] = input;
        Self::open(py, device, memory, move |builder| {
            let builder = builder.seed(seed).input(c, Size::new(h, w));
            let set =
                |builder: ModelBuilder, (key, value): &(String, String)| builder.set(key, value);
            settings.iter().fold(builder, set).from_toml(&description)
        })
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.worker.call(py, move |model| model.save(&path))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let content = self.worker.call(py, Model::to_bytes)?;
        Ok(PyBytes::new(py, &content))
    }

    fn device(&self, py: Python<'_>) -> PyResult<String> {
        self.worker.call(py, |model| Ok(model.device()))
    }

    fn input_shape(&self, py: Python<'_>) -> PyResult<(usize, usize, usize)> {
        self.worker.call(py, |model| Ok(model.input_shape().into()))
    }

    fn code_shape(&self, py: Python<'_>) -> PyResult<(usize, usize, usize)> {
        self.worker.call(py, |model| Ok(model.code_shape().into()))
    }

    fn layers(&self, py: Python<'_>) -> PyResult<Vec<Layer>> {
        self.worker.call(py, |model| {
            let layers = model.layers().into_iter();
            Ok(layers.map(|layer| (layer.name, layer.shape.into())).collect())
        })
    }

    fn parameter_count(&self, py: Python<'_>) -> PyResult<usize> {
        self.worker.call(py, |model| Ok(model.parameter_count()))
    }

    fn description(&self, py: Python<'_>) -> PyResult<String> {
        self.worker.call(py, |model| Ok(model.to_toml()))
    }

    fn encode<'py>(&self, py: Python<'py>, images: Given<'py>) -> PyResult<Returned<'py>> {
        self.on_array(py, &images, Model::encode)
    }

    fn decode<'py>(&self, py: Python<'py>, codes: Given<'py>) -> PyResult<Returned<'py>> {
        self.on_array(py, &codes, Model::decode)
    }

    fn reconstruct<'py>(&self, py: Python<'py>, images: Given<'py>) -> PyResult<Returned<'py>> {
        self.on_array(py, &images, Model::reconstruct)
    }

    fn features<'py>(
        &self,
        py: Python<'py>,
        images: Given<'py>,
        layer: Option<String>,
    ) -> PyResult<Returned<'py>> {
        self.on_array(py, &images, move |model, images| model.features(images, layer.as_deref()))
    }

    /// `sigma`: the noise level on the scale 0 to 255. `None` estimates it.
    fn denoise<'py>(
        &self,
        py: Python<'py>,
        image: Given<'py>,
        sigma: Option<f64>,
        ensemble: bool,
    ) -> PyResult<Returned<'py>> {
        let noise = sigma.map_or(Noise::Auto, Noise::Sigma);
        self.on_image(py, &image, ensemble, move |model, image| model.denoise(image, noise))
    }

    fn inpaint<'py>(
        &self,
        py: Python<'py>,
        image: Given<'py>,
        mask: Given<'py>,
        ensemble: bool,
    ) -> PyResult<Returned<'py>> {
        let mask = array(&mask)?;
        self.on_image(py, &image, ensemble, move |model, image| {
            model.inpaint(image, &Image::new(mask)?)
        })
    }

    fn upscale<'py>(
        &self,
        py: Python<'py>,
        image: Given<'py>,
        scale: usize,
        ensemble: bool,
    ) -> PyResult<Returned<'py>> {
        self.on_image(py, &image, ensemble, move |model, image| model.upscale(image, scale))
    }

    /// `quality`: that of the JPEG compression, 1 to 100.
    fn deblock<'py>(
        &self,
        py: Python<'py>,
        image: Given<'py>,
        quality: u8,
        ensemble: bool,
    ) -> PyResult<Returned<'py>> {
        let compression = Compression::Quality(quality);
        self.on_image(py, &image, ensemble, move |model, image| model.deblock(image, compression))
    }

    /// Trains on images. `settings` are keys of a description and their values in TOML. `callback`
    /// gets a dictionary; a result that is `False` stops the training.
    fn train<'py>(
        &self,
        py: Python<'py>,
        images: Given<'py>,
        settings: Vec<(String, String)>,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let images = array(&images)?;
        let report = self.worker.run(
            py,
            move |model, waiting| {
                let mut options = TrainOptions::new();
                for (key, value) in settings {
                    options = options.set(&key, value);
                }
                model.train(&images, options.on_progress(|now| waiting.report(now)))
            },
            |progress| {
                let Some(callback) = &callback else { return Ok(true) };
                let now = PyDict::new(py);
                now.set_item("step", progress.step)?;
                now.set_item("total", progress.total)?;
                now.set_item("epoch", progress.epoch)?;
                now.set_item("loss", progress.loss)?;
                now.set_item("sparsity", progress.sparsity)?;
                now.set_item("active", progress.active)?;
                now.set_item("learning_rate", progress.learning_rate)?;
                now.set_item("images_per_second", progress.images_per_second)?;
                let answer = callback.bind(py).call1((now,))?;
                // None is no answer.
                Ok(answer.is_none() || answer.is_truthy()?)
            },
        )?;
        let result = PyDict::new(py);
        result.set_item("steps", report.steps)?;
        result.set_item("stopped", report.stopped)?;
        result.set_item("seconds", report.seconds)?;
        result.set_item("images_per_second", report.images_per_second)?;
        result.set_item("psnr", report.psnr)?;
        result.set_item("ssim", report.ssim)?;
        result.set_item("active", report.active)?;
        result.set_item("dead", report.dead)?;
        Ok(result)
    }
}

impl Core {
    fn open(
        py: Python<'_>,
        device: &str,
        memory: Option<u64>,
        open: impl FnOnce(ModelBuilder) -> Result<Model> + Send + 'static,
    ) -> PyResult<Self> {
        let device = DeviceChoice::from(device);
        let work = move || {
            let mut builder = Model::builder().device(device.clone());
            if let Some(bytes) = memory {
                builder = builder.max_memory(bytes);
            }
            // A missing GPU is a fault of the machine, not of a value.
            open(builder).map_err(|error| match Model::builder().device(device).bundled(SMALL) {
                Err(missing) if error.to_string() == missing.to_string() => {
                    missing.of(ErrorKind::Failed)
                }
                _ => error,
            })
        };
        Ok(Self { worker: Worker::start(py, work)? })
    }

    fn on_array<'py>(
        &self,
        py: Python<'py>,
        given: &Given<'py>,
        work: impl FnOnce(&mut Model, &Array) -> Result<Array> + Send + 'static,
    ) -> PyResult<Returned<'py>> {
        let given = array(given)?;
        let result = self.worker.call(py, move |model| work(model, &given))?;
        returned(py, &result)
    }

    fn on_image<'py>(
        &self,
        py: Python<'py>,
        given: &Given<'py>,
        ensemble: bool,
        work: impl FnOnce(&mut Model, &Image) -> Result<Image> + Send + 'static,
    ) -> PyResult<Returned<'py>> {
        let given = array(given)?;
        let result = self.worker.call(py, move |model| {
            model.set_ensemble(ensemble);
            work(model, &Image::new(given)?)
        })?;
        returned(py, result.pixels())
    }
}

fn array((shape, bytes): &Given<'_>) -> PyResult<Array> {
    let values = bytes.as_bytes().chunks_exact(size_of::<f32>());
    let values = values.map(|value| f32::from_ne_bytes([value[0], value[1], value[2], value[3]]));
    Array::new(*shape, values.collect()).map_err(|error| convert(&error))
}

fn returned<'py>(py: Python<'py>, array: &Array) -> PyResult<Returned<'py>> {
    let values = array.values();
    let bytes = PyByteArray::new_with(py, size_of_val(values), |bytes| {
        for (to, value) in bytes.chunks_exact_mut(size_of::<f32>()).zip(values) {
            to.copy_from_slice(&value.to_ne_bytes());
        }
        Ok(())
    })?;
    Ok((array.shape(), bytes))
}
