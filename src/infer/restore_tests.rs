//! Tiled restoration equals untiled restoration, for randomly generated models.

use super::*;
use crate::model::Purpose;
use crate::rng::Stream;
use crate::spec::Config;

/// Side of the test image.
const SIDE: usize = 96;
/// Maximum side of a tile in the tiled run. [`Tiles`] enlarges tiles that the halo would fill.
const SMALL: usize = 16;
/// Number of random models.
const MODELS: u64 = 40;

/// A random convolution that keeps the size.
fn random_conv(stream: &mut Stream, name: &str, from: &str, channels: usize) -> String {
    let (kernel, dilation) = ([1, 3, 5][stream.below(3)], 1 + stream.below(2));
    let activation = ["relu", "tanh", "identity"][stream.below(3)];
    format!(
        "[[model.layers]]\nname = \"{name}\"\nfrom = [\"{from}\"]\nop = \"conv2d\"\n\
         filters = {channels}\nkernel = {kernel}\ndilation = {dilation}\npadding = \"same\"\n\
         activation = \"{activation}\"\n"
    )
}

/// A layer with the given TOML keys.
fn layer(name: &str, from: &[&str], keys: &str) -> String {
    format!("[[model.layers]]\nname = \"{name}\"\nfrom = {from:?}\n{keys}\n")
}

/// A random convolutional autoencoder with the layers that halos depend on: preprocessing, strides,
/// pooling, unpooling and branches.
fn random_model(stream: &mut Stream) -> String {
    let mut text = "[model]\ncode = \"code\"\n".to_owned();
    let mut at = "input".to_owned();
    match stream.below(5) {
        0 => {
            text += &layer("prepared", &[&at], "op = \"local_contrast\"\nwindow = 7");
            at = "prepared".to_owned();
        }
        1 => {
            text += &layer("prepared", &[&at], "op = \"whiten\"\nkernel = 5");
            at = "prepared".to_owned();
        }
        2 => {
            let iterations = 1 + stream.below(2);
            let keys =
                format!("op = \"lista\"\nfilters = 4\nkernel = 3\niterations = {iterations}");
            text += &layer("prepared", &[&at], &keys);
            at = "prepared".to_owned();
        }
        _ => {}
    }
    text += &random_conv(stream, "stem", &at, 4);
    let kind = stream.below(6);
    let down = match kind {
        0 | 1 => "op = \"max_pool2d\"\nkernel = 2",
        2 => "op = \"avg_pool2d\"\nkernel = 2",
        3 => "op = \"l2_pool2d\"\nkernel = 3\nstride = 2\npadding = 1",
        4 => "op = \"conv2d\"\nfilters = 4\nkernel = 4\nstride = 2\npadding = 1",
        _ => "op = \"conv2d\"\nfilters = 4\nkernel = 5\nstride = 3\npadding = 1",
    };
    text += &layer("down", &["stem"], down);
    text += &random_conv(stream, "deep", "down", 4);
    let joined = stream.below(2) == 0;
    if joined {
        text += &layer("code", &["deep", "down"], "op = \"add\"");
    } else {
        text += &random_conv(stream, "code", "deep", 4);
    }
    let up = match kind {
        0 => "op = \"max_unpool2d\"\nswitches = \"down\"",
        5 => "op = \"conv_transpose2d\"\nfilters = 4\nkernel = 5\nstride = 3\npadding = 1",
        4 => "op = \"conv_transpose2d\"\nfilters = 4\nkernel = 4\nstride = 2\npadding = 1",
        _ if stream.below(2) == 0 => "op = \"pixel_shuffle\"\nscale = 2",
        _ => "op = \"upsample_nearest2d\"\nscale = 2",
    };
    text += &layer("up", &["code"], up);
    text += &layer("side", &["up", "stem"], "op = \"concat\"");
    text += &random_conv(stream, "last", "side", 4);
    text + &layer(
        "y",
        &["last"],
        "op = \"conv2d\"\nfilters = \"input\"\nkernel = 3\npadding = \"same\"",
    )
}

