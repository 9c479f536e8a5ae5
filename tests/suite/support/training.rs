//! Short trainings on generated data, through the step that `csae train` records.

use csae::internals::device::{Allocation, Device, Program};
use csae::internals::error::Result;
use csae::internals::model::{Graph, Purpose, Store};
use csae::internals::ops::Augment;
use csae::internals::program::Call;
use csae::internals::record::Memory;
use csae::internals::rng::Stream;
use csae::internals::sample_type::SampleType;
use csae::internals::shape::Dims;
use csae::internals::spec::{Config, Precision};
use csae::internals::train::step::{self, Objective, Reconstruction, Resident, StepSpec};
use csae::internals::view::StepParams;

/// Images in the resident set.
const IMAGES: usize = 12;
/// Rows of the ring of scalars.
const ROWS: usize = 4;

/// A model with everything that could make runs differ, at odd sizes: overlapping pooling,
/// dropout, L1, resurrected units, clipping, Adam.
pub const SMALL: &str = r#"
seed = 5
[model]
code = "code"
input = [3, 12, 12]
[[model.layers]]
name = "conv"
op = "conv2d"
filters = 7
kernel = 3
padding = "same"
activation = "relu"
[[model.layers]]
name = "pool"
op = "max_pool2d"
kernel = 3
stride = 2
padding = 1
[[model.layers]]
name = "code"
op = "linear"
units = 41
activation = "relu"
[[model.layers]]
name = "dropout"
op = "dropout"
p = 0.2
[[model.layers]]
name = "expand"
op = "linear"
like = "pool"
activation = "softplus"
[[model.layers]]
name = "out"
op = "conv_transpose2d"
filters = "input"
kernel = 4
stride = 2
padding = 1
activation = "sigmoid"
[sparsity]
penalty = "l1"
lambda = 0.02
revive_strength = 0.1
revive_patience = 2
[optimizer]
kind = "adam"
lr = 2e-3
clip_norm = 20.0
"#;

/// The configuration [`SMALL`].
pub fn small() -> Config {
    Config::parse(SMALL, "the small model", &[]).expect("the small model is sound")
}

/// A training.
#[derive(Debug)]
pub struct Training {
    /// The device.
    pub device: Device,
    /// The calls of a step.
    pub calls: Vec<Call>,
    /// The model.
    pub graph: Graph,
    /// Its values.
    pub store: Store,
    /// The step's own buffers.
    _memory: Memory,
    config: Config,
    scalars: Allocation,
    /// The resident images, their table and the order.
    _images: [Allocation; 4],
    n: usize,
    steps: u32,
    program: Option<Program>,
}

impl Training {
    /// Places the model and a resident set of images, larger than the model's input, on a device.
    pub fn new(device: Device, config: &Config, n: usize) -> Result<Self> {
        Self::with_binding(device, config, n, u64::MAX)
    }

    /// Like [`Training::new`] on a device whose bindings have at most `binding` elements.
    pub fn with_binding(
        mut device: Device,
        config: &Config,
        n: usize,
        binding: u64,
    ) -> Result<Self> {
        let [c, h, w] = config.model.input.unwrap_or([3, 16, 16]);
        let graph = Graph::new(&config.model, Dims::new(c, h, w))?;
        let store = Store::new(&mut device, &graph, Purpose::train(2))?;
        store.initialise(&mut device, &graph, config.seed);
        let scalars = device.alloc_real("scalars", ROWS * step::WIDTH)?;
        let augment = Augment { crop: true, flip_x: true, flip_y: false, turn: false };
        let images = resident(&mut device, Dims::new(c, h + 3, w + 2))?;
        let [bytes, table, order, scales] = images.each_ref().map(|images| **images);
        let spec = StepSpec {
            graph: &graph,
            store: &store,
            n,
            parts: 1,
            objective: Objective::Reconstruction(Reconstruction {
                corruption: &config.corruption,
                loss: config.loss.resolve(),
                sparsity: &config.sparsity,
                resident: Some(Resident {
                    bytes,
                    table,
                    scales,
                    order,
                    sample: SampleType::U8,
                    augment,
                }),
                compressed: None,
                count_code: true,
                masks_missing: false,
            }),
            optimizer: &config.optimizer,
            encoder: 0,
            scalars: *scalars,
            half: (config.train.precision == Precision::F16).then_some(n as f64),
            pieces: 1,
            binding,
        };
        let recorded = step::record(&mut device, &spec)?;
        Ok(Self {
            device,
            calls: recorded.segments.concat(),
            graph,
            store,
            _memory: recorded.memory,
            config: config.clone(),
            scalars,
            _images: images,
            n,
            steps: 0,
            program: None,
        })
    }

