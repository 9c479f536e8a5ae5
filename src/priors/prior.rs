//! What is known of a model's codes: three priors, and how strongly units fire.

use rayon::prelude::*;

use crate::error::{Error, Result, did_you_mean};
use crate::priors::codes::Codes;
use crate::priors::mixture::{Mixture, MixtureScore};
use crate::priors::sparse::{HeldOutLoss, SparsePrior};
use crate::rng::Stream;

/// Values of a code at most: covariances have the square of it.
pub const MAX_UNITS: usize = 1024;
/// Codes that priors are fitted to at least.
const MIN_CODES: usize = 32;
/// Components that a unit is shown in at most.
pub const SWEEP_COMPONENTS: usize = 4;
/// Numbers of the stream that a code may take.
const WORDS: u64 = 1 << 16;

/// A prior.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorKind {
    /// One Gaussian with a full covariance: the baseline
    Gaussian,
    /// A mixture of Gaussians with full covariances, as many as Bayes's information criterion takes
    Mixture,
    /// Which units fire, and how strongly, given that they fire: one unit after the other
    Sparse,
}

impl PriorKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gaussian, Self::Mixture, Self::Sparse];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Mixture => "mixture",
            Self::Sparse => "sparse",
        }
    }
}

/// What is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRequest {
    /// From which prior.
    pub kind: PriorKind,
    /// How many codes.
    pub count: usize,
    /// Seed of what is drawn.
    pub seed: u64,
    /// What standard deviations are multiplied by, and odds of firing are taken to the inverse
    /// power of; 1: as they were fitted, 0: the likeliest.
    pub temperature: f64,
    /// The class that images are to be of.
    pub class: Option<u32>,
}

/// How far fitting is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FitProgress {
    /// A mixture was tried, of a class where there are some.
    Mixture(Option<u32>, MixtureScore),
    /// A step of the sparse prior's training, of so many; how well codes are told that are held
    /// out.
    Sparse(usize, usize, HeldOutLoss),
}

/// The priors of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// Hash of the model.
    pub model: String,
    /// How many codes they were fitted to.
    pub fitted_to: usize,
    /// Names of the classes; none where codes have no classes.
    pub classes: Vec<String>,
    /// Of each unit: how often it fires, and how strongly then, on average.
    pub units: Vec<[f32; 2]>,
    /// One Gaussian.
    pub gaussian: Mixture,
    /// A mixture.
    pub mixture: Mixture,
    /// What respects sparsity.
    pub sparse: SparsePrior,
}

/// Bytes that fitting takes beside the codes, at so many components.
pub fn fitting_bytes(units: usize, codes: usize, components: usize) -> u64 {
    let (d, n, k) = (units as u64, codes as u64, components as u64);
    // rows of a class and of components, what each row is of each component, factors; the sparse
    // prior comes later
    let mixture = 8 * n * d + 16 * n * k + 4 * k * d * d + 32 * d * d;
    mixture.max(SparsePrior::bytes(units, codes))
}

impl Prior {
    /// Fits all three to the codes of the model of this hash. So many components of the mixture
    /// where that is said.
    ///
    /// # Errors
    /// When there are too few codes, or they say nothing.
    pub fn fit(
        codes: &Codes,
        model: &str,
        components: Option<usize>,
        seed: u64,
        mut told: impl FnMut(FitProgress),
    ) -> Result<Self> {
        if codes.len() < MIN_CODES {
            return Err(Error::usage(format!(
                "{} images are too few to fit a prior to; {MIN_CODES} are the least",
                codes.len()
            )));
        }
        let mut units = vec![[0.0_f32; 2]; codes.units];
        for code in codes.values.chunks_exact(codes.units) {
            for (unit, value) in units.iter_mut().zip(code).filter(|(_, value)| **value != 0.0) {
                *unit = [unit[0] + 1.0, unit[1] + value];
            }
        }
        if units.iter().all(|[fired, _]| *fired == 0.0) {
            return Err(Error::usage(
                "no unit of the code fires for any of these images; train the model longer, or with a weaker penalty",
            ));
        }
        let n = codes.len() as f32;
        let units =
            units.into_iter().map(|[fired, sum]| [fired / n, sum / fired.max(1.0)]).collect();
        Ok(Self {
            model: model.to_owned(),
            fitted_to: codes.len(),
            classes: codes.labels.as_ref().map(|labels| labels.classes.clone()).unwrap_or_default(),
            units,
            gaussian: Mixture::one(codes)?,
            mixture: Mixture::fit(codes, components, seed, |class, judged| {
                told(FitProgress::Mixture(class, judged))
            })?,
            sparse: SparsePrior::fit(codes, seed, |step, of, held| {
                told(FitProgress::Sparse(step, of, held))
            }),
        })
    }

