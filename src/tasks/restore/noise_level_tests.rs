//! Tests of the estimate of noise.

use super::*;
use crate::data::bundled;
use crate::data::formats::decode::decode_file;
use crate::data::image_file::{Depth, ImageFile};
use crate::infer::conditions::Strength;
use crate::raster::{color, corrupt};
use crate::testing::Folder;

fn noisy(clean: &[f32], sigma: f64, image: usize) -> Vec<f32> {
    let mut pixels = clean.to_vec();
    corrupt::add_noise(&mut pixels, sigma, &mut corrupt::stream(7, "noise", image));
    pixels
}

#[test]
fn eigenvalues_of_the_image_are_removed() {
    // Four noise eigenvalues around 1 and two of the image. With those of the image the mean is
    // far above the median.
    assert_eq!(noise_variance(&[0.9, 0.95, 1.05, 1.1, 7.0, 90.0]), 1.0);
    assert_eq!(noise_variance(&[2.0]), 2.0);
}

#[test]
fn pure_noise_is_estimated_within_two_percent() {
    for (c, sigma) in [(1, 10.0), (3, 40.0)] {
        let dims = Dims::new(c, 200, 150);
        let NoiseLevel { sigma: got, at_most, .. } =
            estimate(&noisy(&vec![0.5; dims.len()], sigma, 0), dims, None).unwrap();
        assert_eq!(at_most, None);
        assert!((got / sigma - 1.0).abs() < 0.02, "{got} instead of {sigma}");
    }
}

/// Photographs have noise of their own, whose variance adds to that of the test. The estimate
/// can exceed σ by that, and must otherwise be within 5 %.
#[test]
fn photographs() {
    let photos = bundled::load("photos").unwrap();
    for image in 0..photos.len() {
        let size = photos.table[image].size;
        let rgb = photos.image_f32(image);
        let green: Vec<f32> = rgb.iter().skip(1).step_by(3).copied().collect();
        // Two of the four photographs are gray.
        let is_gray = rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
        for (clean, c) in [(&rgb, 3), (&green, 1)].into_iter().filter(|(_, c)| *c == 1 || !is_gray)
        {
            let dims = Dims::of(size, c);
            let own = estimate(clean, dims, None).unwrap().sigma;
            for sigma in if c == 1 { &[5.0, 15.0, 25.0, 50.0][..] } else { &[5.0, 25.0] } {
                let sigma = *sigma;
                let got = estimate(&noisy(clean, sigma, image), dims, None).unwrap().sigma;
                println!("{} c={c} own {own:.2}: {sigma} -> {got:.2}", photos.names[image]);
                let bound = 0.05 * sigma + 0.3 + (sigma.hypot(own) - sigma);
                assert!(
                    (got - sigma).abs() <= bound,
                    "{}: {got} instead of {sigma}, own {own}",
                    photos.names[image]
                );
            }
            assert!(own < 4.0, "{}: {own}", photos.names[image]);
        }
    }
}

/// A noisy colour photograph, its size, and the noise.
fn colour(sigma: f64) -> (Vec<f32>, Dims) {
    let photos = bundled::load("photos").unwrap();
    let image = photos.names.iter().position(|name| name == "astronaut.webp").unwrap();
    let dims = Dims::of(photos.table[image].size, 3);
    let mut pixels = noisy(&photos.image_f32(image), sigma, 3);
    pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    (pixels, dims)
}

/// The same with chroma at half of the resolution, as in most JPEG files.
fn with_coarse_chroma(pixels: &[f32], dims: Dims) -> Vec<f32> {
    let mut ycbcr = color::rgb_to_ycbcr(pixels);
    for (y, x) in (0..dims.h / 2).flat_map(|y| (0..dims.w / 2).map(move |x| (2 * y, 2 * x))) {
        for channel in 1..3 {
            let places = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)];
            let places = places.map(|(y, x)| 3 * (y * dims.w + x) + channel);
            let mean = places.iter().map(|at| ycbcr[*at]).sum::<f32>() / 4.0;
            places.iter().for_each(|at| ycbcr[*at] = mean);
        }
    }
    color::ycbcr_to_rgb(&ycbcr)
}

#[test]
fn coarse_chroma_does_not_hide_the_noise() {
    for sigma in [15.0, 25.0, 50.0] {
        let (pixels, dims) = colour(sigma);
        let white = estimate(&pixels, dims, None).unwrap();
        assert!((white.in_channel / white.sigma - 1.0).abs() < 0.1, "{white:?}");
        let found = estimate(&with_coarse_chroma(&pixels, dims), dims, None).unwrap();
        assert!((found.sigma / sigma - 1.0).abs() < 0.15, "{found:?} instead of {sigma}");
        let share = found.in_channel / sigma;
        assert!((0.6..0.8).contains(&share), "{found:?}");
        // Chroma has noise of half the resolution, whose best level is half to 0.7 of this.
        assert!((white.chroma / sigma - 1.0).abs() < 0.15, "{white:?}");
        assert!((0.5..0.7).contains(&(found.chroma / sigma)), "{found:?}");
        assert_eq!(found.condition().planes.unwrap()[1], Strength::noise(found.chroma));
    }
}

