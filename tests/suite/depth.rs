//! Restoration of images with more than 8 bits: samples keep their type and units.

use std::fs::File;
use std::path::Path;

use csae::internals::rng::Stream;
use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};
use tiff::decoder::{Decoder, DecodingResult};
use tiff::encoder::colortype::Gray32Float;
use tiff::encoder::{TiffEncoder, TiffValue};
use tiff::tags::Tag;

use crate::support::{Command, TempFolder, is_file};

const W: usize = 61;
const H: usize = 47;

/// Counts of a camera from 200 to about 3,000: smooth, with noise of σ 160.
fn counts() -> Vec<f32> {
    let mut noise = Stream::new(3, "noise");
    (0..W * H)
        .map(|at| {
            let (x, y) = ((at % W) as f32, (at / W) as f32);
            let clean = 1600.0 + 900.0 * (x / 9.0).sin() * (y / 7.0).cos();
            clean + 160.0 * noise.normal()
        })
        .collect()
}

fn floats(path: &str, samples: &[f32], w: usize) -> String {
    let mut encoder = TiffEncoder::new(File::create(path).unwrap()).unwrap();
    let h = samples.len() / w;
    encoder.write_image::<Gray32Float>(w as u32, h as u32, samples).unwrap();
    path.to_owned()
}

/// Width and samples of a TIFF file of gray floats.
fn read_floats(path: &str) -> (u32, Vec<f32>) {
    let mut decoder = Decoder::new(File::open(path).unwrap()).unwrap();
    let (w, _) = decoder.dimensions().unwrap();
    match decoder.read_image().unwrap() {
        DecodingResult::F32(samples) => (w, samples),
        other => panic!("not floats: {:?}", std::mem::discriminant(&other)),
    }
}

fn restore(command: &str, image: &str, out: &str) -> Command {
    Command::new(command).arg(image).out(out).on_cpu()
}

fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn floats_are_denoised_in_their_units_without_rounding() {
    let folder = TempFolder::new("depth-floats");
    let counts = counts();
    let wide = floats(&folder.path("counts.tif"), &counts, W);
    restore("denoise", &wide, &folder.path("out")).warns(&["from ", "to ", "--range"]);
    let (w, denoised) = read_floats(&folder.path("out/counts.tif"));
    assert_eq!((w as usize, denoised.len()), (W, W * H));
    let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
    assert!((mean(&denoised) - mean(&counts)).abs() < 20.0);
    assert!(max_difference(&denoised, &counts) > 100.0, "denoised");
    // Integers would be multiples of one step, such as 2800/65535.
    let levels: std::collections::HashSet<u32> = denoised.iter().map(|v| v.to_bits()).collect();
    assert!(levels.len() > W * H * 9 / 10, "{}", levels.len());
    // The same values on the scale from 0 to 1 have the same result on that scale.
    let unit: Vec<f32> = counts.iter().map(|v| v / 4095.0).collect();
    let small = floats(&folder.path("unit.tif"), &unit, W);
    restore("denoise", &small, &folder.path("out")).quiet().succeed();
    let (_, small) = read_floats(&folder.path("out/unit.tif"));
    let out = folder.path("range.tif");
    restore("denoise", &wide, &out).flags("--range 0,4095").quiet().succeed();
    let scaled: Vec<f32> = read_floats(&out).1.iter().map(|v| v / 4095.0).collect();
    assert!(max_difference(&scaled, &small) < 1e-5, "{}", max_difference(&scaled, &small));
    assert!(max_difference(&denoised, &read_floats(&out).1) > 1.0, "another scale, another result");
}

#[test]
fn samples_that_are_not_missing_stay_as_they_are() {
    let folder = TempFolder::new("depth-inpaint");
    let counts = counts();
    let wide = floats(&folder.path("counts.tif"), &counts, W);
    let mut mask = image::GrayImage::new(W as u32, H as u32);
    (10..20).for_each(|x| mask.put_pixel(x, 12, Luma([255])));
    mask.save(folder.path("mask.png")).unwrap();
    let out = folder.path("out.tif");
    restore("inpaint", &wide, &out).option("--mask", folder.path("mask.png")).succeed();
    let (_, filled) = read_floats(&out);
    let changed: Vec<usize> = (0..W * H).filter(|i| filled[*i] != counts[*i]).collect();
    assert_eq!(changed, (12 * W + 10..12 * W + 20).collect::<Vec<_>>());
}