    /// The number of a class by its name.
    ///
    /// # Errors
    /// When there are no classes, none of that name, or no image was of it.
    pub fn class(&self, name: &str) -> Result<u32> {
        if self.classes.is_empty() {
            return Err(Error::usage(format!(
                "--class {name}: the prior was fitted to images without classes; fit it again by --fit DATA --force with labelled ones"
            )));
        }
        let found = self.classes.iter().position(|known| known == name).ok_or_else(|| {
            let hint = did_you_mean(name, self.classes.iter().map(String::as_str));
            Error::usage(format!("--class {name}: there are {}{hint}", self.classes.join(", ")))
        })? as u32;
        let known = self.mixture.classes.as_ref().is_some_and(|classes| classes.contains(&found));
        known.then_some(found).ok_or_else(|| {
            Error::usage(format!("--class {name}: the prior was fitted to no image of it"))
        })
    }

    /// Codes drawn, one after the other; the same whatever comes after them.
    ///
    /// # Errors
    /// When a class is wanted of one Gaussian.
    pub fn draw(&self, draw: &SampleRequest) -> Result<Vec<f32>> {
        let (class, temperature) = (draw.class, draw.temperature as f32);
        if class.is_some() && draw.kind == PriorKind::Gaussian {
            return Err(Error::usage(
                "--class: one Gaussian of all images knows no classes; take --prior mixture or sparse",
            ));
        }
        Ok(self.each(draw, |stream, out| match draw.kind {
            PriorKind::Gaussian => self.gaussian.draw(None, temperature, stream, out),
            PriorKind::Mixture => self.mixture.draw(class, temperature, stream, out),
            PriorKind::Sparse => self.sparse.draw(class, temperature, stream, out),
        }))
    }

    /// Codes like one, of which a share `vary` is new: of the variance, or, with the sparse prior,
    /// of the units.
    pub fn like(&self, draw: &SampleRequest, code: &[f32], vary: f64) -> Vec<f32> {
        let (vary, temperature) = (vary as f32, draw.temperature as f32);
        match draw.kind {
            PriorKind::Gaussian => self.each(draw, self.gaussian.like(code, vary, temperature)),
            PriorKind::Mixture => self.each(draw, self.mixture.like(code, vary, temperature)),
            PriorKind::Sparse => self.each(draw, self.sparse.like(code, vary, temperature)),
        }
    }

    fn each(&self, draw: &SampleRequest, of: impl Fn(&mut Stream, &mut [f32]) + Sync) -> Vec<f32> {
        let units = self.units.len();
        let mut codes = vec![0.0; draw.count * units];
        codes.par_chunks_exact_mut(units).enumerate().for_each(|(i, out)| {
            of(&mut Stream::new(draw.seed, "generate").skip(i as u64 * WORDS), out);
        });
        codes
    }

    /// What one unit draws: codes with it at these multiples of its usual strength, first alone,
    /// then in the mean codes of the components of the mixture in which it is strongest,
    /// [`SWEEP_COMPONENTS`] at most.
    ///
    /// # Errors
    /// When there is no such unit, or it never fires.
    pub fn unit_sweep(&self, unit: usize, multiples: &[f32]) -> Result<Vec<f32>> {
        let units = self.units.len();
        let Some([rate, strength]) = self.units.get(unit) else {
            return Err(Error::usage(format!(
                "--unit {unit}: the code has units 0 to {}",
                units - 1
            )));
        };
        if *rate == 0.0 {
            return Err(Error::usage(format!(
                "--unit {unit}: it fired for none of the images that the prior was fitted to"
            )));
        }
        let mut means: Vec<&[f32]> =
            self.mixture.components.iter().map(|component| &component.mean[..]).collect();
        means.sort_by(|a, b| b[unit].abs().total_cmp(&a[unit].abs()));
        let alone = vec![0.0; units];
        let bases = std::iter::once(&alone[..]).chain(means.into_iter().take(SWEEP_COMPONENTS));
        let mut codes = Vec::new();
        for base in bases {
            for multiple in multiples {
                codes.extend_from_slice(base);
                let at = codes.len() - units + unit;
                codes[at] = multiple * strength;
            }
        }
        Ok(codes)
    }
}

