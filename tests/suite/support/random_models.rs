//! Models with random values, and what the program computes with them.

use std::path::Path;

use csae::internals::device::Device;
use csae::internals::infer::batches::Inference;
use csae::internals::model::{self, Graph, LoadedModel, ModelSpec, Purpose, Store};
use csae::internals::rng::Stream;
use csae::internals::shape::{Dims, to_nchw, to_nhwc};
use csae::internals::spec::Config;

use super::TempFolder;

/// Writes a model with random values: also in tensors that start constant, so that every part of a
/// layer changes the result.
pub fn write_model(folder: &TempFolder, name: &str, spec: &ModelSpec, input: Dims) -> LoadedModel {
    let mut device = Device::cpu();
    let graph = Graph::new(spec, input).unwrap();
    let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
    store.initialise(&mut device, &graph, 1);
    let mut stream = Stream::new(7, name);
    let mut random = |values: &mut [f32]| {
        // Weights are large against these changes, and constants small.
        values.iter_mut().for_each(|value| *value += 0.03 * (2.0 * stream.uniform() - 1.0));
    };
    for (i, param) in graph.params.iter().enumerate() {
        let mut values = store.read_param(&mut device, &graph, i).unwrap();
        random(&mut values);
        // A threshold below 0 makes a layer jump at 0, where rounding decides. One layer has such
        // thresholds, and no inputs near 0.
        if [".threshold", ".slope"].iter().any(|end| param.name.ends_with(end))
            && param.name != "negative.threshold"
        {
            values.iter_mut().for_each(|value| *value = value.abs());
        }
        device.write(store.weight(i), &param.pack(&values));
    }
    for i in 0..graph.states.len() {
        device.write(store.state(i), &[0.2]);
    }
    let path = folder.path(&format!("{name}.safetensors"));
    model::save(Path::new(&path), &mut device, &graph, &store).unwrap();
    model::load(Path::new(&path)).unwrap()
}

/// Images (N,C,H,W) from 0 to 1: smooth, with noise.
pub fn images(dims: Dims, n: usize) -> Vec<f32> {
    let mut stream = Stream::new(3, "images");
    let mut all = Vec::with_capacity(n * dims.len());
    for at in 0..n * dims.c {
        let shift = stream.uniform();
        for row in 0..dims.h {
            for column in 0..dims.w {
                let wave = ((row as f32) * 0.31 + (column as f32) * 0.17 + at as f32).sin();
                all.push(0.4 + 0.25 * wave + 0.2 * stream.uniform() + 0.1 * shift);
            }
        }
    }
    all
}

/// Samples in the order of memory, one after the other.
pub fn in_memory(x: &[f32], dims: Dims) -> Vec<f32> {
    x.chunks(dims.len()).flat_map(|one| to_nhwc(one, dims)).collect()
}

/// Samples in the order of memory as N,C,H,W.
pub fn natural(y: &[f32], dims: Dims) -> Vec<f32> {
    y.chunks(dims.len()).flat_map(|one| to_nchw(one, dims)).collect()
}

/// The shape of `n` samples.
pub fn shape(n: usize, dims: Dims) -> Vec<usize> {
    vec![n, dims.c, dims.h, dims.w]
}

/// What the program computes for a layer, at the size of `dims`.
pub fn features(loaded: &LoadedModel, layer: &str, x: &[f32], dims: Dims) -> (Dims, Vec<f32>) {
    let mut device = Device::cpu();
    let spec = model::encoder(&loaded.graph, Some(layer), None).unwrap();
    let graph = Graph::new(&spec, dims).unwrap();
    let store = loaded.place(&mut device, &graph, Purpose::Infer).unwrap();
    let mut inference = Inference::new(&graph, &store);
    let out = graph.nodes[graph.output].dims;
    let y = inference.run_output(&mut device, &in_memory(x, dims), &[]).unwrap();
    (out, natural(&y, out))
}

/// The model of a configuration.
pub fn parse(text: &str) -> ModelSpec {
    Config::parse(text, "test", &[]).unwrap().model
}
