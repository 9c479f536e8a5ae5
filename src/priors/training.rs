//! Training of the masked network: a head of the training engine with the loss of a hurdle model.
//! Closed weights are set back to 0 after each update.

use rayon::prelude::*;

use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::model::{Graph, Purpose, Store};
use crate::ops::{Combine, HurdleLoss, MaskApply, SCALAR_PARTIALS};
use crate::priors::codes::Codes;
use crate::priors::masked::{Masked, Sizes, connectivity, graph};
use crate::priors::sparse::{HURDLE, HeldOutLoss, UNIT, unit_values};
use crate::record::Builder;
use crate::spec::{
    Config, CorruptionSpec, DataSpec, LossSpec, OptimizerName, OptimizerSpec, ScheduleName,
    ScheduleSpec, SparsitySpec, TrainSpec,
};
use crate::train::feed::{Batches, Inputs};
use crate::train::labelled::Epochs;
use crate::train::step::{self, LabelLoss, Objective, Output, StepSpec, WIDTH};
use crate::train::{Log, Trainer};
use crate::view::{StepParams, View};

/// (minimum, maximum) batch size. It is a sixteenth of the codes within these limits.
const BATCH: (usize, usize) = (64, 512);
/// Number of training steps. Batches grow with the number of codes, so that a fixed number of steps
/// sees few codes about as often as many.
const STEPS: usize = 2400;
/// Number of evaluations on held-out codes during training.
pub const EVALUATIONS: usize = 16;
/// (peak learning rate, steps of linear warm-up to it).
const RATE: (f64, u64) = (2e-3, 100);
const OPTIMIZER: OptimizerName = OptimizerName::AdamW;
/// Batches are not split into parts.
const PURPOSE: Purpose = Purpose::train(OPTIMIZER.moments());

/// Makes inputs of the network from codes.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The codes.
    pub codes: &'a Codes,
    /// The units in the order in which they are predicted.
    pub order: &'a [u32],
    /// Statistics of each unit in this order.
    pub units: &'a [[f32; UNIT]],
    /// Cluster of each code.
    pub clusters: &'a [u32],
    /// Sizes of the network.
    pub sizes: Sizes,
}

impl Rows<'_> {
    /// The inputs for the codes with these numbers.
    fn inputs(&self, numbers: &[usize]) -> Vec<f32> {
        let (units, width) = (self.sizes.units, self.sizes.input());
        let mut x = vec![0.0; numbers.len() * width];
        for (x, number) in x.chunks_exact_mut(width).zip(numbers) {
            let code = &self.codes.values[number * units..(number + 1) * units];
            for (i, (unit, statistics)) in self.order.iter().zip(self.units).enumerate() {
                [x[i], x[units + i]] = unit_values(code[*unit as usize], *statistics);
            }
            x[2 * units + self.clusters[*number] as usize] = 1.0;
        }
        x
    }
}

/// Sets closed weights back to 0.
#[derive(Clone, Copy, Debug)]
struct Mask {
    /// A factor for each learned value, see [`connectivity`].
    factors: View,
}

impl Mask {
    /// Records the product of all learned values with their factors. It is not in place, since a
    /// dispatch cannot bind one buffer for reading and for writing.
    fn apply(self, b: &mut Builder) {
        let weights = b.store.learned();
        let x = b.tape.real("parameters before the mask", weights.len);
        b.tape.push(Combine { alpha: 1.0, beta: 0.0, a: weights, b: None, y: x });
        b.tape.push(MaskApply { scale: 1.0, x, mask: self.factors, y: weights });
    }
}

/// The loss of the hurdle model. The network predicts its own input, which is the target.
#[derive(Debug)]
struct HurdleHead {
    sizes: Sizes,
    mask: Mask,
}

impl LabelLoss for HurdleHead {
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
        let Output { y, dy, scalars } = output;
        let (units, target) = (self.sizes.units, b.value(0));
        let partials = b.tape.real("partial losses", SCALAR_PARTIALS);
        let (hurdle, width, index) = (HURDLE, WIDTH, 0);
        b.tape.push(HurdleLoss {
            hurdle,
            n,
            units,
            width,
            index,
            y,
            target,
            scalars,
            dy,
            partials,
        });
        Vec::new()
    }

    fn terms(&self) -> &'static [&'static str] {
        &["loss"]
    }

    fn constrain(&self, b: &mut Builder) {
        self.mask.apply(b);
    }

    fn divisor(&self, n: usize) -> f64 {
        n as f64
    }
}

/// Batches of codes in random order.
#[derive(Debug)]
struct CodeBatches<'a> {
    rows: Rows<'a>,
    epochs: Epochs,
}

