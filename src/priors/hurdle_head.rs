//! The masked network as a head of the training engine, with the loss of a hurdle model. Closed
//! weights are set back to 0 after each update.

use crate::ops::{Combine, HurdleLoss, MaskApply, SCALAR_PARTIALS};
use crate::priors::masked::Sizes;
use crate::priors::sparse::HURDLE;
use crate::record::Builder;
use crate::train::step::{LabelLoss, Output, WIDTH};
use crate::view::View;

/// Sets closed weights back to 0.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// A factor for each learned value, see [`super::masked::connectivity`].
    pub factors: View,
}

impl Mask {
    /// Records the product of all learned values with their factors. It is not in place, since a
    /// dispatch cannot bind one buffer for reading and for writing.
    fn apply(self, b: &mut Builder) {
        let weights = b.store.learned();
        let x = b.tape.real("parameters before the mask", weights.len);
        b.tape.push(Combine { alpha: 1.0, beta: 0.0, a: weights, b: None, y: x });
        b.tape.push(MaskApply::plain(1.0, x, self.factors, weights));
    }
}

/// The loss of the hurdle model. The network predicts its own input, which is the target.
#[derive(Debug)]
pub struct HurdleHead {
    /// Sizes of the network.
    pub sizes: Sizes,
    /// Keeps closed weights at 0.
    pub mask: Mask,
}

impl LabelLoss for HurdleHead {
    fn record(&self, b: &mut Builder, output: Output, n: usize) -> Vec<View> {
        let Output { y, dy, scalars } = output;
        let (units, target) = (self.sizes.units, b.value(0));
        let partials = b.tape.partials(SCALAR_PARTIALS);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::infer::batches::Inference;
    use crate::model::{Graph, Purpose, Store};
    use crate::ops::{HURDLE_VALUES, Loss, LossKind};
    use crate::priors::masked::{Masked, Sampler, connectivity, graph};
    use crate::priors::training::test_config;
    use crate::rng::Stream;
    use crate::spec::OptimizerName;
    use crate::train::step::{self, Objective, StepSpec};
    use crate::view::StepParams;

    const PURPOSE: Purpose = Purpose::train(OptimizerName::AdamW.moments());
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
            let partials = b.tape.partials(SCALAR_PARTIALS);
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
        let optimizer = test_config(graph, n).optimizer;
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
            pieces: 1,
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