#[test]
fn an_unchanged_image_of_floats_is_the_same() {
    let folder = TempFolder::new("depth-unchanged");
    let smooth: Vec<f32> = (0..W * H).map(|at| -3.0 + (at % W) as f32 * 0.017).collect();
    let image = floats(&folder.path("smooth.tif"), &smooth, W);
    let out = folder.path("out.tif");
    let line = restore("denoise", &image, &out).flags("--sigma 1").succeed();
    assert!(line.contains("unchanged"), "{line}");
    assert_eq!(read_floats(&out).1, smooth);
}

#[test]
fn frames_of_12_bits_are_restored_on_their_scale() {
    let folder = TempFolder::new("depth-12");
    let counts: Vec<u16> = counts().iter().map(|v| v.round() as u16).collect();
    let save = |name: &str, factor: u16| {
        let samples = counts.iter().map(|v| v * factor).collect();
        let image: ImageBuffer<Luma<u16>, Vec<u16>> =
            ImageBuffer::from_raw(W as u32, H as u32, samples).unwrap();
        image.save(folder.path(name)).unwrap();
        folder.path(name)
    };
    let frame = save("frame.png", 1);
    restore("denoise", &frame, &folder.path("dark")).warns(&["of 65535", "--range 0,4095"]);
    restore("denoise", &frame, &folder.path("a")).flags("--range 0,4095").quiet().succeed();
    let scaled = save("scaled.png", 16);
    let same = restore("denoise", &scaled, &folder.path("b"));
    assert!(!same.flags("--range 0,65520 --force").messages().contains("--range"));
    let read = |name: &str| image::open(folder.path(name)).unwrap().to_luma16().into_raw();
    let (frame, scaled) = (read("a/frame.png"), read("b/scaled.png"));
    let difference = frame.iter().zip(&scaled).map(|(a, b)| (16 * a).abs_diff(*b)).max().unwrap();
    assert!(difference <= 8, "{difference}: more than the rounding of one count");
    assert_ne!(frame, read("dark/frame.png"));
}

#[test]
fn tiff_files_stay_tiff_with_their_type_and_transparency() {
    let folder = TempFolder::new("depth-tiff");
    let mut stream = Stream::new(5, "samples");
    let mut sample = |max: f32| stream.uniform() * max;
    let (w, h) = (W as u32, H as u32);
    let mut eight = |n: usize| (0..W * H * n).map(|_| sample(255.0) as u8).collect::<Vec<u8>>();
    let gray = ImageBuffer::<Luma<u8>, _>::from_raw(w, h, eight(1)).unwrap();
    let rgba = ImageBuffer::<Rgba<u8>, _>::from_raw(w, h, eight(4)).unwrap();
    let mut deep = |n: usize| (0..W * H * n).map(|_| sample(65535.0) as u16).collect::<Vec<u16>>();
    let gray_deep = ImageBuffer::<Luma<u16>, _>::from_raw(w, h, deep(1)).unwrap();
    let rgb_deep = ImageBuffer::<Rgb<u16>, _>::from_raw(w, h, deep(3)).unwrap();
    let with_alpha = ImageBuffer::<LumaA<u16>, _>::from_raw(w, h, deep(2)).unwrap();
    let images: [(&str, DynamicImage); 5] = [
        ("gray.tif", gray.into()),
        ("rgba.tiff", rgba.into()),
        ("deep.TIF", gray_deep.into()),
        ("rgb.tif", rgb_deep.into()),
        ("gray-alpha.png", with_alpha.into()),
    ];
    for (name, image) in &images {
        image.save(folder.path(name)).unwrap();
        // An image without noise comes back as it is.
        let out = Path::new(name).with_extension("tif");
        let out = folder.path(&format!("out-{}", out.display()));
        restore("denoise", &folder.path(name), &out).flags("--sigma 0").quiet().succeed();
        let mut decoder = Decoder::new(File::open(&out).unwrap()).unwrap();
        let samples = decoder.read_image().unwrap();
        let bytes: Vec<u8> = match samples {
            DecodingResult::U8(v) => v,
            DecodingResult::U16(v) => v.data().into_owned(),
            _ => panic!("{name}: another type"),
        };
        assert_eq!(bytes, image.as_bytes(), "{name}");
        let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).unwrap();
        assert_eq!(extra, image.color().has_alpha().then(|| vec![2]), "{name}");
    }
    let folder_of_results = folder.path("folder");
    let tiff = folder.path("rgba.tiff");
    restore("denoise", &tiff, &folder_of_results).flags("--sigma 30").quiet().succeed();
    assert!(is_file(&folder_of_results, "rgba.tiff"));
}

