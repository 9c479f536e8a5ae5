//! Results do not depend on how batches are formed.

use super::*;
use crate::model::Purpose;
use crate::rng::Stream;
use crate::shape::Dims;
use crate::spec::Config;

/// Two convolutions; `from` names what the decoder reads.
fn graph(from: &str) -> Graph {
    let text = format!(
        r#"
[model]
code = "a"
[[model.layers]]
name = "a"
op = "conv2d"
filters = 3
kernel = 3
padding = 1
activation = "relu"
[[model.layers]]
name = "b"
op = "conv2d"
filters = 2
kernel = 3
padding = 1
from = ["{from}"]
"#
    );
    let config = Config::parse(&text, "test", &[]).unwrap();
    Graph::new(&config.model, Dims::new(2, 5, 4)).unwrap()
}

/// A device with the model's initial values.
fn placed(graph: &Graph) -> (Device, Store) {
    let mut device = Device::cpu();
    let store = Store::new(&mut device, graph, Purpose::Infer).unwrap();
    store.initialise(&mut device, graph, 7);
    (device, store)
}

/// Values of `n` samples.
fn samples(n: usize) -> Vec<f32> {
    let mut stream = Stream::new(3, "samples");
    (0..n * 40).map(|_| stream.normal()).collect()
}

#[test]
fn a_sample_has_the_same_result_alone_and_in_a_batch() {
    let graph = graph("a");
    let (mut device, store) = placed(&graph);
    let x = samples(7);
    let all = Inference::new(&graph, &store).run(&mut device, &x).unwrap();
    assert_eq!((all.y.len(), all.z.len()), (7 * 40, 7 * 60));
    for (i, x) in x.chunks(40).enumerate() {
        let one = Inference::new(&graph, &store).run(&mut device, x).unwrap();
        assert_eq!(one.y[..], all.y[i * 40..(i + 1) * 40], "sample {i}");
        assert_eq!(one.z[..], all.z[i * 60..(i + 1) * 60], "sample {i}");
    }
}

#[test]
fn a_smaller_batch_runs_in_the_program_of_a_larger_one() {
    let graph = graph("a");
    let (mut device, store) = placed(&graph);
    let x = samples(7);
    let mut inference = Inference::new(&graph, &store);
    let all = inference.run(&mut device, &x).unwrap();
    let buffers = inference.prepare(&mut device, 1).unwrap();
    assert_eq!(inference.compiled.as_ref().unwrap().n, 7);
    assert_eq!(inference.run_output(&mut device, &x[..80], &[]).unwrap(), all.y[..80]);
    assert_eq!(inference.run_code(&mut device, &x[..80], &[]).unwrap(), all.z[..120]);
    assert!(buffers > 0);
}

#[test]
fn more_samples_than_a_batch_run_in_several() {
    let graph = graph("a");
    let (mut device, store) = placed(&graph);
    let x = samples(MAX_BATCH + 3);
    let mut inference = Inference::new(&graph, &store);
    let all = inference.run(&mut device, &x).unwrap();
    assert_eq!(all.y.len(), x.len());
    let last = Inference::new(&graph, &store).run(&mut device, &x[MAX_BATCH * 40..]).unwrap();
    assert_eq!(last.y[..], all.y[MAX_BATCH * 40..]);
}

#[test]
fn decoding_the_code_gives_the_reconstruction() {
    let graph = graph("a");
    let (mut device, store) = placed(&graph);
    let mut inference = Inference::new(&graph, &store);
    let all = inference.run(&mut device, &samples(5)).unwrap();
    assert_eq!(inference.decode(&mut device, &all.z).unwrap().unwrap(), all.y);
}

#[test]
fn no_codes_give_no_images() {
    let graph = graph("a");
    let (mut device, store) = placed(&graph);
    let inference = Inference::new(&graph, &store);
    assert_eq!(inference.decode(&mut device, &[]).unwrap(), Some(Vec::new()));
}

#[test]
fn a_decoder_that_also_reads_the_input_cannot_decode() {
    let graph = graph("input");
    let (mut device, store) = placed(&graph);
    let inference = Inference::new(&graph, &store);
    assert_eq!(inference.decode(&mut device, &[0.0; 60]).unwrap(), None);
}

#[test]
fn a_batch_fits_the_memory_budget_or_is_refused_with_the_sizes() {
    let graph = graph("a");
    let (mut device, store) = placed(&graph);
    let mut inference = Inference::new(&graph, &store);
    let none = MemoryInUse { parameters: 0, data: 0 };
    device.limit_memory(Some(4 * inference.bytes(1)));
    inference.fit(&device, none).unwrap();
    assert!((1..=4).contains(&inference.batch(&device)), "{}", inference.batch(&device));
    device.limit_memory(Some(inference.bytes(1) - 1));
    let error = inference.fit(&device, none).unwrap_err();
    assert!(error.to_string().contains("memory limit"), "{error}");
}
