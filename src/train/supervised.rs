//! Training an encoder with a head on images whose answers are known, by a loss of the task's own;
//! Adam, whose rate falls along a cosine.

use crate::device::{Device, Program};
use crate::error::{Error, Kind, Result};
use crate::model::{Graph, HEAD, LoadedModel, Purpose, Store};
use crate::ops::{Adam, WINDOW};
use crate::program::Call;
use crate::record::{Builder, Mode};
use crate::rng::Stream;
use crate::view::{StepParams, View};

/// Scalars of a step: parts of the loss.
pub const WIDTH: usize = 8;
/// Steps whose losses are kept on the device, so that none waits for its own.
const ROWS: usize = 256;
/// Adam's decay rates and ε.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;
/// Steps over which the rate grows, before Adam's moments mean anything.
const RISE: f64 = 10.0;

/// How a training goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Passes over the samples at most.
    pub epochs: usize,
    /// Peak learning rate of the head; it falls to 0 along a cosine.
    pub lr: f64,
    /// The encoder's learning rate, as a share of the head's; 0: the encoder stays.
    pub encoder_lr: f64,
    /// Epochs from one look at the samples to validate on to the next.
    pub every: usize,
    /// Looks that find nothing better after which it stops.
    pub patience: usize,
    /// Seed of the order, and of what happens to samples.
    pub seed: u64,
}

/// An epoch's end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch<J> {
    /// Passes over the samples.
    pub epoch: usize,
    /// Mean loss of its steps; before the first pass it is not known.
    pub loss: Option<f64>,
    /// What was found on the samples to validate on, where they were looked at.
    pub judged: Option<J>,
    /// Whether it is the best so far.
    pub best: bool,
}

/// How good something is that was found on samples to validate on: the larger, the better.
pub trait Mark: Copy {
    /// The figure by which the best weights are chosen.
    fn mark(&self) -> f64;
}

/// What a training came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trained<J> {
    /// The best epoch, whose weights are kept; none where it was stopped before any was judged: the
    /// weights are those of the last step.
    pub best: Option<Epoch<J>>,
    /// Whether it was asked to stop.
    pub stopped: bool,
}

/// What is learned.
pub trait Lesson {
    /// What is found on samples to validate on.
    type Judged: Mark;
    /// Parts of the loss among the scalars of a step.
    const PARTS: usize;

    /// Writes samples, told apart by their numbers, and their answers.
    ///
    /// # Errors
    /// When one cannot be read any more.
    fn feed(
        &mut self,
        device: &mut Device,
        learner: &Supervised<'_>,
        samples: &[usize],
        step: u64,
    ) -> Result<()>;

    /// Looks at the samples to validate on.
    ///
    /// # Errors
    /// When the device fails, or one cannot be read any more.
    fn judge(&mut self, device: &mut Device) -> Result<Self::Judged>;
}

/// Who looks on.
pub struct Watch<'t, J> {
    /// Is told of every epoch; an error of it ends the training.
    pub tell: &'t mut dyn FnMut(Epoch<J>) -> Result<()>,
    /// Whether the training is to stop after this step.
    pub stop: &'t dyn Fn() -> bool,
}

/// What a loss is made of.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The output of the model.
    pub y: View,
    /// The gradient by it, which the loss writes.
    pub dy: View,
    /// Where its parts go, [`WIDTH`] a step.
    pub scalars: View,
}

/// A model with a head, and a step of its training, on a device.
#[derive(Debug)]
pub struct Supervised<'a> {
    /// The model.
    pub graph: &'a Graph,
    /// Its values.
    pub store: Store,
    /// Samples of a step.
    pub batch: usize,
    /// What is learned from.
    pub x: View,
    /// The answers, in the order in which the loss gave them.
    pub answers: Vec<View>,
    scalars: View,
    /// Forward, backward, and the head's update; and the encoder's.
    passes: [Program; 2],
}

