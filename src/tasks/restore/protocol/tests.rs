use super::*;
use crate::metrics::quality;
use crate::raster::resample::imresize;
use crate::report::picture::Picture;
use crate::shape::Dims;
use crate::testing::{Folder, encoded};
use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};

fn gray(h: usize, w: usize) -> Picture {
    let sample = |i: usize| (((i / w * 5 + i % w * 3) % 256) as f32) / 255.0;
    Picture { dims: Dims::new(1, h, w), pixels: (0..h * w).map(sample).collect() }
}

/// A folder with `count` small images 01.png, 02.png, ….
fn set(name: &str, count: usize) -> Folder {
    let folder = Folder::new(name);
    for i in 1..=count {
        let image =
            GrayImage::from_fn(24, 20, |x, y| Luma([(x * 7 + y * 11 + i as u32 * 5) as u8]));
        folder.write(format!("{i:02}.png"), &encoded(&image.into(), ImageFormat::Png));
    }
    folder.write("SHA256SUMS", b"no image");
    folder
}

fn data(set: &str) -> Option<PathBuf> {
    let data = std::env::var_os("CSAE_DATA");
    if data.is_none() {
        println!("skipped: CSAE_DATA names no folder of data sets");
    }
    data.map(|data| Path::new(&data).join(set))
}

fn bicubic(degraded: &Degraded) -> Result<Restored> {
    let Degradation::Scale(scale) = degraded.degradation else { unreachable!("super-resolution") };
    let Picture { dims, ref pixels } = degraded.picture;
    let (pixels, size) = imresize(pixels, dims, scale as f64)?;
    let large = Picture { dims: Dims::of(size, 1), pixels };
    Ok(Restored { before: large.clone(), after: large })
}

/// Unchanged noise must score 20·log₁₀(255/σ) dB, which is 20.17 at σ = 25, and slightly more since
/// the result is clipped.
#[test]
fn unchanged_noise_scores_its_sigma() {
    let flat = Picture { dims: Dims::new(1, 300, 300), pixels: vec![0.5; 90_000] };
    for (sigma, expected) in [(15.0, 24.61), (25.0, 20.17), (50.0, 14.15)] {
        let degradation = Degradation::Sigma(sigma);
        let (reference, degraded) = degrade(&flat, degradation, 1, 0).unwrap();
        assert!(
            (quality::psnr(&reference.pixels, &degraded.picture.pixels) - expected).abs() < 0.05
        );
        let (psnr, _) = score(&reference, &degraded.picture, degradation).unwrap();
        assert!((psnr - expected).abs() < if sigma < 50.0 { 0.05 } else { 0.2 }, "{sigma}: {psnr}");
        let (_, other) = degrade(&flat, degradation, 1, 1).unwrap();
        assert_ne!(other.picture, degraded.picture, "images must have different noise");
    }
}

#[test]
fn half_of_the_pixels_are_missing_and_the_rest_unchanged() {
    let clean = Picture { pixels: vec![0.5; 31 * 17], ..gray(31, 17) };
    let (_, degraded) = degrade(&clean, Degradation::Missing(0.5), 1, 3).unwrap();
    let mask = degraded.mask.unwrap();
    assert_eq!(mask.count(), 264, "half of 527");
    assert!(
        degraded
            .picture
            .pixels
            .iter()
            .zip(&mask.missing)
            .all(|(v, m)| *v == if *m == 1 { 0.0 } else { 0.5 })
    );
}

#[test]
fn super_resolution_crops_rounds_and_ignores_the_border() {
    let clean = gray(23, 34);
    let (reference, degraded) = degrade(&clean, Degradation::Scale(3), 0, 0).unwrap();
    assert_eq!(reference.dims, Dims::new(1, 21, 33));
    assert_eq!(degraded.picture.dims, Dims::new(1, 7, 11));
    assert_eq!(reference.pixels[33..66], clean.pixels[34..67]);
    // Errors in the border are ignored, and an error below half a step of 8 bits is rounded away.
    // An error one pixel inside the border counts.
    let mut spoiled = reference.clone();
    spoiled.pixels[2 * 33 + 5] += 0.3;
    spoiled.pixels[10 * 33 + 31] += 0.3;
    spoiled.pixels[10 * 33 + 10] += 0.4 / 255.0;
    assert_eq!(score(&reference, &spoiled, Degradation::Scale(3)).unwrap().0, f64::INFINITY);
    spoiled.pixels[3 * 33 + 5] -= 0.1;
    assert!(score(&reference, &spoiled, Degradation::Scale(3)).unwrap().0 < 60.0);
    // Without a scale nothing is rounded or ignored.
    assert!(score(&reference, &spoiled, Degradation::Sigma(1.0)).unwrap().0 < 40.0);
    assert!(score(&reference, &clean, Degradation::Scale(3)).is_err());
    assert!(degrade(&gray(1, 9), Degradation::Scale(2), 0, 0).is_err());
    assert!(score(&gray(4, 9), &gray(4, 9), Degradation::Scale(2)).is_err());
}

/// A restorer that returns its input.
fn unchanged(degraded: &Degraded) -> Restored {
    Restored { before: degraded.picture.clone(), after: degraded.picture.clone() }
}