#[test]
fn floats_become_16_bits_where_a_png_is_asked_for() {
    let folder = TempFolder::new("depth-png");
    let image = floats(&folder.path("x.tif"), &[0.0, 0.25, 0.5, 1.0], 2);
    let out = folder.path("x.png");
    restore("denoise", &image, &out).flags("--sigma 0").quiet().succeed();
    let png = image::open(&out).unwrap();
    assert_eq!(png.as_luma16().unwrap().as_raw(), &[0, 16384, 32768, 65535]);
}

#[test]
fn wrong_ranges_are_refused() {
    let folder = TempFolder::new("depth-range");
    let image = floats(&folder.path("x.tif"), &counts(), W);
    for range in ["4095", "0,0", "1,0", "a,b", "0,1,2", "nan,1", "0,inf"] {
        let command = restore("denoise", &image, &folder.path("out"));
        command.option("--range", range).fails(2, &["--range"]);
    }
    restore("denoise", &image, &folder.path("out")).flags("--range -100,5000").quiet().succeed();
}

/// Trains an autoencoder of gray patches for some steps and reconstructs the data.
fn reconstructed(folder: &TempFolder, data: &str, out: &str) {
    let run = folder.path("run");
    let train = Command::train(data).option("--preset", "plain").steps(2).batch(2).out(&run);
    train.set("model.input=[1,16,16]").set("data.crop=16").force().on_cpu().quiet().succeed();
    Command::reconstruct(&run, data).out(out).force().on_cpu().quiet().succeed();
}

#[test]
fn reconstructions_of_floats_are_in_their_units() {
    let folder = TempFolder::new("depth-reconstruct");
    let in_counts = floats(&folder.path("counts.tif"), &counts(), W);
    let out = folder.path("out");
    reconstructed(&folder, &in_counts, &out);
    let (w, result) = read_floats(&format!("{out}/counts.tif"));
    assert_eq!((w as usize, result.len()), (W, W * H));
    let mean = result.iter().sum::<f32>() / result.len() as f32;
    assert!((100.0..4000.0).contains(&mean), "{mean}");
    // The same as an array.
    let array = folder.path("x.npy");
    let run = folder.path("run");
    Command::reconstruct(&run, &in_counts).out(&array).on_cpu().quiet().succeed();
    let bytes = std::fs::read(&array).unwrap();
    let values = &bytes[bytes.len() - 4 * W * H..];
    let values: Vec<f32> =
        values.chunks_exact(4).map(|v| f32::from_le_bytes(v.try_into().unwrap())).collect();
    assert!(values == result);
}

#[test]
fn reconstructions_of_16_bits_are_in_counts() {
    let folder = TempFolder::new("depth-reconstruct-16");
    let counts = counts().iter().map(|v| v.round() as u16).collect();
    let image: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_raw(W as u32, H as u32, counts).unwrap();
    for name in ["frame.png", "frame.tif"] {
        let frame = folder.path(name);
        image.save(&frame).unwrap();
        let out = folder.path("out");
        reconstructed(&folder, &frame, &out);
        let result = image::open(Path::new(&out).join(name)).unwrap();
        let result = result.as_luma16().expect("16 bits");
        let sum: f64 = result.pixels().map(|pixel| f64::from(pixel[0])).sum();
        let mean = sum / (W * H) as f64;
        assert!((100.0..4000.0).contains(&mean), "{name}: {mean}");
    }
}

/// Transparent pixels hide a colour without noise.
#[test]
fn transparent_pixels_do_not_count_for_the_noise() {
    let folder = TempFolder::new("depth-hidden");
    let mut noise = Stream::new(9, "noise");
    let (w, h) = (96, 80);
    let opaque: Vec<u8> = (0..w * h)
        .map(|at| (120.0 + 40.0 * ((at % w) as f32 / 17.0).sin() + 20.0 * noise.normal()) as u8)
        .collect();
    let sigma = |name: &str, hidden: usize| {
        let pixel = |x: u32, y: u32| {
            let is_hidden = (y as usize) < hidden;
            let value = opaque[y as usize * w + x as usize];
            if is_hidden { LumaA([0, 0]) } else { LumaA([value, 255]) }
        };
        let image = ImageBuffer::from_fn(w as u32, h as u32, pixel);
        image.save(folder.path(name)).unwrap();
        let denoise = restore("denoise", &folder.path(name), &folder.path("out"));
        crate::support::json::number(&denoise.quiet().report(), "sigma")
    };
    let whole = sigma("whole.png", 0);
    for hidden in [8, 20, 40] {
        let part = sigma(&format!("{hidden}.png"), hidden);
        assert!((part / whole - 1.0).abs() < 0.15, "{hidden} rows: {part} instead of {whole}");
    }
}
