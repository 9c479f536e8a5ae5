//! What an image is optimised for: that its moments, at its own size and at halves of it, are those
//! of an exemplar, and that it shows a content. The device does what takes time, the maps and their
//! gradients; the image is the host's, which takes steps by [`crate::linalg::lbfgs`].

use crate::device::Device;
use crate::error::{Error, Result};
use crate::linalg::lbfgs::{Stop, memory, minimise};
use crate::model::Store;
use crate::report::picture::Picture;
use crate::tasks::synthesis::RGB;
use crate::tasks::synthesis::extractor::{Content, MapExtractor, Then};
use crate::tasks::synthesis::frame::{Border, add_halved, halved};
use crate::tasks::synthesis::moments::Wanted;
use crate::tasks::synthesis::spectrum::Spectrum;
use crate::tasks::synthesis::synthesizer::Synthesizer;

/// Halvings of an image at most: structures eight times larger than what the encoder sees at once.
const SCALES: usize = 4;
/// What a pixel outside of 0…1 costs, by the square of how far.
const OUTSIDE: f64 = 10.0;
/// What the distance of power spectra weighs.
const SPECTRUM: f64 = 0.1;

/// An exemplar's moments: of each scale, from the whole image on, those of each layer.
pub type Scales = Vec<Vec<Wanted>>;

/// At how many sizes, each half of the one before, images of some sizes are all large enough for
/// moments.
pub fn depth(synthesizer: &Synthesizer, sizes: &[[usize; 2]]) -> usize {
    let [h, w] = synthesizer.least();
    let large = |scale: &usize| {
        sizes.iter().all(|size| {
            size[0].div_ceil(1 << scale) >= h + synthesizer.stride
                && size[1].div_ceil(1 << scale) >= w + synthesizer.stride
        })
    };
    (1..SCALES).take_while(large).count() + 1
}

/// An image at its own size and at halves, so many in all.
pub fn halvings(image: &Picture, count: usize) -> Vec<(Vec<f32>, [usize; 2])> {
    let first = (image.pixels.clone(), [image.h, image.w]);
    std::iter::successors(Some(first), |(pixels, size)| Some(halved(pixels, *size, RGB)))
        .take(count)
        .collect()
}

/// The moments of an exemplar at its scales, by each synthesizer.
pub fn moments(
    device: &mut Device,
    synthesizers: &[(Synthesizer, Store)],
    scales: &[(Vec<f32>, [usize; 2])],
) -> Result<Scales> {
    let of = |(pixels, size): &(Vec<f32>, [usize; 2])| {
        let mut found = Vec::new();
        for (synthesizer, store) in synthesizers {
            let extractor = synthesizer.measuring(
                device,
                store,
                *size,
                None,
                &Then::Stop { apart: true },
                0,
            )?;
            found.extend(extractor.look(device, pixels)?.0.iter().map(Wanted::new));
        }
        Ok(found)
    };
    scales.iter().map(of).collect()
}

/// What an image is optimised for, at one size.
#[derive(Debug)]
pub struct Objective<'a> {
    device: &'a mut Device,
    /// A extractor for each scale and synthesizer.
    extractors: Vec<Vec<MapExtractor>>,
    /// Exemplars and what they weigh; of each the moments of these scales.
    exemplars: Vec<(f64, Scales)>,
    spectrum: Option<Spectrum>,
    size: [usize; 2],
}

impl<'a> Objective<'a> {
    /// For images of a size, whose scales are to have the moments of exemplars. With `contents`,
    /// the contents of these scales if there are any, images can be made better by it; without, it
    /// can only tell how far they are.
    ///
    /// # Errors
    /// When it would take more memory than may be taken, with the figures.
    pub fn new(
        device: &'a mut Device,
        synthesizers: &[(Synthesizer, Store)],
        size: [usize; 2],
        border: Option<Border>,
        exemplars: Vec<(f64, Scales)>,
        contents: Option<&[Content]>,
    ) -> Result<Self> {
        let count = exemplars.iter().map(|(_, scales)| scales.len()).min().unwrap_or(0);
        let (mut extractors, mut at) = (Vec::with_capacity(count), size);
        let mut taken = contents.map_or(0, |_| memory(size[0] * size[1] * RGB));
        for scale in 0..count {
            let mut of_scale = Vec::with_capacity(synthesizers.len());
            for (i, (synthesizer, store)) in synthesizers.iter().enumerate() {
                let then = match contents {
                    // the content is what the coarsest code says
                    Some(contents) => {
                        Then::Gradient(contents.get(scale).filter(|_| i == 0).cloned())
                    }
                    None => Then::Stop { apart: true },
                };
                let extractor = synthesizer.measuring(device, store, at, border, &then, taken)?;
                taken += extractor.bytes();
                of_scale.push(extractor);
            }
            extractors.push(of_scale);
            at = at.map(|side| side.div_ceil(2));
        }
        Ok(Self { device, extractors, exemplars, spectrum: None, size })
    }