impl Batches for CodeBatches<'_> {
    fn steps_per_epoch(&self) -> usize {
        self.epochs.steps()
    }

    fn advance(
        &mut self,
        device: &mut Device,
        params: &mut StepParams,
        _: usize,
        inputs: &Inputs,
    ) -> Result<()> {
        let numbers = self.epochs.batch(u64::from(params.step));
        device.write(inputs.x, &self.rows.inputs(&numbers));
        Ok(())
    }
}

/// How the network is trained.
fn config(graph: &Graph, batch: usize, seed: u64) -> Config {
    Config {
        seed,
        data: DataSpec::default(),
        model: graph.spec.clone(),
        corruption: CorruptionSpec::default(),
        loss: LossSpec::default(),
        sparsity: SparsitySpec::default(),
        optimizer: OptimizerSpec {
            kind: OPTIMIZER,
            lr: RATE.0,
            // The second moment averages over 100 steps, a small part of the training.
            betas: [0.9, 0.99],
            weight_decay: 0.01,
            ..OptimizerSpec::default()
        },
        schedule: ScheduleSpec {
            kind: ScheduleName::HalfCosine,
            warmup_steps: RATE.1,
            ..ScheduleSpec::default()
        },
        train: TrainSpec {
            batch,
            steps: STEPS as u64,
            log_every: (STEPS / EVALUATIONS) as u64,
            ..TrainSpec::default()
        },
        classify: None,
        segment: None,
        detect: None,
    }
}

/// Batch size for this number of codes.
fn batch_size(codes: usize) -> usize {
    (codes / 16).clamp(BATCH.0, BATCH.1)
}

/// Memory in bytes for training a network on this number of codes, besides the codes.
pub fn bytes(sizes: Sizes, codes: usize) -> u64 {
    let graph = graph(sizes);
    let store = Store::layout(&graph, PURPOSE);
    let config = config(&graph, batch_size(codes), 0);
    let head = HurdleHead { sizes, mask: Mask { factors: store.grads } };
    let step = StepSpec {
        graph: &graph,
        store: &store,
        n: config.train.batch,
        parts: 1,
        objective: Objective::Labels(&head),
        optimizer: &config.optimizer,
        encoder: 0,
        scalars: store.weights,
        half: None,
        binding: u64::MAX,
    };
    let step = step::planned_bytes(&step).expect("the loss fits the graph").total;
    // The network before training, the mask on the host and on the device, and the best parameters.
    let parameters = 4 * 4 * store.weights.len as u64;
    // A batch to evaluate is at most as large as one to train on.
    store.bytes() + parameters + 2 * step
}

/// Trains a network on the codes `fit`. Returns the parameters with the lowest loss on `held_out`.
/// `progress` is called after each evaluation with the step, the number of steps, and that loss.
///
/// # Errors
/// When the device fails or has no memory for the training.
pub fn train(
    device: &mut Device,
    network: &Masked,
    rows: &Rows<'_>,
    [fit, held_out]: [&[usize]; 2],
    seed: u64,
    mut progress: impl FnMut(usize, usize, HeldOutLoss),
) -> Result<Masked> {
    let sizes = rows.sizes;
    let graph = graph(sizes);
    let batch = batch_size(rows.codes.len()).min(fit.len());
    let config = config(&graph, batch, seed);
    let factors = connectivity(sizes, &Store::layout(&graph, PURPOSE));
    let mask = device.alloc_real("mask of closed weights", factors.len())?;
    device.write(*mask, &factors);
    let head = HurdleHead { sizes, mask: Mask { factors: *mask } };
    // Repeated codes would be fitted more closely than others: with filled-up batches, the loss on
    // held-out codes was 1.5 nats higher (1797 codes, mean of 10 seeds).
    let epochs = Epochs::of_whole_batches(fit.to_vec(), batch, seed);
    let batches = CodeBatches { rows: *rows, epochs };
    // Bytes of the codes and of the mask.
    let data = 4 * (rows.codes.values.len() + factors.len()) as u64;
    let mut trainer =
        Trainer::labelled(device, &config, &graph, &head, Box::new(batches), data, false)?;
    network.write(device, &graph, &trainer.store);
    let mut inference = Inference::new(&graph, &trainer.store);
    let mut log = Log::new(None, trainer.total, true, false)?;
    let mut best = (f64::INFINITY, Vec::new());
    for step in 1..=STEPS {
        trainer.step(device, &mut log)?;
        if step % (STEPS / EVALUATIONS) == 0 {
            let loss = evaluate(device, &mut inference, rows, held_out)?;
            if best.1.is_empty() || loss.fires + loss.strength < best.0 {
                best = (loss.fires + loss.strength, device.read(trainer.store.weights)?);
            }
            progress(step, STEPS, loss);
        }
    }
    device.write(trainer.store.weights, &best.1);
    Masked::read(device, sizes, &graph, &trainer.store)
}