#[test]
fn a_report_has_every_image_and_means() {
    let folder = set("protocol-set12", 12);
    let mut seen = Vec::new();
    let degradations = Protocol::Set12.degradations();
    let report = run(Protocol::Set12, &folder.path, degradations, 5, |degraded| {
        seen.push(degraded.degradation);
        Ok(unchanged(degraded))
    })
    .unwrap();
    assert_eq!((seen.len(), report.outcomes.len()), (36, 3));
    let outcome = &report.outcomes[1];
    assert_eq!((outcome.images.len(), &outcome.images[4].image[..]), (12, "05.png"));
    let mean = outcome.images.iter().map(|score| score.psnr).sum::<f64>() / 12.0;
    assert!((outcome.psnr - mean).abs() < 1e-12);
    let again = run(Protocol::Set12, &folder.path, degradations, 5, |d| Ok(unchanged(d))).unwrap();
    assert_eq!(again, report);
    let other = run(Protocol::Set12, &folder.path, degradations, 6, |d| Ok(unchanged(d))).unwrap();
    assert_ne!(other.outcomes, report.outcomes);
    let text = report.to_string();
    assert!(
        text.contains("set12 sigma 25") && text.contains("05.png") && text.contains("DnCNN-S"),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&json["protocol"], &json["outcomes"][1]["degradation"]["sigma"]),
        (&"set12".into(), &25.0.into())
    );
    assert_eq!(json["outcomes"][1]["published"][0]["method"], "BM3D");
    let message = run(Protocol::Set12, &folder.path, degradations, 5, |_| {
        Ok(Restored { before: gray(2, 2), after: gray(2, 2) })
    })
    .unwrap_err()
    .to_string();
    assert!(message.contains("01.png") && message.contains("24x20"), "{message}");
}

#[test]
fn eight_images_are_selected_and_other_folders_refused() {
    let folder = set("protocol-eight", 12);
    let files = Protocol::Inpaint50.images(&folder.path).unwrap();
    let names: Vec<_> =
        files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["01", "02", "03", "08", "09", "10", "11", "12"]);
    let message = Protocol::Set5.images(&folder.path).unwrap_err().to_string();
    assert!(message.contains("12 images of set5 instead of 5"), "{message}");
    assert!(Protocol::Set5.images(&folder.path.join("none")).is_err());
    assert!("set13".parse::<Protocol>().unwrap_err().to_string().contains("did you mean set1"));
    for &protocol in Protocol::ALL {
        let name = protocol.name();
        assert_eq!((name.parse::<Protocol>().unwrap(), protocol.name()), (protocol, name));
    }
}

#[test]
fn colour_files_become_luma_for_super_resolution_only() {
    let folder = Folder::new("protocol-luma");
    let red = RgbImage::from_pixel(4, 4, Rgb([255, 0, 0]));
    let file = folder.write("a.png", &encoded(&red.into(), ImageFormat::Png));
    // Rounded values of 16 + 65.481 (luma with headroom) and 0.299·255 (gray).
    assert!((clean(Protocol::Set5, &file).unwrap().pixels[0] - 81.0 / 255.0).abs() < 1e-6);
    assert!((clean(Protocol::Set12, &file).unwrap().pixels[0] - 76.0 / 255.0).abs() < 1e-6);
}

#[test]
fn colour_protocols_keep_red_green_and_blue() {
    let folder = Folder::new("protocol-colour");
    let colour = RgbImage::from_fn(40, 30, |x, y| Rgb([200, (6 * x) as u8, (8 * y) as u8]));
    let file = folder.write("a.png", &encoded(&colour.into(), ImageFormat::Png));
    for protocol in [Protocol::Cbsd68, Protocol::Kodak24, Protocol::Mcmaster] {
        let clean = clean(protocol, &file).unwrap();
        assert_eq!(clean.dims, Dims::new(3, 30, 40));
        assert_eq!(clean.pixels[..3], [200.0 / 255.0, 0.0, 0.0]);
        let (reference, degraded) = degrade(&clean, Degradation::Sigma(25.0), 1, 0).unwrap();
        assert_eq!(reference, clean);
        // Every channel has noise of its own, which is neither clipped nor rounded.
        let noise: Vec<f32> =
            degraded.picture.pixels.iter().zip(&clean.pixels).map(|(a, b)| a - b).collect();
        assert!(noise.chunks(3).all(|pixel| pixel[0] != pixel[1] && pixel[1] != pixel[2]));
        assert!(degraded.picture.pixels.iter().any(|v| *v < 0.0));
    }
    assert_eq!(clean(Protocol::Urban100, &file).unwrap().dims.c, 1);
}

#[test]
fn noisy_mcmaster_scores_its_sigma() {
    let Some(folder) = data("mcmaster18") else { return };
    let degradations = &[Degradation::Sigma(25.0)];
    let report = run(Protocol::Mcmaster, &folder, degradations, 0, |d| Ok(unchanged(d))).unwrap();
    // Clipping adds some tenths of a dB.
    assert!((20.17..20.8).contains(&report.outcomes[0].psnr), "{}", report.outcomes[0].psnr);
}

/// A check of the protocol itself: bicubic enlargement must have the published scores.
#[test]
fn bicubic_on_set5_scores_what_is_published() {
    let Some(folder) = data("set5") else { return };
    let report = run(Protocol::Set5, &folder, Protocol::Set5.degradations(), 0, bicubic).unwrap();
    println!("{report}");
    for (outcome, expected) in report.outcomes.iter().zip([33.64, 30.39, 28.42]) {
        assert!((outcome.psnr - expected).abs() < 0.1, "{}: {}", outcome.degradation, outcome.psnr);
    }
}

#[test]
fn noisy_bsd68_scores_its_sigma() {
    let Some(folder) = data("bsd68") else { return };
    let report =
        run(Protocol::Bsd68, &folder, &[Degradation::Sigma(25.0)], 0, |d| Ok(unchanged(d)))
            .unwrap();
    // Clipping adds some tenths of a dB.
    assert!((20.17..20.8).contains(&report.outcomes[0].psnr), "{}", report.outcomes[0].psnr);
}