    /// Compiles the step once.
    pub fn compile(&mut self) {
        if self.program.is_none() {
            self.program =
                Some(self.device.compile(self.calls.clone()).expect("the step compiles"));
        }
    }

    /// Runs `count` steps.
    pub fn run(&mut self, count: usize) {
        self.compile();
        for _ in 0..count {
            let t = self.steps as i32 + 1;
            let [beta1, beta2] = self.config.optimizer.betas;
            let params = StepParams {
                step: self.steps,
                seed_lo: self.config.seed as u32,
                cursor: (self.steps as usize * self.n % (IMAGES + 1 - self.n)) as u32,
                lr: self.config.optimizer.lr as f32,
                correction1: (1.0 - beta1.powi(t)) as f32,
                correction2: (1.0 - beta2.powi(t)) as f32,
                sparsity_scale: (f64::from(t) / 8.0).min(1.0) as f32,
                slot: self.steps % ROWS as u32,
                ..StepParams::default()
            };
            self.device
                .run(self.program.as_ref().expect("compiled above"), &params)
                .expect("a step runs");
            self.steps += 1;
        }
    }

    /// The last step's scalars.
    pub fn scalars(&mut self) -> Vec<f32> {
        let row = (self.steps as usize - 1) % ROWS;
        let pending = self.device.fetch(*self.scalars).expect("scalars can be fetched");
        self.device.collect(pending).expect("scalars arrive")[row * step::WIDTH..][..step::WIDTH]
            .to_vec()
    }

    /// Every parameter.
    pub fn weights(&mut self) -> Vec<f32> {
        let all =
            self.store.read_all(&mut self.device, &self.graph).expect("parameters can be read");
        all.into_iter().flat_map(|(_, values)| values).collect()
    }
}

/// Smooth random images in bytes, their table, and an order.
fn resident(device: &mut Device, dims: Dims) -> Result<[Allocation; 4]> {
    let mut stream = Stream::new(21, "images");
    let mut bytes: Vec<u8> = Vec::new();
    let mut entries: Vec<u32> = Vec::new();
    for _ in 0..IMAGES {
        entries.extend([bytes.len() as u32, dims.h as u32, dims.w as u32]);
        let [fx, fy, phase] = [0; 3].map(|_: i32| stream.uniform());
        for i in 0..dims.len() {
            let (row, column, channel) = (i / dims.c / dims.w, i / dims.c % dims.w, i % dims.c);
            let wave =
                (row as f32 * fy + column as f32 * fx + phase * 6.0 + channel as f32 * 0.5).sin();
            bytes.push((127.0 + 90.0 * wave + 30.0 * stream.uniform()) as u8);
        }
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let packed: Vec<u32> =
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let mut words = |label: &str, data: &[u32]| -> Result<Allocation> {
        let buffer = device.alloc_words(label, data.len())?;
        device.write_words(*buffer, data);
        Ok(buffer)
    };
    let order = stream.permutation(IMAGES);
    let scales: Vec<u32> = [0.0_f32, 255.0].map(f32::to_bits).repeat(dims.c);
    Ok([
        words("images", &packed)?,
        words("table", &entries)?,
        words("order", &order)?,
        words("scales", &scales)?,
    ])
}