    /// Also wants the power spectrum of an exemplar.
    pub fn want_spectrum(&mut self, exemplar: &[f32], size: [usize; 2]) {
        self.spectrum = Some(Spectrum::new(exemplar, size, self.size));
    }

    /// The mean squared distance of the moments, over scales and layers, weighted over exemplars;
    /// the gradient by the image, if it is wanted, with what content and range cost.
    fn evaluate(&mut self, image: &[f32], mut gradient: Option<&mut [f32]>) -> Result<(f64, f64)> {
        let mut pyramid = vec![(image.to_vec(), self.size)];
        while pyramid.len() < self.extractors.len() {
            let (pixels, size) = pyramid.last().expect("there is one");
            pyramid.push(halved(pixels, *size, RGB));
        }
        let (mut apart, mut cost) = (0.0, 0.0);
        let mut below: Option<Vec<f32>> = None;
        for (scale, extractors) in self.extractors.iter().enumerate().rev() {
            let goals: Vec<(f64, &[Wanted])> = self
                .exemplars
                .iter()
                .map(|(weight, scales)| (*weight, &scales[scale][..]))
                .collect();
            let share = 1.0 / (self.extractors.len() * goals[0].1.len()) as f64;
            let (mut own, mut layer) = (vec![0.0_f32; pyramid[scale].0.len()], 0);
            for extractor in extractors {
                let (moments, content) = extractor.look(self.device, &pyramid[scale].0)?;
                cost += content;
                let mut changes = Vec::with_capacity(moments.len());
                for moments in &moments {
                    let c = moments.mean.len();
                    let (mut matrix, mut offset) =
                        (vec![0.0; moments.products.len() * c * c], vec![0.0; c]);
                    for (weight, goals) in &goals {
                        let distance = goals[layer].distance(moments);
                        apart += share * weight * distance.squared;
                        let weight = (share * weight) as f32;
                        matrix
                            .iter_mut()
                            .zip(&distance.by_product)
                            .for_each(|(m, v)| *m += weight * v);
                        offset
                            .iter_mut()
                            .zip(&distance.by_mean)
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
                add_halved(&mut own, pyramid[scale].1, RGB, &below);
            }
            below = Some(own);
        }
        if let (Some(out), Some(own)) = (&mut gradient, below) {
            out.copy_from_slice(&own);
        }
        if let Some(spectrum) = &self.spectrum {
            cost += spectrum.add(image, SPECTRUM, gradient.as_deref_mut());
        }
        let share = OUTSIDE / image.len() as f64;
        for (i, v) in image.iter().enumerate() {
            let outside = f64::from(v - v.clamp(0.0, 1.0));
            if outside != 0.0 {
                cost += share * outside * outside;
                if let Some(out) = &mut gradient {
                    out[i] += (2.0 * share * outside) as f32;
                }
            }
        }
        Ok((apart, cost))
    }

    /// Root of the mean squared distance of an image's moments from the exemplars'.
    pub fn distance(&mut self, image: &[f32]) -> Result<f64> {
        Ok(self.evaluate(image, None)?.0.sqrt())
    }

    /// Takes steps downhill from an image. `go_on` is told how many there were and the objective,
    /// and says whether there are to be more.
    pub fn descend(
        &mut self,
        image: &mut [f32],
        steps: usize,
        go_on: impl FnMut(usize, f64) -> bool,
    ) -> Result<()> {
        let mut x: Vec<f64> = image.iter().map(|v| f64::from(*v)).collect();
        let mut failed: Option<Error> = None;
        let (mut at, mut gradient) = (vec![0.0_f32; image.len()], vec![0.0_f32; image.len()]);
        let f = |x: &[f64], out: &mut [f64]| {
            at.iter_mut().zip(x).for_each(|(at, x)| *at = *x as f32);
            match self.evaluate(&at, Some(&mut gradient)) {
                Ok((apart, cost)) => {
                    out.iter_mut().zip(&gradient).for_each(|(out, v)| *out = f64::from(*v));
                    apart + cost
                }
                Err(error) => {
                    failed = Some(error);
                    f64::NAN
                }
            }
        };
        minimise(&mut x, 1.0, Stop { steps, gradient: 0.0 }, f, go_on);
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
    use crate::shape::Dims;
    use crate::spec::{Config, preset_text};

    fn noise([h, w]: [usize; 2], name: &str) -> Picture {
        let mut stream = Stream::new(3, name);
        Picture {
            h,
            w,
            c: RGB,
            pixels: (0..h * w * RGB).map(|_| 0.5 + 0.2 * stream.normal()).collect(),
        }
    }

    /// Untrained, and smooth: differences across a rectifier's kinks say little.
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

    /// Of everything there is: two scales, two synthesizers, two exemplars, contents, a spectrum, a
    /// border.
    fn check(border: Border, presets: &[&str]) {
        let mut device = Device::oracle();
        let synthesizers =
            synthesizers(&mut device, presets.iter().map(|preset| smooth(preset)).collect());
        let size = [40, 37];
        let (image, content) = (noise(size, "image"), noise(size, "content"));
        let mut exemplars = Vec::new();
        for (weight, name) in [(0.7, "one"), (0.3, "other")] {
            let scales = halvings(&noise([72, 80], name), 2);
            exemplars.push((weight, moments(&mut device, &synthesizers, &scales).unwrap()));
        }
        let (synthesizer, store) = &synthesizers[0];
        let mut contents = Vec::new();
        for (pixels, size) in halvings(&content, 2) {
            let extractor = synthesizer
                .measuring(&mut device, store, size, Some(border), &Then::Stop { apart: false }, 0)
                .unwrap();
            extractor.look(&mut device, &pixels).unwrap();
            contents.push(Content { maps: extractor.code(&mut device).unwrap(), weight: 0.4 });
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
        objective.want_spectrum(&content.pixels, size);
        let mut gradient = vec![0.0; image.pixels.len()];
        objective.evaluate(&image.pixels, Some(&mut gradient)).unwrap();
        // along directions: a single pixel's slope drowns in the rounding of the host's f32
        for direction in ["a", "b", "c"] {
            let along = noise(size, direction).pixels;
            let mut moved = |by: f32| {
                let image: Vec<f32> =
                    image.pixels.iter().zip(&along).map(|(v, d)| v + by * (d - 0.5)).collect();
                let (apart, cost) = objective.evaluate(&image, None).unwrap();
                apart + cost
            };
            let slope = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            let told: f64 =
                gradient.iter().zip(&along).map(|(g, d)| f64::from(*g) * f64::from(d - 0.5)).sum();
            assert!(
                (slope - told).abs() < 1e-3 * slope.abs(),
                "{border:?} {direction}: {slope} by differences, {told} told"
            );
        }
    }

    #[test]
    fn its_gradient_is_the_slope() {
        check(Border::Wrap, &["paint-2", "paint-1"]);
        check(Border::Mirror, &["paint-3"]);
    }

    #[test]
    fn steps_go_downhill() {
        let mut device = Device::cpu();
        let synthesizers = synthesizers(&mut device, vec![model::bundled("paint-1").unwrap()]);
        let scales = halvings(&noise([32, 32], "exemplar"), 1);
        let wanted = moments(&mut device, &synthesizers, &scales).unwrap();
        let held = device.allocated();
        let mut objective = Objective::new(
            &mut device,
            &synthesizers,
            [24, 28],
            Some(Border::Wrap),
            vec![(1.0, wanted)],
            Some(&[]),
        )
        .unwrap();
        let mut image = vec![0.5; 24 * 28 * RGB];
        let before = objective.distance(&image).unwrap();
        let mut losses = Vec::new();
        objective
            .descend(&mut image, 8, |_, loss| {
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
        assert_eq!(device.allocated(), held, "bytes after the extractors are gone");
    }

    #[test]
    fn sizes_are_halved_while_moments_are_of_something() {
        let synthesizer = Synthesizer::new(model::bundled("paint-3").unwrap()).unwrap();
        assert_eq!(
            (synthesizer.stride, synthesizer.field, synthesizer.least()),
            (4, [20, 20], [32, 32])
        );
        for (side, levels) in [(32, 1), (70, 1), (72, 2), (144, 3), (288, 4), (4000, 4)] {
            assert_eq!(depth(&synthesizer, &[[side, side], [999, 999]]), levels, "{side}");
        }
        assert!(synthesizer.check_size([31, 99]).unwrap_err().to_string().contains("32x32"));
    }
}
