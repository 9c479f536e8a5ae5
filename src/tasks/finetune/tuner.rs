//! A classifier's training: encoder and head on labelled images, by cross-entropy.

use super::data::{Changes, Labelled};
use crate::device::{Device, Program};
use crate::error::{Error, Kind as Cause, Result};
use crate::model::{Builder, Graph, HEAD, Loaded, Mode, Purpose, Store};
use crate::ops::{Adam, Call, CrossEntropy, StepParams, View, WINDOW};
use crate::rng::Stream;
use crate::tasks::infer::Inference;
use crate::tasks::probe::{Design, Kind, learn};

/// Scalars of a step: the loss.
const WIDTH: usize = 8;
/// Steps whose losses are kept on the device, so that none waits for its own.
const ROWS: usize = 256;
/// Adam's decay rates and ε.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;

/// How the head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// As the linear classifier of the encoder's features that fits the labelled images (Kumar et al., "Fine-Tuning can Distort Pretrained Features and
    /// Underperform Out-of-Distribution", 2022).
    Probe,
    /// Drawn.
    Fresh,
}

/// How it is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Passes over the labelled images at most.
    pub epochs: usize,
    /// Images of a step.
    pub batch: usize,
    /// Peak learning rate of the head; it falls to 0 along a cosine.
    pub lr: f64,
    /// The encoder's learning rate, as a share of the head's; 0: the encoder stays.
    pub encoder_lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Epochs without a better validation after which it stops.
    pub patience: usize,
    /// What is done to images.
    pub changes: Changes,
    /// How the head begins.
    pub head: Head,
    /// Seed of weights, order and changes.
    pub seed: u64,
}

/// An epoch's end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Passes over the labelled images.
    pub epoch: usize,
    /// Mean loss over them, as they were trained on; before the first pass it is not known.
    pub loss: Option<f64>,
    /// Share of errors on those held out.
    pub held_out: f64,
    /// Whether it is the best so far.
    pub best: bool,
}

/// A classifier on a device.
#[derive(Debug)]
pub struct Tuner<'a> {
    graph: &'a Graph,
    /// Its values.
    pub store: Store,
    inference: Inference<'a>,
    batch: usize,
    x: View,
    labels: View,
    scalars: View,
    /// Forward, backward, and the head's update; and the encoder's.
    passes: [Program; 2],
}