/// Mean loss of the codes with these numbers.
fn evaluate(
    device: &mut Device,
    inference: &mut Inference<'_>,
    rows: &Rows<'_>,
    numbers: &[usize],
) -> Result<HeldOutLoss> {
    let Sizes { units, .. } = rows.sizes;
    let mut sum = HeldOutLoss { fires: 0.0, strength: 0.0 };
    for numbers in numbers.chunks(inference.batch(device)) {
        let x = rows.inputs(numbers);
        let y = inference.run_output(device, &x, &[])?;
        let each = x.par_chunks(rows.sizes.input()).zip(y.par_chunks(rows.sizes.output()));
        let each: Vec<HeldOutLoss> = each
            .map(|(x, y)| {
                let mut sum = HeldOutLoss { fires: 0.0, strength: 0.0 };
                for unit in 0..units {
                    let strength = (x[unit] > 0.0).then(|| f64::from(x[units + unit]));
                    let outputs = [0, 1, 2].map(|k| f64::from(y[k * units + unit]));
                    let loss = HURDLE.unit(outputs, strength);
                    sum.fires += loss.fires;
                    sum.strength += loss.strength;
                }
                sum
            })
            .collect();
        for row in each {
            sum.fires += row.fires;
            sum.strength += row.strength;
        }
    }
    let n = numbers.len() as f64;
    Ok(HeldOutLoss { fires: sum.fires / n, strength: sum.strength / n })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{HURDLE_VALUES, Loss, LossKind};
    use crate::priors::masked::Sampler;
    use crate::rng::Stream;

    const SIZES: Sizes = Sizes { units: 5, conditions: 2, hidden: 11 };

    fn normals(stream: &mut Stream, len: usize) -> Vec<f32> {
        (0..len).map(|_| stream.normal()).collect()
    }

    /// The sum of squares of the outputs.
    #[derive(Debug)]
    struct Squares(Mask);

    impl LabelLoss for Squares {
        fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
            let Output { y, dy, scalars } = output;
            let target = b.tape.map("zeros", y.len);
            let partials = b.tape.real("partial losses", SCALAR_PARTIALS);
            b.tape.push(Loss {
                kind: LossKind::SumSquares,
                n,
                grad_scale: 1.0,
                width: WIDTH,
                index: 0,
                activation: crate::ops::Activation::Identity,
                y,
                target,
                scalars,
                dy,
                partials,
            });
            vec![target]
        }

        fn terms(&self) -> &'static [&'static str] {
            &["loss"]
        }

        fn constrain(&self, b: &mut Builder) {
            self.0.apply(b);
        }

        fn divisor(&self, n: usize) -> f64 {
            n as f64
        }
    }

    /// A graph, its store, the mask of its learned values, and the owner of the mask.
    struct Network {
        graph: Graph,
        store: Store,
        factors: Vec<f32>,
        mask: crate::device::Allocation,
    }

    /// A network whose open weights are all random.
    fn network(device: &mut Device, sizes: Sizes) -> Network {
        let graph = graph(sizes);
        let store = Store::new(device, &graph, PURPOSE).unwrap();
        let factors = connectivity(sizes, &store);
        let mask = device.alloc_real("mask", factors.len()).unwrap();
        device.write(*mask, &factors);
        let mut stream = Stream::new(4, "test");
        let weights: Vec<f32> = factors.iter().map(|open| 0.5 * open * stream.normal()).collect();
        device.write(store.weights, &weights);
        Network { graph, store, factors, mask }
    }

    fn record(
        device: &mut Device,
        network: &Network,
        n: usize,
        loss: &dyn LabelLoss,
        scalars: View,
    ) -> step::Recorded {
        let Network { graph, store, .. } = network;
        let optimizer = config(graph, n, 0).optimizer;
        let spec = StepSpec {
            graph,
            store,
            n,
            parts: 1,
            objective: Objective::Labels(loss),
            optimizer: &optimizer,
            encoder: 0,
            scalars,
            half: None,
            binding: device.max_elements(),
        };
        step::record(device, &spec).unwrap()
    }

    /// Trains all weights by 60 steps on the sum of squares of the outputs.
    fn train_squares(device: &mut Device, network: &Network) -> Vec<f32> {
        let mut stream = Stream::new(12, "rows");
        let scalars = device.alloc_real("scalars", WIDTH).unwrap();
        let loss = Squares(Mask { factors: *network.mask });
        let recorded = record(device, network, 150, &loss, *scalars);
        device.write(recorded.x, &normals(&mut stream, recorded.x.len));
        device.write(recorded.labels[0], &vec![0.0; recorded.labels[0].len]);
        let program = recorded.compile(device).unwrap();
        (1..=60)
            .map(|step| {
                let [correction1, correction2] = [0.9_f32, 0.99].map(|beta| 1.0 - beta.powi(step));
                let params =
                    StepParams { lr: 0.02, correction1, correction2, ..StepParams::default() };
                program.run(device, 0, 1, &params).unwrap();
                device.read(*scalars).unwrap()[0]
            })
            .collect()
    }

    #[test]
    fn training_lowers_the_loss_and_keeps_closed_weights_at_0() {
        let mut device = Device::cpu();
        let network = network(&mut device, SIZES);
        let before = device.read(network.store.weights).unwrap();
        let losses = train_squares(&mut device, &network);
        assert!(losses[59] < 0.2 * losses[0], "{} {}", losses[0], losses[59]);
        let weights = device.read(network.store.weights).unwrap();
        for (i, open) in network.factors.iter().enumerate() {
            let owner = network.store.owner(&network.graph, i);
            if *open == 0.0 {
                assert_eq!(weights[i], 0.0, "{owner}, {i}");
            } else {
                assert_ne!(weights[i], before[i], "{owner}, {i}");
            }
        }
    }

    #[test]
    fn outputs_depend_on_the_units_before_and_on_the_conditions() {
        let mut device = Device::cpu();
        let network = network(&mut device, SIZES);
        train_squares(&mut device, &network);
        let mut inference = Inference::new(&network.graph, &network.store);
        let x = normals(&mut Stream::new(9, "row"), SIZES.input());
        let before = inference.run_output(&mut device, &x, &[]).unwrap();
        for input in 0..SIZES.input() {
            let mut changed = x.clone();
            changed[input] += 1.0;
            let after = inference.run_output(&mut device, &changed, &[]).unwrap();
            for output in 0..SIZES.output() {
                let (unit, sees) = (
                    output % SIZES.units,
                    input >= HURDLE_VALUES * SIZES.units
                        || input % SIZES.units < output % SIZES.units,
                );
                assert_eq!(before[output] != after[output], sees, "input {input}, unit {unit}");
            }
        }
    }

    #[test]
    fn a_sampler_predicts_what_the_graph_computes() {
        let mut device = Device::cpu();
        let network = network(&mut device, SIZES);
        let masked = Masked::read(&mut device, SIZES, &network.graph, &network.store).unwrap();
        let x = normals(&mut Stream::new(10, "row"), SIZES.input());
        let mut inference = Inference::new(&network.graph, &network.store);
        let all = inference.run_output(&mut device, &x, &[]).unwrap();
        let mut sampler = Sampler::new(&masked, &x[HURDLE_VALUES * SIZES.units..]);
        for unit in 0..SIZES.units {
            let predicted = sampler.predict(unit);
            assert!(
                (0..3).all(|k| (predicted[k] - all[k * SIZES.units + unit]).abs() < 1e-4),
                "{unit}: {predicted:?}"
            );
            sampler.set_unit(unit, [x[unit], x[SIZES.units + unit]]);
        }
        // Writing is the inverse of reading.
        let weights = device.read(network.store.weights).unwrap();
        device.write(network.store.weights, &vec![0.0; weights.len()]);
        masked.write(&mut device, &network.graph, &network.store);
        assert_eq!(device.read(network.store.weights).unwrap(), weights);
    }

    #[test]
    fn a_step_has_the_gradient_of_its_loss() {
        let mut device = Device::oracle();
        let network = network(&mut device, SIZES);
        let scalars = device.alloc_real("scalars", WIDTH).unwrap();
        let head = HurdleHead { sizes: SIZES, mask: Mask { factors: *network.mask } };
        let recorded = record(&mut device, &network, 3, &head, *scalars);
        device.write(recorded.x, &normals(&mut Stream::new(11, "row"), recorded.x.len));
        let program = recorded.compile(&mut device).unwrap();
        // The learning rate is 0: the step changes no weight.
        let params = StepParams { correction1: 0.1, correction2: 0.01, ..StepParams::default() };
        let loss = |device: &mut Device| {
            program.run(device, 0, 1, &params).unwrap();
            device.read_f64(*scalars).unwrap()[0]
        };
        loss(&mut device);
        let (store, factors) = (&network.store, &network.factors);
        let (gradient, weights) =
            (device.read_f64(store.grads).unwrap(), device.read_f64(store.weights).unwrap());
        let (mut error, mut size) = (0.0, 0.0);
        for i in (0..weights.len()).filter(|i| factors[*i] > 0.0) {
            let mut at = |delta: f64| {
                let mut moved = weights.clone();
                moved[i] += delta;
                device.write_f64(store.weights, &moved);
                loss(&mut device)
            };
            let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
            error += (gradient[i] - difference).powi(2);
            size += difference.powi(2);
        }
        assert!(size > 0.0 && error.sqrt() <= 1e-6 * size.sqrt(), "{error} of {size}");
    }
}