#[test]
fn bars_and_black_halves_do_not_count() {
    let (pixels, dims) = colour(25.0);
    // Black bars are clipped; gray ones only do not vary.
    let letterbox = |v: f32| {
        let bar = vec![v; 3 * dims.w * 80];
        [&bar[..], &pixels, &bar].concat()
    };
    let tall = Dims { h: dims.h + 160, ..dims };
    let mut black = pixels.clone();
    let half = |row: &mut [f32]| row[..3 * (dims.w / 2)].fill(0.0);
    black.chunks_exact_mut(3 * dims.w).for_each(half);
    for (pixels, dims) in [(letterbox(0.0), tall), (letterbox(0.5), tall), (black, dims)] {
        let found = estimate(&pixels, dims, None).unwrap();
        assert!((found.sigma / 25.0 - 1.0).abs() < 0.1, "{found:?}");
    }
}

#[test]
fn noise_without_its_fine_part_is_doubtful() {
    let (pixels, dims) = colour(25.0);
    assert_eq!(estimate(&pixels, dims, None).unwrap().at_most, None);
    // The mean of each pixel and its right neighbour, and of these the mean with the lower one.
    let smooth = |pixels: &[f32], step: usize| -> Vec<f32> {
        let next = |i: usize| pixels[(i + step).min(pixels.len() - 1)];
        pixels.iter().enumerate().map(|(i, v)| 0.5 * (v + next(i))).collect()
    };
    let smoothed = smooth(&smooth(&pixels, 3), 3 * dims.w);
    let found = estimate(&smoothed, dims, None).unwrap();
    assert!(found.at_most.is_some_and(|most| most > 2.0 * found.sigma), "{found:?}");
}

#[test]
fn weak_noise_is_left_if_the_estimate_is_doubtful() {
    let kept = |sigma: f64, at_most: Option<f64>| {
        let found = NoiseLevel { at_most, ..NoiseLevel::white(sigma) };
        found.condition().planes.unwrap().map(|strength| strength.kept)
    };
    assert_eq!(kept(4.1, None), [0.0, 0.0]);
    assert_eq!(kept(4.1, Some(5.5)), [1.0, 1.0]);
    assert_eq!(kept(8.0, Some(12.0)), [0.0, 0.0]);
}

#[test]
fn texture_is_not_noise() {
    // Noise of 12 in which each pixel has a tenth of each of its neighbours: a spectrum that
    // falls with the frequency, and fills all dimensions of the patches.
    let dims = Dims::new(1, 256, 256);
    let white = noisy(&vec![0.5; dims.len()], 12.0, 5);
    let at = |y: usize, x: usize| white[(y % dims.h) * dims.w + x % dims.w];
    let grain: Vec<f32> = (0..dims.len())
        .map(|i| (i / dims.w + dims.h, i % dims.w + dims.w))
        .map(|(y, x)| {
            let near = at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1);
            0.6 * at(y, x) + 0.1 * near
        })
        .collect();
    let found = estimate(&grain, dims, None).unwrap();
    assert!(found.in_channel == 0.0 && found.at_most.is_some_and(|most| most > 5.0), "{found:?}");
    let found = estimate(&white, dims, None).unwrap();
    assert!((found.sigma / 12.0 - 1.0).abs() < 0.02 && found.at_most.is_none(), "{found:?}");
}

/// The estimate of a JPEG file of noise, with and without the steps of the file.
fn compressed(sigma: f64, quality: u8) -> [NoiseLevel; 2] {
    let (pixels, dims) = colour(sigma);
    let folder = Folder::new("noise-level");
    let path = folder.write("noisy.jpg", b"");
    let clean = ImageFile::from_pixels(&pixels, dims, Depth::Eight);
    clean.save_with(&path, quality).unwrap();
    let file = ImageFile::read(&path).unwrap();
    let quantization = Quantization::new(&file.luma_steps().unwrap());
    [Some(&quantization), None].map(|known| estimate(&file.pixels(), dims, known).unwrap())
}

