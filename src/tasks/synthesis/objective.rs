//! The objective of styles: the picture's moments, at several scales, match those of exemplars, and
//! optionally the picture shows a content. The device computes what is expensive,
//! the maps and their gradients. The image stays on the host, which optimises it by
//! [`crate::linalg::lbfgs`].

use crate::device::Device;
use crate::error::{Error, Result};
use crate::linalg::lbfgs::{Stop, minimise, workspace_bytes};
use crate::model::Store;
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::{Content, MapExtractor, Output};
use crate::tasks::synthesis::frame::{Border, half, halve, halve_adjoint};
use crate::tasks::synthesis::moments::TargetMoments;
use crate::tasks::synthesis::synthesizer::Synthesizer;

/// Maximum number of scales. Each halves the image, so four reach structures eight times larger
/// than the encoder's receptive field.
const MAX_SCALES: usize = 4;
/// Weight of the mean squared distance of pixels from the range 0–1. It only has to keep pixels
/// close to the range; results are clamped.
const RANGE_WEIGHT: f64 = 10.0;
/// Target moments of an exemplar: for each scale, from the full size down, those of each layer.
pub type Scales = Vec<Vec<TargetMoments>>;

/// The number of scales, each half the size of the one before, at which images of all these sizes
/// are large enough for the encoder.
pub fn scale_count(synthesizer: &Synthesizer, sizes: &[Size]) -> usize {
    let min = synthesizer.min_size().map(|side| side + synthesizer.stride);
    let large = |scale: &usize| {
        sizes.iter().all(|size| min.fits(size.map(|side| side.div_ceil(1 << scale))))
    };
    (1..MAX_SCALES).take_while(large).count() + 1
}

/// An image pyramid of `count` scales, each half the size of the one before.
pub fn pyramid(image: &Picture, count: usize) -> Vec<(Vec<f32>, Size)> {
    let first = (image.pixels.clone(), image.dims.size());
    std::iter::successors(Some(first), |(pixels, size)| Some(halve(pixels, Dims::of(*size, RGB))))
        .take(count)
        .collect()
}

/// The moments of an exemplar's pyramid, by each synthesizer.
///
/// # Errors
/// If the device fails or its memory is too small.
pub fn target_moments(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    scales: &[(Vec<f32>, Size)],
) -> Result<Scales> {
    let of = |(pixels, size): &(Vec<f32>, Size)| {
        let mut found = Vec::new();
        for (synthesizer, store) in synthesizers {
            let extractor = synthesizer.statistics_extractor(
                device,
                store,
                *size,
                None,
                &Output::Statistics { shifted: true },
                0,
            )?;
            found.extend(extractor.statistics(device, pixels)?.0.iter().map(TargetMoments::new));
        }
        Ok(found)
    };
    scales.iter().map(of).collect()
}

/// Bytes on the device while [`target_moments`] runs on `count` scales of an exemplar of `size`.
///
/// # Errors
/// If a model does not fit the size.
pub fn moments_bytes(
    synthesizers: &[(Synthesizer, Store)],
    size: Size,
    count: usize,
) -> Result<u64> {
    let output = Output::Statistics { shifted: true };
    let mut most = 0;
    for at in std::iter::successors(Some(size), |size| Some(half(*size))).take(count) {
        for (synthesizer, store) in synthesizers {
            most = most.max(synthesizer.statistics_bytes(store, at, None, &output)?);
        }
    }
    Ok(most)
}

/// Bytes of an [`Objective`] of `count` scales that measures the distance or, with `optimises`,
/// optimises an image. `shows_content` is whether it has contents.
///
/// # Errors
/// If a model does not fit the size.
pub fn objective_bytes(
    synthesizers: &[(Synthesizer, Store)],
    size: Size,
    border: Option<Border>,
    count: usize,
    (optimises, shows_content): (bool, bool),
) -> Result<u64> {
    let mut bytes = if optimises { workspace_bytes(size.area() * RGB) } else { 0 };
    for at in std::iter::successors(Some(size), |size| Some(half(*size))).take(count) {
        for (i, (synthesizer, store)) in synthesizers.iter().enumerate() {
            let content = Content { maps: Vec::new(), weight: 1.0 };
            let output = if optimises {
                Output::Gradient((shows_content && i == 0).then_some(content))
            } else {
                Output::Statistics { shifted: true }
            };
            bytes += synthesizer.statistics_bytes(store, at, border, &output)?;
        }
    }
    Ok(bytes)
}

