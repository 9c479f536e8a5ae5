//! A classifier's training: encoder and head on labelled images, by cross-entropy.

use super::data::{Changes, Labelled};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::model::{Graph, HEAD, LoadedModel, Purpose, Store};
use crate::ops::CrossEntropy;
use crate::tasks::probe::{ClassifierKind, Design, fit_choosing_penalty};
use crate::train::supervised::{Ends, Lesson, Mark, Plan, Supervised, Trained, WIDTH, Watch};

/// How the head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// As the linear classifier of the encoder's features that fits the labelled images (Kumar et
    /// al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    /// 2022).
    Probe,
    /// Drawn.
    Fresh,
}

/// How it is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How the training goes.
    pub plan: Plan,
    /// What is done to images.
    pub changes: Changes,
    /// How the head begins.
    pub head: Head,
}

/// The share of errors on images held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors(pub f64);

impl Mark for Errors {
    fn mark(&self) -> f64 {
        -self.0
    }
}

/// A classifier on a device.
#[derive(Debug)]
pub struct Tuner<'a> {
    learner: Supervised<'a>,
    inference: Inference<'a>,
}

impl<'a> Tuner<'a> {
    /// Lays out a classifier for batches of so many images, beside `data` bytes of them.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub fn new(
        device: &mut Device,
        graph: &'a Graph,
        batch: usize,
        weight_decay: f64,
        data: u64,
    ) -> Result<Self> {
        let classes = graph.nodes[graph.output].dims.len();
        let learner = Supervised::new(
            device,
            graph,
            batch,
            weight_decay,
            data,
            |b, Ends { y, dy, scalars }| {
                let labels = b.tape.words("labels", batch);
                b.tape.keep(labels);
                let partials = b.tape.real("losses of samples", batch);
                b.tape.push(CrossEntropy {
                    n: batch,
                    classes,
                    width: WIDTH,
                    index: 0,
                    y,
                    labels,
                    scalars,
                    dy,
                    partials,
                });
                vec![labels]
            },
        )?;
        let inference = Inference::new(graph, &learner.store);
        Ok(Self { learner, inference })
    }

    /// Its values.
    pub const fn store(&self) -> &Store {
        &self.learner.store
    }

    /// Trains on the images `fit`, and keeps the weights that do best on those held out, those that
    /// it begins with among them. `pretrained` lends the encoder its values; without it they are
    /// drawn.
    ///
    /// # Errors
    /// When the device fails, or a loss is no number.
    pub fn train(
        &mut self,
        device: &mut Device,
        pretrained: Option<&LoadedModel>,
        data: &Labelled,
        [fit, held]: [&[usize]; 2],
        options: &Options,
        watch: &mut Watch<'_, Errors>,
    ) -> Result<Trained<Errors>> {
        self.begin(device, pretrained, data, fit, options)?;
        let Self { learner, inference } = self;
        let changes = options.changes;
        let mut lesson = Classes { inference, data, held, changes, seed: options.plan.seed };
        learner.train(device, fit, &options.plan, true, &mut lesson, watch)
    }

    /// First values: drawn, lent, and the head fitted to the features where that is wanted.
    fn begin(
        &self,
        device: &mut Device,
        pretrained: Option<&LoadedModel>,
        data: &Labelled,
        fit: &[usize],
        options: &Options,
    ) -> Result<()> {
        let Supervised { graph, store, .. } = &self.learner;
        self.learner.begin(device, pretrained, options.plan.seed)?;
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
        store.copy_matching(device, graph, &values, &encoder)?;
        let mut inference = Inference::new(&encoder, &values);
        let dims = encoder.nodes[encoder.output].dims;
        let mut design = Design::new(dims.len(), fit.iter().map(|image| data.of[*image]).collect());
        let batch = inference.batch(device);
        for (part, images) in fit.chunks(batch).enumerate() {
            let z =
                crate::shape::to_nchw(&inference.run_code(device, &data.batch(images), &[])?, dims);
            z.chunks_exact(dims.len())
                .enumerate()
                .for_each(|(i, z)| design.row_mut(part * batch + i).copy_from_slice(z));
        }
        inference.release(device);
        values.views().into_iter().for_each(|view| device.free(view.buffer));
        let scaling = design.scaling();
        design.scale(&scaling);
        let (weights, biases) = fit_choosing_penalty(
            ClassifierKind::Logistic,
            &design,
            data.classes.len(),
            options.plan.seed,
        )
        .unscaled(&scaling);
        for (name, all) in [("weight", weights), ("bias", biases)] {
            let name = format!("{HEAD}.{name}");
            let at = graph
                .params
                .iter()
                .position(|param| param.name == name)
                .expect("the head has a weight and a bias");
            device.write(store.weight(at), &graph.params[at].pack(&all));
        }
        Ok(())
    }

    /// The class found for each of some images.
    ///
    /// # Errors
    /// When the device fails.
    pub fn classify(
        &mut self,
        device: &mut Device,
        data: &Labelled,
        images: &[usize],
    ) -> Result<Vec<u32>> {
        classify(&mut self.inference, device, data, images)
    }
}

fn classify(
    inference: &mut Inference<'_>,
    device: &mut Device,
    data: &Labelled,
    images: &[usize],
) -> Result<Vec<u32>> {
    let classes = inference.graph.nodes[inference.graph.output].dims.len();
    let mut found = Vec::with_capacity(images.len());
    for images in images.chunks(inference.batch(device)) {
        let logits = inference.run_output(device, &data.batch(images), &[])?;
        found.extend(logits.chunks_exact(classes).map(best));
    }
    Ok(found)
}

/// Labelled images, and others to validate on.
struct Classes<'t, 'a> {
    inference: &'t mut Inference<'a>,
    data: &'t Labelled,
    held: &'t [usize],
    changes: Changes,
    seed: u64,
}

impl Lesson for Classes<'_, '_> {
    type Judged = Errors;
    const PARTS: usize = 1;

    fn feed(
        &mut self,
        device: &mut Device,
        learner: &Supervised<'_>,
        samples: &[usize],
        step: u64,
    ) -> Result<()> {
        device.write(learner.x, &self.data.changed(samples, self.changes, self.seed, step));
        let labels: Vec<u32> = samples.iter().map(|image| self.data.of[*image]).collect();
        device.write_words(learner.answers[0], &labels);
        Ok(())
    }

    fn judge(&mut self, device: &mut Device) -> Result<Errors> {
        let found = classify(self.inference, device, self.data, self.held)?;
        let wrong = found
            .iter()
            .zip(self.held)
            .filter(|(found, image)| **found != self.data.of[**image])
            .count();
        Ok(Errors(wrong as f64 / self.held.len().max(1) as f64))
    }
}

/// The first of the largest logits.
pub fn best(logits: &[f32]) -> u32 {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
        as u32
}