/// Codes on the straight line between two, both ends among them.
pub fn interpolate(a: &[f32], b: &[f32], frames: usize) -> Vec<f32> {
    let at = |frame: usize| frame as f32 / (frames.max(2) - 1) as f32;
    (0..frames)
        .flat_map(|frame| a.iter().zip(b).map(move |(a, b)| a + at(frame) * (b - a)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    fn prior(labelled: bool) -> Prior {
        let mut stream = Stream::new(3, "codes");
        let of: Vec<u32> = (0..2000).map(|i| i % 2).collect();
        let values = of.iter().flat_map(|class| {
            let strength = 1.0 + 0.1 * stream.normal();
            if *class == 0 { [strength, 0.0, 0.0] } else { [0.0, 2.0 * strength, 0.0] }
        });
        let labels = Labels {
            classes: ["left", "right", "none"].map(String::from).to_vec(),
            of: of.clone(),
        };
        let codes =
            Codes { units: 3, values: values.collect(), labels: labelled.then_some(labels) };
        Prior::fit(&codes, "hash", None, 0, |_| {}).unwrap()
    }

    #[test]
    fn draws_obey_seed_class_and_temperature() {
        let prior = prior(true);
        let draw = SampleRequest {
            kind: PriorKind::Sparse,
            count: 50,
            seed: 1,
            temperature: 1.0,
            class: None,
        };
        for kind in PriorKind::ALL {
            let draw = SampleRequest { kind, ..draw };
            let all = prior.draw(&draw).unwrap();
            assert_eq!(all[..30], prior.draw(&SampleRequest { count: 10, ..draw }).unwrap()[..]);
            assert_ne!(all, prior.draw(&SampleRequest { seed: 2, ..draw }).unwrap());
            let spread = |temperature: f64| {
                let all = prior.like(
                    &SampleRequest { temperature, count: 100, ..draw },
                    &[1.0, 0.0, 0.0],
                    0.7,
                );
                let mean = all.iter().step_by(3).sum::<f32>() / 100.0;
                all.iter().step_by(3).map(|v| (v - mean).powi(2)).sum::<f32>()
            };
            assert!(spread(0.3) < spread(1.0), "{kind:?}");
        }
        for kind in [PriorKind::Mixture, PriorKind::Sparse] {
            let class = Some(prior.class("right").unwrap());
            let codes = prior.draw(&SampleRequest { kind, class, ..draw }).unwrap();
            assert!(
                codes.chunks(3).filter(|code| code[1] > 1.0 && code[0] < 0.5).count() > 46,
                "{kind:?}"
            );
        }
        let told = |error: Error| error.to_string();
        assert!(
            told(
                prior
                    .draw(&SampleRequest { kind: PriorKind::Gaussian, class: Some(1), ..draw })
                    .unwrap_err()
            )
            .contains("--prior mixture")
        );
        assert!(told(prior.class("rihgt").unwrap_err()).contains("did you mean"));
        assert!(told(prior.class("none").unwrap_err()).contains("no image"));
        assert!(
            told(crate::priors::prior::tests::prior(false).class("left").unwrap_err())
                .contains("--fit")
        );
    }

    #[test]
    fn units_are_shown_at_their_strength() {
        let prior = prior(false);
        let codes = prior.unit_sweep(1, &[0.0, 1.0, 2.0]).unwrap();
        assert_eq!(codes.len(), 9 * (1 + prior.mixture.components.len().min(SWEEP_COMPONENTS)));
        assert_eq!(codes[..3], [0.0; 3]);
        assert!((codes[4] - 2.0).abs() < 0.1 && (codes[7] - 4.0).abs() < 0.2 && codes[3] == 0.0);
        // then in codes that it is strong in, whose other units stay
        let strongest = prior
            .mixture
            .components
            .iter()
            .map(|c| &c.mean)
            .max_by(|a, b| a[1].total_cmp(&b[1]))
            .unwrap();
        assert!(codes[9] == strongest[0] && codes[10] == 0.0 && (codes[13] - 2.0).abs() < 0.1);
        let told = |unit: usize| prior.unit_sweep(unit, &[1.0]).unwrap_err().to_string();
        assert!(told(3).contains("0 to 2") && told(2).contains("none of the images"));
    }

    #[test]
    fn lines_have_both_ends() {
        assert_eq!(interpolate(&[0.0, 2.0], &[4.0, 2.0], 3), [0.0, 2.0, 2.0, 2.0, 4.0, 2.0]);
        assert_eq!(interpolate(&[1.0], &[2.0], 2), [1.0, 2.0]);
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let codes = Codes { units: 2, values: vec![0.0; 80], labels: None };
        assert!(
            Prior::fit(&codes, "", None, 0, |_| {}).unwrap_err().to_string().contains("no unit")
        );
        let few = Codes { units: 2, values: vec![1.0; 8], labels: None };
        assert!(
            Prior::fit(&few, "", None, 0, |_| {}).unwrap_err().to_string().contains("4 images")
        );
    }
}