/// That parameters, data and a step fit into what may be taken.
fn check_memory(device: &Device, [parameters, data, step]: [u64; 3], batch: usize) -> Result<()> {
    let needed = parameters + data + step;
    let Some(budget) = device.budget_with(parameters + data).filter(|budget| needed > *budget)
    else {
        return Ok(());
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Err(Error::usage(format!(
        "parameters {:.2} MiB, data {:.2}, a step of {batch} samples {:.2}: more than the {:.2} MiB that may be taken; take a smaller --batch, smaller samples, or \
         raise --max-memory",
        mib(parameters),
        mib(data),
        mib(step),
        mib(budget)
    )))
}

/// Whether a parameter is of the head: of the layer of that name, or one whose name begins so.
fn of_head(name: &str) -> bool {
    name.strip_prefix(HEAD).is_some_and(|rest| rest.starts_with('.'))
}

impl<'a> Supervised<'a> {
    /// Lays out a training on batches of so many samples, beside `data` bytes of images. `loss`
    /// pushes its operations and returns the views of the answers that it reads.
    ///
    /// # Errors
    /// When it is more than may be taken, with the figures, or than the device can hold, or the
    /// model has no head.
    pub fn new(
        device: &mut Device,
        graph: &'a Graph,
        batch: usize,
        weight_decay: f64,
        data: u64,
        loss: impl FnOnce(&mut Builder, Ends) -> Vec<View>,
    ) -> Result<Self> {
        let store = Store::new(device, graph, Purpose::train(2))?;
        let scalars = device.alloc_real("scalars of steps", ROWS * WIDTH)?;
        let mut b = Builder::new(graph, &store, batch, Mode::Train);
        let mut x = b.input();
        b.forward(x, &[graph.output]);
        let y = b.value(graph.output);
        let dy = b.tape.map("gradient of the output", y.len);
        let mut answers = loss(&mut b, Ends { y, dy, scalars });
        b.seed(graph.output, dy);
        b.backward();
        // the head comes last, so that its parameters are the last ones
        let head = graph.params.iter().position(|param| of_head(&param.name));
        let start = store
            .weight(head.ok_or_else(|| Error::usage(format!("the model has no layer {HEAD}")))?)
            .start;
        let update = |range: std::ops::Range<usize>| {
            let of = |view: View| view.part(range.start, range.len());
            let Store { weights, grads, m, v, .. } = store;
            let [beta1, beta2] = BETAS;
            let (grads, weights, m, v) = (of(grads), of(weights), of(m), of(v));
            Adam {
                grad_scale: 1.0,
                beta1,
                beta2,
                eps: EPS,
                weight_decay,
                decoupled: true,
                grads,
                weights,
                m,
                v,
            }
        };
        // in windows, of which each can be bound
        let window = usize::try_from(device.max_elements()).unwrap_or(usize::MAX) / WINDOW * WINDOW;
        let updates = |range: std::ops::Range<usize>| -> Vec<Call> {
            let end = range.end;
            range
                .step_by(window)
                .map(|first| update(first..end.min(first.saturating_add(window))).into())
                .collect()
        };
        updates(start..store.learned().len).into_iter().for_each(|call| b.tape.push(call));
        // samples lie in the host's memory twice on their way
        let given: u64 = std::iter::once(&x).chain(&answers).map(|view| 8 * view.len as u64).sum();
        check_memory(device, [store.bytes(), data, b.tape.planned_bytes() + given], batch)?;
        let mut kept: Vec<&mut View> = std::iter::once(&mut x).chain(&mut answers).collect();
        let (calls, _) = b.tape.allocate(device, &mut kept)?;
        let passes = [device.compile(calls)?, device.compile(updates(0..start))?];
        Ok(Self { graph, store, batch, x, answers, scalars, passes })
    }

    /// First values: drawn by the seed, and of what `pretrained` has, lent.
    ///
    /// # Errors
    /// When the device fails, or values do not fit.
    pub fn begin(
        &self,
        device: &mut Device,
        pretrained: Option<&LoadedModel>,
        seed: u64,
    ) -> Result<()> {
        for view in [self.store.m, self.store.v] {
            device.write(view, &vec![0.0; view.len]);
        }
        self.store.initialise(device, self.graph, seed);
        pretrained.map_or(Ok(()), |loaded| {
            loaded.copy_matching(device, self.graph, &self.store).map(drop)
        })
    }

    /// Trains on samples, and keeps the weights that do best on those to validate on; later is
    /// better where it is as good, since the rate has fallen. `first` looks at those before the
    /// first step too.
    ///
    /// # Errors
    /// When the device fails, a sample cannot be read any more, or a loss is no number.
    pub fn train<L: Lesson>(
        &self,
        device: &mut Device,
        samples: &[usize],
        plan: &Plan,
        first: bool,
        lesson: &mut L,
        watch: &mut Watch<'_, L::Judged>,
    ) -> Result<Trained<L::Judged>> {
        let steps = samples.len().div_ceil(self.batch);
        let total = (steps * plan.epochs) as u64;
        let (mut best, mut kept, mut since, mut step) = (None::<Epoch<L::Judged>>, None, 0, 0);
        if first {
            let begun =
                Epoch { epoch: 0, loss: None, judged: Some(lesson.judge(device)?), best: true };
            (watch.tell)(begun)?;
            (best, kept) = (Some(begun), Some(self.values(device)?));
        }
        let mut stopped = false;
        for epoch in 1..=plan.epochs {
            let order = Stream::new(plan.seed, "order")
                .skip((epoch * samples.len()) as u64)
                .permutation(samples.len());
            // the last batch is filled up from the front
            let order: Vec<u32> = order.iter().cycle().take(steps * self.batch).copied().collect();
            let mut loss = 0.0;
            'steps: for rows in order.chunks(ROWS * self.batch) {
                for (row, chosen) in rows.chunks_exact(self.batch).enumerate() {
                    let chosen: Vec<usize> = chosen.iter().map(|i| samples[*i as usize]).collect();
                    lesson.feed(device, self, &chosen, step)?;
                    self.step(device, [step, total], row, plan)?;
                    step += 1;
                    stopped = (watch.stop)();
                    if stopped {
                        break 'steps;
                    }
                }
                loss += self.losses(device, rows.len() / self.batch, L::PARTS, step, plan.lr)?;
            }
            if stopped {
                break;
            }
            let mut end =
                Epoch { epoch, loss: Some(loss / steps as f64), judged: None, best: false };
            if epoch % plan.every == 0 || epoch == plan.epochs {
                let judged = lesson.judge(device)?;
                let before = best.and_then(|best| best.judged);
                end.best = before.is_none_or(|before| judged.mark() >= before.mark());
                end.judged = Some(judged);
                since = if end.best { 0 } else { since + 1 };
            }
            if end.best {
                (best, kept) = (Some(end), Some(self.values(device)?));
            }
            (watch.tell)(end)?;
            if since >= plan.patience {
                break;
            }
        }
        if let Some(kept) = &kept {
            self.restore(device, kept);
        }
        Ok(Trained { best, stopped })
    }

    /// Step `step` of `total`, on what was written to `x` and `answers`; its losses go to a row of
    /// the scalars.
    fn step(
        &self,
        device: &mut Device,
        [step, total]: [u64; 2],
        row: usize,
        plan: &Plan,
    ) -> Result<()> {
        let t = (step + 1).min(1 << 24) as i32;
        let falling =
            0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total.max(1) as f64).cos());
        let rising = ((step + 1) as f64 / RISE).min(1.0);
        let lr = plan.lr * falling * rising;
        let params = StepParams {
            step: step as u32,
            seed_lo: plan.seed as u32,
            seed_hi: (plan.seed >> 32) as u32,
            lr: lr as f32,
            correction1: (1.0 - BETAS[0].powi(t)) as f32,
            correction2: (1.0 - BETAS[1].powi(t)) as f32,
            slot: row as u32,
            ..StepParams::default()
        };
        device.run(&self.passes[0], &params)?;
        if plan.encoder_lr > 0.0 {
            device.run(
                &self.passes[1],
                &StepParams { lr: (lr * plan.encoder_lr) as f32, ..params },
            )?;
        }
        Ok(())
    }

    /// The sum of the losses of the last `rows` steps, before `step`; each has so many parts.
    fn losses(
        &self,
        device: &mut Device,
        rows: usize,
        parts: usize,
        step: u64,
        lr: f64,
    ) -> Result<f64> {
        let mut sum = 0.0;
        for (row, scalars) in device.read(self.scalars)?.chunks_exact(WIDTH).take(rows).enumerate()
        {
            let loss = scalars[..parts].iter().map(|part| f64::from(*part)).sum::<f64>();
            if !loss.is_finite() {
                let at = step - (rows - row) as u64;
                return Err(Error::failed(format!(
                    "after step {at} the loss is {loss}; use a smaller --lr (now {lr})"
                ))
                .of(Kind::Diverged));
            }
            sum += loss;
        }
        Ok(sum)
    }

    /// The weights and other values as they are.
    fn values(&self, device: &mut Device) -> Result<[Vec<f32>; 2]> {
        Ok([device.read(self.store.weights)?, device.read(self.store.state)?])
    }

    /// Goes back to such values.
    fn restore(&self, device: &mut Device, [weights, state]: &[Vec<f32>; 2]) {
        device.write(self.store.weights, weights);
        device.write(self.store.state, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_known_by_their_names() {
        assert!(of_head("head.weight") && of_head("head.up.1.bias"));
        assert!(!of_head("heads.weight") && !of_head("encoder.head.weight"));
    }
}