/// The objective for images of one size.
#[derive(Debug)]
pub struct Objective<'a> {
    device: &'a mut Device,
    /// For each scale, one extractor per synthesizer.
    extractors: Vec<Vec<MapExtractor>>,
    /// The weight of each exemplar, and its target moments at each scale.
    exemplars: Vec<(f64, Scales)>,
    size: Size,
}

impl<'a> Objective<'a> {
    /// Builds the objective for images of `size`, whose scales should match the moments of
    /// `exemplars`.
    ///
    /// `contents` holds the content of each scale, and can be empty. With `Some`,
    /// [`Self::minimise`] can optimise an image. With `None`, the objective can only measure the
    /// distance, and needs less memory.
    ///
    /// # Errors
    /// If the memory budget is too small, or the device fails.
    pub fn new(
        device: &'a mut Device,
        synthesizers: &[(Synthesizer, Store)],
        size: Size,
        border: Option<Border>,
        exemplars: Vec<(f64, Scales)>,
        contents: Option<&[Content]>,
    ) -> Result<Self> {
        let count = exemplars.iter().map(|(_, scales)| scales.len()).min().unwrap_or(0);
        let (mut extractors, mut at) = (Vec::with_capacity(count), size);
        let mut reserved = contents.map_or(0, |_| workspace_bytes(size.area() * RGB));
        for scale in 0..count {
            let mut of_scale = Vec::with_capacity(synthesizers.len());
            for (i, (synthesizer, store)) in synthesizers.iter().enumerate() {
                let output = match contents {
                    // The content is compared at the coarsest code only, which leaves fine
                    // structure to the style.
                    Some(contents) => {
                        Output::Gradient(contents.get(scale).filter(|_| i == 0).cloned())
                    }
                    None => Output::Statistics { shifted: true },
                };
                let extractor = synthesizer
                    .statistics_extractor(device, store, at, border, &output, reserved)?;
                reserved += extractor.bytes();
                of_scale.push(extractor);
            }
            extractors.push(of_scale);
            at = half(at);
        }
        Ok(Self { device, extractors, exemplars, size })
    }

    /// Returns the mean squared distance of the moments over scales and layers, weighted over
    /// exemplars, and the cost of all other terms (content, pixel range). Writes the
    /// gradient of their sum to `gradient` if there is one.
    fn evaluate(&mut self, image: &[f32], mut gradient: Option<&mut [f32]>) -> Result<(f64, f64)> {
        let mut pyramid = vec![(image.to_vec(), self.size)];
        while pyramid.len() < self.extractors.len() {
            let (pixels, size) = pyramid.last().expect("there is one");
            pyramid.push(halve(pixels, Dims::of(*size, RGB)));
        }
        let (mut distance, mut cost) = (0.0, 0.0);
        let mut below: Option<Vec<f32>> = None;
        for (scale, extractors) in self.extractors.iter().enumerate().rev() {
            let goals: Vec<(f64, &[TargetMoments])> = self
                .exemplars
                .iter()
                .map(|(weight, scales)| (*weight, &scales[scale][..]))
                .collect();
            let share = 1.0 / (self.extractors.len() * goals[0].1.len()) as f64;
            let (mut own, mut layer) = (vec![0.0_f32; pyramid[scale].0.len()], 0);
            for extractor in extractors {
                let (moments, content) = extractor.statistics(self.device, &pyramid[scale].0)?;
                cost += content;
                let mut changes = Vec::with_capacity(moments.len());
                for moments in &moments {
                    let c = moments.mean.len();
                    let (mut matrix, mut offset) =
                        (vec![0.0; moments.products.len() * c * c], vec![0.0; c]);
                    for (weight, goals) in &goals {
                        let of_layer = goals[layer].distance(moments);
                        distance += share * weight * of_layer.squared;
                        let weight = (share * weight) as f32;
                        matrix
                            .iter_mut()
                            .zip(&of_layer.by_product)
                            .for_each(|(m, v)| *m += weight * v);
                        offset
                            .iter_mut()
                            .zip(&of_layer.by_mean)
                            .for_each(|(o, v)| *o += weight * v);
                    }
                    changes.push((matrix, offset));
                    layer += 1;
                }
                if gradient.is_some() {
                    let changes: Vec<(&[f32], &[f32])> =
                        changes.iter().map(|(matrix, offset)| (&matrix[..], &offset[..])).collect();
                    let more = extractor.gradient(self.device, &changes)?;
                    own.iter_mut().zip(&more).for_each(|(own, more)| *own += more);
                }
            }
            if let Some(below) = below.take() {
                halve_adjoint(&mut own, Dims::of(pyramid[scale].1, RGB), &below);
            }
            below = Some(own);
        }
        if let (Some(out), Some(own)) = (&mut gradient, below) {
            out.copy_from_slice(&own);
        }
        let share = RANGE_WEIGHT / image.len() as f64;
        for (i, v) in image.iter().enumerate() {
            let outside = f64::from(v - v.clamp(0.0, 1.0));
            if outside != 0.0 {
                cost += share * outside * outside;
                if let Some(out) = &mut gradient {
                    out[i] += (2.0 * share * outside) as f32;
                }
            }
        }
        Ok((distance, cost))
    }