impl<'a> Tuner<'a> {
    /// Lays out a classifier for batches of so many images.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn new(device: &mut Device, graph: &'a Graph, batch: usize, weight_decay: f64) -> Result<Self> {
        let store = Store::new(device, graph, Purpose::train(2))?;
        let scalars = device.alloc_real("scalars of steps", ROWS * WIDTH)?;
        let mut b = Builder::new(graph, &store, batch, Mode::Train);
        let mut x = b.input();
        let mut labels = b.tape.words("labels", batch);
        b.tape.keep(labels);
        b.forward(x, &[graph.output]);
        let y = b.value(graph.output);
        let classes = graph.nodes[graph.output].dims.len();
        let dy = b.tape.map("gradient of the logits", y.len);
        let partials = b.tape.real("losses of samples", batch);
        b.tape.push(CrossEntropy { n: batch, classes, width: WIDTH, index: 0, y, labels, scalars, dy, partials });
        b.seed(graph.output, dy);
        b.backward();
        // the head comes last, so that its parameters are the last ones
        let head = graph.params.iter().position(|param| param.name == format!("{HEAD}.weight"));
        let start = store.weight(head.ok_or_else(|| Error::usage(format!("the model has no layer {HEAD}")))?).start;
        let update = |range: std::ops::Range<usize>| {
            let of = |view: View| view.part(range.start, range.len());
            let Store { weights, grads, m, v, .. } = store;
            let [beta1, beta2] = BETAS;
            let (grads, weights, m, v) = (of(grads), of(weights), of(m), of(v));
            Adam { grad_scale: 1.0, beta1, beta2, eps: EPS, weight_decay, decoupled: true, grads, weights, m, v }
        };
        // in windows, of which each can be bound
        let window = usize::try_from(device.max_elements()).unwrap_or(usize::MAX) / WINDOW * WINDOW;
        let updates = |range: std::ops::Range<usize>| -> Vec<Call> {
            let end = range.end;
            range.step_by(window).map(|first| update(first..end.min(first.saturating_add(window))).into()).collect()
        };
        updates(start..store.learned().len).into_iter().for_each(|call| b.tape.push(call));
        let (calls, _) = b.tape.allocate(device, &mut [&mut x, &mut labels])?;
        let encoder = updates(0..start);
        let passes = [device.compile(calls)?, device.compile(encoder)?];
        let inference = Inference::new(graph, &store);
        Ok(Self { graph, store, inference, batch, x, labels, scalars, passes })
    }

    /// Trains on the images `fit`, and keeps the weights that do best on those held out. `pretrained` lends the encoder its values; without it they are drawn.
    /// Returns the share of errors on held-out images.
    ///
    /// # Errors
    /// When the device fails, or a loss is no number.
    pub fn train(
        &mut self,
        device: &mut Device,
        pretrained: Option<&Loaded>,
        data: &Labelled,
        [fit, held]: [&[usize]; 2],
        options: &Options,
        mut tell: impl FnMut(Epoch) -> Result<()>,
    ) -> Result<f64> {
        self.begin(device, pretrained, data, fit, options)?;
        let errors = |tuner: &mut Self, device: &mut Device| -> Result<f64> {
            let found = tuner.classify(device, data, held)?;
            let wrong = found.iter().zip(held).filter(|(found, image)| **found != data.of[**image]).count();
            Ok(wrong as f64 / held.len().max(1) as f64)
        };
        let first = errors(self, device)?;
        tell(Epoch { epoch: 0, loss: None, held_out: first, best: true })?;
        let (mut best, mut kept, mut since) = (first, device.read(self.store.weights)?, 0);
        let states = device.read(self.store.state)?;
        let mut kept_states = states;
        let steps = fit.len().div_ceil(self.batch);
        let total = (steps * options.epochs) as u64;
        let mut step = 0;
        for epoch in 1..=options.epochs {
            let order = Stream::new(options.seed, "order").skip((epoch * fit.len()) as u64).permutation(fit.len());
            // the last batch is filled up from the front
            let order: Vec<u32> = order.iter().cycle().take(steps * self.batch).copied().collect();
            let mut loss = 0.0;
            for steps in order.chunks(ROWS * self.batch) {
                for (row, chosen) in steps.chunks_exact(self.batch).enumerate() {
                    let images: Vec<usize> = chosen.iter().map(|i| fit[*i as usize]).collect();
                    self.step(device, data, &images, [step, total], row, options)?;
                    step += 1;
                }
                loss += self.losses(device, steps.len() / self.batch, step, options.lr)?;
            }
            let held_out = errors(self, device)?;
            // later is better where it is as good: the rate has fallen
            let better = held_out <= best;
            if better {
                (best, kept, kept_states) = (held_out, device.read(self.store.weights)?, device.read(self.store.state)?);
            }
            since = if better { 0 } else { since + 1 };
            tell(Epoch { epoch, loss: Some(loss / steps as f64), held_out, best: better })?;
            if since >= options.patience {
                break;
            }
        }
        device.write(self.store.weights, &kept);
        device.write(self.store.state, &kept_states);
        Ok(best)
    }

    /// First values: drawn, lent, and the head fitted to the features where that is wanted.
    fn begin(
        &self,
        device: &mut Device,
        pretrained: Option<&Loaded>,
        data: &Labelled,
        fit: &[usize],
        options: &Options,
    ) -> Result<()> {
        let Self { graph, store, .. } = self;
        for view in [store.m, store.v] {
            device.write(view, &vec![0.0; view.len]);
        }
        store.initialise(device, graph, options.seed);
        if let Some(loaded) = pretrained {
            loaded.lend(device, graph, store)?;
        }
        if options.head == Head::Fresh {
            return Ok(());
        }
        // the layer before the head and its dropout
        let mut node = graph.nodes[graph.output].inputs[0];
        if graph.nodes[node].name.starts_with("head.") {
            node = graph.nodes[node].inputs[0];
        }
        let spec = crate::model::encoder(graph, Some(&graph.nodes[node].name), None)?;
        let encoder = Graph::new(&spec, graph.nodes[0].dims)?;
        let values = Store::new(device, &encoder, Purpose::Infer)?;
        store.lend(device, graph, &values, &encoder)?;
        let mut inference = Inference::new(&encoder, &values);
        let dims = encoder.nodes[encoder.output].dims;
        let mut design = Design::new(dims.len(), fit.iter().map(|image| data.of[*image]).collect());
        let batch = inference.batch(device);
        for (part, images) in fit.chunks(batch).enumerate() {
            let z = crate::shape::to_nchw(&inference.run_code(device, &data.batch(images), &[])?, dims);
            z.chunks_exact(dims.len()).enumerate().for_each(|(i, z)| design.row_mut(part * batch + i).copy_from_slice(z));
        }
        inference.release(device);
        values.views().into_iter().for_each(|view| device.free(view.buffer));
        let scaling = design.scaling();
        design.scale(&scaling);
        let (weights, biases) = learn(Kind::Logistic, &design, data.classes.len(), options.seed).unscaled(&scaling);
        for (name, all) in [("weight", weights), ("bias", biases)] {
            let name = format!("{HEAD}.{name}");
            let at = graph.params.iter().position(|param| param.name == name).expect("the head has a weight and a bias");
            device.write(store.weight(at), &graph.params[at].pack(&all));
        }
        Ok(())
    }

    /// Step `step` of `total`, whose loss goes to a row of the scalars.
    fn step(
        &self,
        device: &mut Device,
        data: &Labelled,
        images: &[usize],
        [step, total]: [u64; 2],
        row: usize,
        options: &Options,
    ) -> Result<()> {
        device.write(self.x, &data.changed(images, options.changes, options.seed, step));
        device.write_words(self.labels, &images.iter().map(|image| data.of[*image]).collect::<Vec<u32>>());
        let t = (step + 1).min(1 << 24) as i32;
        let falling = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total.max(1) as f64).cos());
        // a few steps of growth, before Adam's moments mean anything
        let rising = ((step + 1) as f64 / 10.0).min(1.0);
        let lr = options.lr * falling * rising;
        let params = StepParams {
            step: step as u32,
            seed_lo: options.seed as u32,
            seed_hi: (options.seed >> 32) as u32,
            lr: lr as f32,
            correction1: (1.0 - BETAS[0].powi(t)) as f32,
            correction2: (1.0 - BETAS[1].powi(t)) as f32,
            slot: row as u32,
            ..StepParams::default()
        };
        device.run(&self.passes[0], &params)?;
        if options.encoder_lr > 0.0 {
            device.run(&self.passes[1], &StepParams { lr: (lr * options.encoder_lr) as f32, ..params })?;
        }
        Ok(())
    }

    /// The sum of the losses of the last `rows` steps, before `step`.
    fn losses(&self, device: &mut Device, rows: usize, step: u64, lr: f64) -> Result<f64> {
        let mut sum = 0.0;
        for (row, scalars) in device.read(self.scalars)?.chunks_exact(WIDTH).take(rows).enumerate() {
            let loss = f64::from(scalars[0]);
            if !loss.is_finite() {
                let at = step - (rows - row) as u64;
                return Err(Error::failed(format!("after step {at} the loss is {loss}; use a smaller --lr (now {lr})"))
                    .of(Cause::Diverged));
            }
            sum += loss;
        }
        Ok(sum)
    }

    /// The class found for each of some images.
    ///
    /// # Errors
    /// When the device fails.
    pub fn classify(&mut self, device: &mut Device, data: &Labelled, images: &[usize]) -> Result<Vec<u32>> {
        let classes = self.graph.nodes[self.graph.output].dims.len();
        let mut found = Vec::with_capacity(images.len());
        for images in images.chunks(self.inference.batch(device)) {
            let logits = self.inference.run_output(device, &data.batch(images), &[])?;
            found.extend(logits.chunks_exact(classes).map(best));
        }
        Ok(found)
    }
}

/// The first of the largest logits.
pub fn best(logits: &[f32]) -> u32 {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best }) as u32
}