fn restored(device: &mut Device, restorer: &Restorer, pixels: &[f32]) -> Vec<f32> {
    let size = Dims::new(1, SIDE, SIDE);
    restorer.restore_pixels(device, size, &Condition::default(), pixels).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A model with random values on the CPU path, and its restorer.
fn random_values(stream: &mut Stream, text: &str) -> (Device, Restorer) {
    let config = Config::parse(text, "test", &[]).unwrap_or_else(|e| panic!("{e}: {text}"));
    let graph = Graph::new(&config.model, Dims::new(1, SIDE, SIDE))
        .unwrap_or_else(|e| panic!("{e}: {text}"));
    let mut device = Device::cpu();
    let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
    for (i, param) in graph.params.iter().enumerate() {
        let fan = (param.len() / param.shape[0]).max(1) as f32;
        let values: Vec<f32> = (0..param.len()).map(|_| stream.normal() / fan.sqrt()).collect();
        device.write(store.weight(i), &param.pack(&values));
    }
    let restorer = Restorer::new(&graph, &store).unwrap();
    (device, restorer)
}

/// Largest difference between restoration in small tiles and in one tile, relative to the largest
/// value, and the number of tiles. The image is bright at one end, so that tiles differ in their
/// means.
fn tiled_error(device: &mut Device, restorer: &Restorer, stream: &mut Stream) -> (f32, usize) {
    let image = Size::new(SIDE, SIDE);
    let bright = |at: usize| (at % SIDE) as f32 / SIDE as f32;
    let pixels: Vec<f32> =
        (0..SIDE * SIDE).map(|at| 0.5 * (stream.uniform() + bright(at))).collect();
    let mut tiled = restorer.clone();
    tiled.tiling.max_tile = SMALL;
    let mut whole = restorer.clone();
    whole.tiling.geometry.whole = true;
    let whole = restored(device, &whole, &pixels);
    let scale = whole.iter().map(|v| v.abs()).fold(0.0, f32::max);
    let error = largest_difference(&whole, &restored(device, &tiled, &pixels)) / scale;
    (error, tiled.tiling.tiles(device, image).unwrap().count())
}

#[test]
fn tiled_restoration_equals_untiled_restoration() {
    let (mut tiled, mut with_seams) = (0, 0);
    for seed in 0..MODELS {
        let mut stream = Stream::new(seed, "models");
        let text = random_model(&mut stream);
        let (mut device, mut restorer) = random_values(&mut stream, &text);
        let halo = restorer.tiling.geometry.halo;
        let (error, count) = tiled_error(&mut device, &restorer, &mut stream);
        assert!(error <= 1e-4, "model {seed}, halo {halo}: {error}\n{text}");
        tiled += usize::from(count > 1);
        // Control: a halo that is too small makes seams.
        restorer.tiling.geometry.halo /= 4;
        with_seams += usize::from(tiled_error(&mut device, &restorer, &mut stream).0 > 1e-3);
    }
    assert!(tiled > MODELS as usize / 2, "only {tiled} models were tiled");
    assert!(with_seams > MODELS as usize / 2, "only {with_seams} models had seams");
}

/// A model that ends in a decoder of one convolution.
fn model_with_code(layers: &str) -> String {
    let decoder = "op = \"conv2d\"\nfilters = \"input\"\nkernel = 3\npadding = \"same\"";
    format!("[model]\ncode = \"code\"\n{layers}") + &layer("y", &["code"], decoder)
}

#[test]
fn every_tile_subtracts_the_mean_of_the_whole_image() {
    let mut stream = Stream::new(1, "models");
    let lista = "op = \"lista\"\nfilters = 4\nkernel = 3\niterations = 2\nvalue = 0.0";
    let text = model_with_code(&layer("code", &["input"], lista));
    let (mut device, restorer) = random_values(&mut stream, &text);
    let (error, count) = tiled_error(&mut device, &restorer, &mut stream);
    assert!(error <= 1e-5 && count > 1, "{error} with {count} tiles");
    // Control: with its own mean, a tile gets other values.
    let graph = restorer.tiling.graph(Size::new(SIDE, SIDE)).unwrap();
    let mut inference = Inference::new(&graph, &restorer.tiling.store);
    let tile: Vec<f32> = (0..SIDE * SIDE).map(|at| (at % SIDE) as f32 / SIDE as f32).collect();
    let own = inference.run_output(&mut device, &tile, &[]).unwrap();
    let mut inference = Inference::new(&graph, &restorer.tiling.store);
    inference.samples_are_tiles = true;
    let run = |inference: &mut Inference, device: &mut Device, mean: f32| {
        let condition = Condition { mean: Some(vec![mean]), ..Condition::default() };
        inference.run_output(device, &tile, &[condition]).unwrap()
    };
    let mean = tile.iter().sum::<f32>() / tile.len() as f32;
    let given = run(&mut inference, &mut device, mean);
    assert!(largest_difference(&own, &given) <= 1e-5);
    let other = run(&mut inference, &mut device, mean + 0.25);
    assert!(largest_difference(&own, &other) > 1e-2);
}

#[test]
fn a_model_that_compares_whole_maps_is_not_tiled() {
    let conv = random_conv(&mut Stream::new(0, "conv"), "stem", "input", 4);
    let lista = "op = \"lista\"\nfilters = 4\nkernel = 3\niterations = 1";
    for code in ["op = \"top_k\"\nk = 50", "op = \"spatial_wta\"", lista] {
        let text = model_with_code(&(conv.clone() + &layer("code", &["stem"], code)));
        let (mut device, restorer) = random_values(&mut Stream::new(2, "models"), &text);
        let (error, count) = tiled_error(&mut device, &restorer, &mut Stream::new(3, "pixels"));
        assert_eq!((error, count), (0.0, 1), "{code}");
        device.limit_memory(Some(100_000));
        let refused = restorer.tiling.tiles(&device, Size::new(SIDE, SIDE)).unwrap_err();
        assert!(refused.to_string().contains("use a smaller image"), "{refused}");
    }
}
