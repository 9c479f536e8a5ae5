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
    match stream.below(4) {
        0 => {
            text += &layer("prepared", &[&at], "op = \"local_contrast\"\nwindow = 7");
            at = "prepared".to_owned();
        }
        1 => {
            text += &layer("prepared", &[&at], "op = \"whiten\"\nkernel = 5");
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
    let size = [SIDE, SIDE, 1];
    restorer.restore_pixels(device, size, &Condition::default(), pixels).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn tiled_restoration_equals_untiled_restoration() {
    let (mut tiled, mut with_seams) = (0, 0);
    for seed in 0..MODELS {
        let mut stream = Stream::new(seed, "models");
        let text = random_model(&mut stream);
        let config = Config::parse(&text, "test", &[]).unwrap_or_else(|e| panic!("{e}: {text}"));
        let graph = Graph::new(&config.model, Dims::new(1, SIDE, SIDE))
            .unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut device = Device::cpu();
        let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
        for (i, param) in graph.params.iter().enumerate() {
            let fan = (param.len() / param.shape[0]).max(1) as f32;
            let values: Vec<f32> = (0..param.len()).map(|_| stream.normal() / fan.sqrt()).collect();
            device.write(store.weight(i), &param.pack(&values));
        }
        let pixels: Vec<f32> = (0..SIDE * SIDE).map(|_| stream.uniform()).collect();
        let mut restorer = Restorer::new(&graph, &store).unwrap();
        let whole = restored(&mut device, &restorer, &pixels);
        restorer.max_tile = SMALL;
        let size = Tiles::new(SIDE, SIDE, SMALL, restorer.halo, restorer.align).unwrap();
        tiled += usize::from(size.count() > 1);
        let scale = whole.iter().map(|v| v.abs()).fold(0.0, f32::max);
        let error = largest_difference(&whole, &restored(&mut device, &restorer, &pixels));
        assert!(error <= 1e-4 * scale, "model {seed}, halo {}: {error}\n{text}", restorer.halo);
        // Control: a halo that is too small makes seams.
        restorer.halo /= 4;
        let error = largest_difference(&whole, &restored(&mut device, &restorer, &pixels));
        with_seams += usize::from(error > 1e-3 * scale);
    }
    assert!(tiled > MODELS as usize / 2, "only {tiled} models were tiled");
    assert!(with_seams > MODELS as usize / 2, "only {with_seams} models had seams");
}