    /// The root of the mean squared distance of an image's moments from the exemplars'.
    ///
    /// # Errors
    /// If the device fails.
    pub fn distance(&mut self, image: &[f32]) -> Result<f64> {
        Ok(self.evaluate(image, None)?.0.sqrt())
    }

    /// Optimises an image by at most `steps` steps. `should_continue` receives the number of steps
    /// done and the objective's value. Optimisation stops if it returns false.
    ///
    /// # Errors
    /// If the device fails.
    pub fn minimise(
        &mut self,
        image: &mut [f32],
        steps: usize,
        should_continue: impl FnMut(usize, f64) -> bool,
    ) -> Result<()> {
        let mut x: Vec<f64> = image.iter().map(|v| f64::from(*v)).collect();
        let mut failed: Option<Error> = None;
        let (mut at, mut gradient) = (vec![0.0_f32; image.len()], vec![0.0_f32; image.len()]);
        let f = |x: &[f64], out: &mut [f64]| {
            at.iter_mut().zip(x).for_each(|(at, x)| *at = *x as f32);
            match self.evaluate(&at, Some(&mut gradient)) {
                Ok((distance, cost)) => {
                    out.iter_mut().zip(&gradient).for_each(|(out, v)| *out = f64::from(*v));
                    distance + cost
                }
                Err(error) => {
                    failed = Some(error);
                    f64::NAN
                }
            }
        };
        minimise(&mut x, 1.0, Stop { steps, gradient: 0.0 }, f, should_continue);
        if let Some(error) = failed {
            return Err(error);
        }
        image.iter_mut().zip(&x).for_each(|(image, x)| *image = *x as f32);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{self, Graph, Purpose};
    use crate::rng::Stream;
    use crate::spec::{Config, preset_text};

    fn noise(size: Size, name: &str) -> Picture {
        let (mut stream, dims) = (Stream::new(3, name), Dims::of(size, RGB));
        let pixels = (0..dims.len()).map(|_| 0.5 + 0.2 * stream.normal()).collect();
        Picture { dims, pixels }
    }

    /// An untrained model with smooth activations. Finite differences across a rectifier's kinks
    /// are inaccurate.
    fn smooth(preset: &str) -> model::LoadedModel {
        let text = preset_text(preset).unwrap().replace("\"relu\"", "\"tanh\"");
        let config = Config::parse(&text, preset, &[]).unwrap();
        let (graph, mut device) =
            (Graph::new(&config.model, Dims::new(RGB, 64, 64)).unwrap(), Device::cpu());
        let store = Store::new(&mut device, &graph, Purpose::Infer).unwrap();
        store.initialise(&mut device, &graph, 5);
        let path = std::env::temp_dir()
            .join(format!("csae-smooth-{preset}-{}.safetensors", std::process::id()));
        model::save(&path, &mut device, &graph, &store).unwrap();
        let loaded = model::load(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        loaded
    }

    fn synthesizers(
        device: &mut Device,
        models: Vec<model::LoadedModel>,
    ) -> Vec<(Synthesizer, Store)> {
        let of = |loaded: model::LoadedModel| {
            let synthesizer = Synthesizer::new(loaded).unwrap();
            let store = synthesizer.place(device).unwrap();
            (synthesizer, store)
        };
        models.into_iter().map(of).collect()
    }

    /// Checks the gradient of the full objective: two scales, two exemplars, a content, a spectrum
    /// and a border.
    fn check(border: Border, presets: &[&str]) {
        let mut device = Device::oracle();
        let synthesizers =
            synthesizers(&mut device, presets.iter().map(|preset| smooth(preset)).collect());
        let size = Size::new(40, 37);
        let (image, content) = (noise(size, "image"), noise(size, "content"));
        let mut exemplars = Vec::new();
        for (weight, name) in [(0.7, "one"), (0.3, "other")] {
            let scales = pyramid(&noise(Size::new(72, 80), name), 2);
            exemplars.push((weight, target_moments(&mut device, &synthesizers, &scales).unwrap()));
        }
        let (synthesizer, store) = &synthesizers[0];
        let mut contents = Vec::new();
        for (pixels, size) in pyramid(&content, 2) {
            let extractor = synthesizer
                .statistics_extractor(
                    &mut device,
                    store,
                    size,
                    Some(border),
                    &Output::Statistics { shifted: false },
                    0,
                )
                .unwrap();
            extractor.statistics(&mut device, &pixels).unwrap();
            contents.push(Content { maps: extractor.last_maps(&mut device).unwrap(), weight: 0.4 });
        }
        let mut objective = Objective::new(
            &mut device,
            &synthesizers,
            size,
            Some(border),
            exemplars,
            Some(&contents),
        )
        .unwrap();
        let mut gradient = vec![0.0; image.pixels.len()];
        objective.evaluate(&image.pixels, Some(&mut gradient)).unwrap();
        // along directions: the slope of a single pixel is lost in the rounding of the host's f32
        for direction in ["a", "b", "c"] {
            let along = noise(size, direction).pixels;
            let mut moved = |by: f32| {
                let image: Vec<f32> =
                    image.pixels.iter().zip(&along).map(|(v, d)| v + by * (d - 0.5)).collect();
                let (distance, cost) = objective.evaluate(&image, None).unwrap();
                distance + cost
            };
            // Of fourth order: with small steps rounding errors would be too large.
            let step = 8e-3;
            let [near, far] = [step, 2.0 * step].map(|by| moved(by) - moved(-by));
            let slope = (8.0 * near - far) / (12.0 * f64::from(step));
            let analytic: f64 =
                gradient.iter().zip(&along).map(|(g, d)| f64::from(*g) * f64::from(d - 0.5)).sum();
            assert!(
                (slope - analytic).abs() < 1e-3 * slope.abs(),
                "{border:?} {direction}: {slope} by differences, {analytic} analytic"
            );
        }
    }

    #[test]
    fn gradient_matches_finite_differences() {
        check(Border::Wrap, &["paint-2", "paint-1"]);
        check(Border::Mirror, &["paint-3"]);
    }

    #[test]
    fn minimising_reduces_objective_and_distance() {
        let mut device = Device::cpu();
        let synthesizers = synthesizers(&mut device, vec![model::bundled("paint-1").unwrap()]);
        let scales = pyramid(&noise(Size::new(32, 32), "exemplar"), 1);
        let wanted = target_moments(&mut device, &synthesizers, &scales).unwrap();
        let held = device.allocated();
        let mut objective = Objective::new(
            &mut device,
            &synthesizers,
            Size::new(24, 28),
            Some(Border::Wrap),
            vec![(1.0, wanted)],
            Some(&[]),
        )
        .unwrap();
        let mut image = vec![0.5; 24 * 28 * RGB];
        let before = objective.distance(&image).unwrap();
        let mut losses = Vec::new();
        objective
            .minimise(&mut image, 12, |_, loss| {
                losses.push(loss);
                true
            })
            .unwrap();
        assert!(
            losses.windows(2).all(|pair| pair[1] <= pair[0])
                && objective.distance(&image).unwrap() < 0.5 * before,
            "{before} {losses:?}"
        );
        drop(objective);
        assert_eq!(device.allocated(), held, "bytes after the extractors were dropped");
    }

    #[test]
    fn scales_are_added_while_the_encoder_fits() {
        let synthesizer = Synthesizer::new(model::bundled("paint-3").unwrap()).unwrap();
        let square = |side: usize| Size::new(side, side);
        assert_eq!(
            (synthesizer.stride, synthesizer.field, synthesizer.min_size()),
            (4, square(20), square(32))
        );
        for (side, levels) in [(32, 1), (70, 1), (72, 2), (144, 3), (288, 4), (4000, 4)] {
            let sizes = [square(side), square(999)];
            assert_eq!(scale_count(&synthesizer, &sizes), levels, "{side}");
        }
        assert!(
            synthesizer.check_size(Size::new(31, 99)).unwrap_err().to_string().contains("32x32")
        );
    }
}