#[test]
fn quantization_is_undone_or_makes_the_estimate_doubtful() {
    for (sigma, quality) in [(15.0, 90), (25.0, 85), (25.0, 80), (8.0, 95)] {
        let [known, unknown] = compressed(sigma, quality);
        let share = known.sigma / sigma;
        assert!((0.9..1.1).contains(&share), "{sigma} {quality}: {known:?}");
        assert!(unknown.sigma > 1.02 * known.sigma, "{sigma} {quality}: {unknown:?}");
        assert_eq!(known.in_channel, unknown.in_channel);
        assert!(known.chroma >= 0.6 * known.luma, "{known:?}");
        assert_eq!(known.at_most, None);
    }
    let [known, unknown] = compressed(25.0, 50);
    assert!(known.at_most.is_some_and(|most| most > 1.1 * known.sigma), "{known:?}");
    // Without the steps, what is left of the noise looks like texture.
    assert!(unknown.sigma == 0.0 && unknown.at_most >= Some(known.sigma), "{unknown:?}");

    // An image without noise gives the same limit with and without a known table.
    let [known, unknown] = compressed(0.0, 75);
    assert_eq!(known.at_most, unknown.at_most);
}

#[test]
fn the_texture_bound_accepts_noise_and_rejects_edges() {
    let mut stream = corrupt::stream(1, "texture", 0);
    let patches: Vec<Vec<f64>> =
        (0..20_000).map(|_| (0..64).map(|_| f64::from(stream.normal())).collect()).collect();
    let mean = patches.iter().map(|patch| texture(patch)).sum::<f64>() / patches.len() as f64;
    assert!((mean - 48.0).abs() < 0.5, "{mean}");
    // The formula assumes independent gradients. Neighbouring ones are correlated, so that some
    // patches in 100,000 exceed the bound.
    let above = patches.iter().filter(|patch| texture(patch) >= weak_texture()).count();
    assert!(above <= 5, "{above}");
    let edge: Vec<f64> =
        patches[0].iter().enumerate().map(|(i, v)| v + if i % 8 < 4 { 6.0 } else { 0.0 }).collect();
    assert!(texture(&edge) > weak_texture());
}

#[test]
fn equal_channels_are_gray_and_small_images_are_refused() {
    let gray = noisy(&vec![0.3; 64 * 64], 20.0, 1);
    let rgb: Vec<f32> = gray.iter().flat_map(|&v| [v; 3]).collect();
    let of =
        |pixels: &[f32], c: usize, h: usize, w: usize| estimate(pixels, Dims { c, h, w }, None);
    assert_eq!(of(&gray, 1, 64, 64).unwrap(), of(&rgb, 3, 64, 64).unwrap());
    for (h, w) in [(1, 1), (7, 900), (14, 14)] {
        let message = of(&vec![0.0; h * w], 1, h, w).unwrap_err().to_string();
        assert!(message.contains("too small"), "{message}");
    }
    let small = of(&noisy(&[0.5; 32 * 32], 25.0, 0), 1, 32, 32).unwrap();
    assert!((small.sigma - 25.0).abs() < 5.0, "{small:?}");
    let clean = NoiseLevel::white(0.0);
    assert_eq!(of(&[0.5; 32 * 32], 1, 32, 32).unwrap(), clean);
}

/// Mean absolute error of the estimate on the test sets of denoising.
#[test]
fn test_sets() {
    let Some(data) = std::env::var_os("CSAE_DATA").map(std::path::PathBuf::from) else {
        println!("skipped: CSAE_DATA names no folder of data sets");
        return;
    };
    for (set, bound) in [("set12", 0.05), ("bsd68", 0.05)] {
        let mut files: Vec<_> =
            std::fs::read_dir(data.join(set)).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "png"));
        files.sort();
        for sigma in [5.0, 15.0, 25.0, 50.0] {
            let error = |(image, path): (usize, &std::path::PathBuf)| {
                let decoded = decode_file(path).unwrap();
                let clean: Vec<f32> =
                    decoded.pixels.iter().map(|&v| f32::from(v) / 255.0).collect();
                let dims = Dims { c: 1, ..decoded.dims };
                estimate(&noisy(&clean, sigma, image), dims, None).unwrap().sigma - sigma
            };
            let errors: Vec<f64> =
                files.par_iter().enumerate().map(|(i, path)| error((i, path))).collect();
            let mean = |f: fn(&f64) -> f64| errors.iter().map(f).sum::<f64>() / errors.len() as f64;
            let (bias, mean_error, max_error) = (
                mean(|e| *e),
                mean(|e| e.abs()),
                errors.iter().fold(0.0_f64, |m, e| m.max(e.abs())),
            );
            println!(
                "{set} sigma {sigma}: bias {bias:+.2}, mean error {mean_error:.2}, \
                 maximum {max_error:.2}"
            );
            assert!(mean_error <= bound * sigma + 0.7, "{set} {sigma}: {mean_error}");
        }
    }
}
