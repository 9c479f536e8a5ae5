//! A classifier's training: encoder and head on labelled images, by cross-entropy.

use super::data::{Changes, Labelled};
use crate::device::Device;
use crate::error::Result;
use crate::model::{Graph, HEAD, Loaded, Purpose, Store};
use crate::ops::CrossEntropy;
use crate::rng::Stream;
use crate::tasks::infer::Inference;
use crate::tasks::probe::{Design, Kind, learn};
use crate::tasks::supervised::{Ends, ROWS, Rates, Supervised, WIDTH};

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
    learner: Supervised<'a>,
    inference: Inference<'a>,
}

impl<'a> Tuner<'a> {
    /// Lays out a classifier for batches of so many images.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn new(device: &mut Device, graph: &'a Graph, batch: usize, weight_decay: f64) -> Result<Self> {
        let classes = graph.nodes[graph.output].dims.len();
        let learner = Supervised::new(device, graph, batch, weight_decay, |b, Ends { y, dy, scalars }| {
            let labels = b.tape.words("labels", batch);
            b.tape.keep(labels);
            let partials = b.tape.real("losses of samples", batch);
            b.tape.push(CrossEntropy { n: batch, classes, width: WIDTH, index: 0, y, labels, scalars, dy, partials });
            vec![labels]
        })?;
        let inference = Inference::new(graph, &learner.store);
        Ok(Self { learner, inference })
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.learner.store
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
        let (mut best, mut kept, mut since) = (first, self.learner.values(device)?, 0);
        let batch = self.learner.batch;
        let steps = fit.len().div_ceil(batch);
        let rates = Rates { lr: options.lr, encoder_lr: options.encoder_lr, total: (steps * options.epochs) as u64 };
        let mut step = 0;
        for epoch in 1..=options.epochs {
            let order = Stream::new(options.seed, "order").skip((epoch * fit.len()) as u64).permutation(fit.len());
            // the last batch is filled up from the front
            let order: Vec<u32> = order.iter().cycle().take(steps * batch).copied().collect();
            let mut loss = 0.0;
            for steps in order.chunks(ROWS * batch) {
                for (row, chosen) in steps.chunks_exact(batch).enumerate() {
                    let images: Vec<usize> = chosen.iter().map(|i| fit[*i as usize]).collect();
                    device.write(self.learner.x, &data.changed(&images, options.changes, options.seed, step));
                    let labels: Vec<u32> = images.iter().map(|image| data.of[*image]).collect();
                    device.write_words(self.learner.answers[0], &labels);
                    self.learner.step(device, step, row, options.seed, rates)?;
                    step += 1;
                }
                loss += self.learner.losses(device, steps.len() / batch, 1, step, options.lr)?;
            }
            let held_out = errors(self, device)?;
            // later is better where it is as good: the rate has fallen
            let better = held_out <= best;
            if better {
                (best, kept) = (held_out, self.learner.values(device)?);
            }
            since = if better { 0 } else { since + 1 };
            tell(Epoch { epoch, loss: Some(loss / steps as f64), held_out, best: better })?;
            if since >= options.patience {
                break;
            }
        }
        self.learner.restore(device, &kept);
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
        let Supervised { graph, store, .. } = &self.learner;
        self.learner.begin(device, pretrained, options.seed)?;
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

    /// The class found for each of some images.
    ///
    /// # Errors
    /// When the device fails.
    pub fn classify(&mut self, device: &mut Device, data: &Labelled, images: &[usize]) -> Result<Vec<u32>> {
        let classes = self.learner.graph.nodes[self.learner.graph.output].dims.len();
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
