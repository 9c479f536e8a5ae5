//! The priors of a model: three probability models of its codes, and the firing statistics of its
//! units.

use rayon::prelude::*;

use crate::advice::Advice;
use crate::error::{Error, Result, did_you_mean};
use crate::priors::codes::Codes;
use crate::priors::mixture::{Mixture, MixtureScore};
use crate::priors::sparse::SparsePrior;
use crate::rng::Stream;

/// Maximum number of values in a code. A covariance has the square of it.
pub const MAX_UNITS: usize = 1024;
/// Minimum number of codes to fit a prior to. Fewer say almost nothing about a covariance.
const MIN_CODES: usize = 32;
/// Maximum number of mixture components whose mean code [`Prior::unit_sweep`] uses.
pub const SWEEP_COMPONENTS: usize = 4;
/// Random numbers reserved for each code, far more than sampling one uses: codes can then be
/// sampled in parallel and do not depend on how many are sampled.
const WORDS: u64 = 1 << 16;

/// The kind of a prior.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorKind {
    /// One Gaussian with a full covariance: the baseline.
    Gaussian,
    /// A mixture of Gaussians with full covariances. The Bayesian information criterion chooses
    /// their number.
    Mixture,
    /// An autoregressive prior over units: whether each fires, and how strongly if it does.
    Sparse,
}

impl PriorKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Gaussian, Self::Mixture, Self::Sparse];

    /// Name of the prior.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Mixture => "mixture",
            Self::Sparse => "sparse",
        }
    }
}

/// A request for samples of a prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRequest {
    /// Kind of the prior.
    pub kind: PriorKind,
    /// Number of codes.
    pub count: usize,
    /// Random seed.
    pub seed: u64,
    /// Temperature T: standard deviations are multiplied by T, and odds of firing are raised to the
    /// power 1/T. 1 samples the fitted distribution, 0 gives the mode.
    pub temperature: f64,
    /// Class to sample from; `None`: all.
    pub class: Option<u32>,
}

/// The priors of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// Hash of the model.
    pub model: String,
    /// Number of codes that they were fitted to.
    pub fitted_to: usize,
    /// Names of the classes; empty for unlabelled codes.
    pub classes: Vec<String>,
    /// Firing rate of each unit, and its mean value when it fires.
    pub units: Vec<[f32; 2]>,
    /// The prior with one Gaussian.
    pub gaussian: Mixture,
    /// The mixture of Gaussians.
    pub mixture: Mixture,
    /// The sparse autoregressive prior.
    pub sparse: SparsePrior,
}

/// Memory in bytes for fitting, besides the codes, with this number of mixture components.
pub fn fitting_bytes(units: usize, codes: usize, components: usize) -> u64 {
    let (d, n, k) = (units as u64, codes as u64, components as u64);
    // Copies of the codes of a class and of a component, responsibilities, covariance factors. The
    // sparse prior is fitted afterwards, when that memory is free.
    let mixture = 8 * n * d + 16 * n * k + 4 * k * d * d + 32 * d * d;
    mixture.max(SparsePrior::bytes(units, codes))
}

/// Fails if codes are too few to fit priors to, or all of them are 0.
pub(super) fn check(codes: &Codes) -> Result<()> {
    if codes.len() < MIN_CODES {
        return Err(Error::usage(format!(
            "{} images are too few to fit a prior; use at least {MIN_CODES}",
            codes.len()
        )));
    }
    if codes.values.iter().all(|value| *value == 0.0) {
        return Err(Error::usage(
            "no unit of the code fires on any of these images; train the model longer or with a \
             weaker penalty",
        ));
    }
    Ok(())
}

impl Prior {
    /// Joins a sparse prior with a Gaussian and a mixture, fitted to the codes of the model with
    /// this hash. `components` is the number of mixture components; `None` chooses it by the
    /// Bayesian information criterion. `on_mixture` is called with each mixture that is fitted, and
    /// its class if it is of one class.
    ///
    /// # Errors
    /// When there are fewer than 32 codes, no unit fires, or the codes are not finite.
    pub fn fit(
        codes: &Codes,
        model: &str,
        components: Option<usize>,
        seed: u64,
        sparse: SparsePrior,
        on_mixture: impl FnMut(Option<u32>, MixtureScore),
    ) -> Result<Self> {
        check(codes)?;
        let mut units = vec![[0.0_f32; 2]; codes.units];
        for code in codes.values.chunks_exact(codes.units) {
            for (unit, value) in units.iter_mut().zip(code).filter(|(_, value)| **value != 0.0) {
                *unit = [unit[0] + 1.0, unit[1] + value];
            }
        }
        let n = codes.len() as f32;
        let units =
            units.into_iter().map(|[fired, sum]| [fired / n, sum / fired.max(1.0)]).collect();
        Ok(Self {
            model: model.to_owned(),
            fitted_to: codes.len(),
            classes: codes.labels.as_ref().map(|labels| labels.classes.clone()).unwrap_or_default(),
            units,
            gaussian: Mixture::single(codes)?,
            mixture: Mixture::fit(codes, components, seed, on_mixture)?,
            sparse,
        })
    }

    /// Number of the class with this name.
    ///
    /// # Errors
    /// When there are no classes, none has this name, or no image had this class.
    pub fn class(&self, name: &str) -> Result<u32> {
        if self.classes.is_empty() {
            return Err(Error::usage(format!(
                "there is no class {name}, the prior was fitted to unlabelled images; {}, with \
                 labelled ones",
                Advice::RefitPrior
            )));
        }
        let found = self.classes.iter().position(|known| known == name).ok_or_else(|| {
            let hint = did_you_mean(name, self.classes.iter().map(String::as_str));
            Error::usage(format!(
                "unknown class {name}; use one of {}{hint}",
                self.classes.join(", ")
            ))
        })? as u32;
        let known = self.mixture.classes.as_ref().is_some_and(|classes| classes.contains(&found));
        known.then_some(found).ok_or_else(|| {
            Error::usage(format!(
                "the prior was fitted without images of class {name}; {} with some",
                Advice::RefitPrior
            ))
        })
    }

    /// Samples codes. The first codes do not depend on how many are requested.
    ///
    /// # Errors
    /// When a class is requested from the single Gaussian.
    pub fn sample(&self, request: &SampleRequest) -> Result<Vec<f32>> {
        let (class, temperature) = (request.class, request.temperature as f32);
        if class.is_some() && request.kind == PriorKind::Gaussian {
            return Err(Error::usage(format!(
                "the single Gaussian has no classes; {}",
                Advice::ClassPrior
            )));
        }
        Ok(self.sample_each(request, |stream, out| match request.kind {
            PriorKind::Gaussian => self.gaussian.sample(None, temperature, stream, out),
            PriorKind::Mixture => self.mixture.sample(class, temperature, stream, out),
            PriorKind::Sparse => self.sparse.sample(class, temperature, stream, out),
        }))
    }

    /// Samples variations of a code. `vary` (0 to 1) is the share of the variance that is new, or
    /// the share of resampled units for the sparse prior.
    pub fn variations(&self, request: &SampleRequest, code: &[f32], vary: f64) -> Vec<f32> {
        let (vary, temperature) = (vary as f32, request.temperature as f32);
        match request.kind {
            PriorKind::Gaussian => {
                self.sample_each(request, self.gaussian.variations(code, vary, temperature))
            }
            PriorKind::Mixture => {
                self.sample_each(request, self.mixture.variations(code, vary, temperature))
            }
            PriorKind::Sparse => {
                self.sample_each(request, self.sparse.variations(code, vary, temperature))
            }
        }
    }

    /// Calls `sampler` for each code with its own random stream.
    fn sample_each(
        &self,
        request: &SampleRequest,
        sampler: impl Fn(&mut Stream, &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let units = self.units.len();
        let mut codes = vec![0.0; request.count * units];
        codes.par_chunks_exact_mut(units).enumerate().for_each(|(i, out)| {
            sampler(&mut Stream::new(request.seed, "generate").skip(i as u64 * WORDS), out);
        });
        codes
    }

    /// Codes that show what a unit does: the unit at each of these multiples of its mean strength,
    /// first alone, then in the mean codes of the mixture components in which it is strongest (at
    /// most [`SWEEP_COMPONENTS`]).
    ///
    /// # Errors
    /// When there is no such unit, or it never fires.
    pub fn unit_sweep(&self, unit: usize, multiples: &[f32]) -> Result<Vec<f32>> {
        let units = self.units.len();
        let Some([rate, strength]) = self.units.get(unit) else {
            return Err(Error::usage(format!(
                "there is no unit {unit}; the code has units 0 to {}",
                units - 1
            )));
        };
        if *rate == 0.0 {
            return Err(Error::usage(format!(
                "unit {unit} fired on none of the images that the prior was fitted to; choose \
                 another unit"
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

/// `frames` codes on the straight line from `a` to `b`, both included.
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
    use crate::priors::training::fit_for_test;

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
        fit_for_test(&codes, "hash").unwrap().0
    }

    #[test]
    fn samples_depend_on_seed_class_and_temperature() {
        let prior = prior(true);
        let request = SampleRequest {
            kind: PriorKind::Sparse,
            count: 50,
            seed: 1,
            temperature: 1.0,
            class: None,
        };
        for kind in PriorKind::ALL {
            let request = SampleRequest { kind, ..request };
            let all = prior.sample(&request).unwrap();
            let first = prior.sample(&SampleRequest { count: 10, ..request }).unwrap();
            assert_eq!(all[..30], first[..]);
            assert_ne!(all, prior.sample(&SampleRequest { seed: 2, ..request }).unwrap());
            let spread = |temperature: f64| {
                let request = SampleRequest { temperature, count: 100, ..request };
                let all = prior.variations(&request, &[1.0, 0.0, 0.0], 0.7);
                let mean = all.iter().step_by(3).sum::<f32>() / 100.0;
                all.iter().step_by(3).map(|v| (v - mean).powi(2)).sum::<f32>()
            };
            assert!(spread(0.3) < spread(1.0), "{kind:?}");
        }
        for kind in [PriorKind::Mixture, PriorKind::Sparse] {
            let class = Some(prior.class("right").unwrap());
            let codes = prior.sample(&SampleRequest { kind, class, ..request }).unwrap();
            assert!(
                codes.chunks(3).filter(|code| code[1] > 1.0 && code[0] < 0.5).count() > 46,
                "{kind:?}"
            );
        }
        let gaussian = SampleRequest { kind: PriorKind::Gaussian, class: Some(1), ..request };
        let message = |error: Error| error.to_string();
        assert!(message(prior.sample(&gaussian).unwrap_err()).contains("mixture"));
        assert!(message(prior.class("rihgt").unwrap_err()).contains("did you mean"));
        assert!(message(prior.class("none").unwrap_err()).contains("without images"));
        let unlabelled = crate::priors::prior::tests::prior(false);
        assert!(message(unlabelled.class("left").unwrap_err()).contains("again"));
    }

    #[test]
    fn a_unit_sweep_sets_the_unit_in_every_base_code() {
        let prior = prior(false);
        let codes = prior.unit_sweep(1, &[0.0, 1.0, 2.0]).unwrap();
        assert_eq!(codes.len(), 9 * (1 + prior.mixture.components.len().min(SWEEP_COMPONENTS)));
        assert_eq!(codes[..3], [0.0; 3]);
        assert!((codes[4] - 2.0).abs() < 0.1 && (codes[7] - 4.0).abs() < 0.2 && codes[3] == 0.0);
        // Then the mean code in which the unit is strongest, its other units unchanged.
        let strongest = prior
            .mixture
            .components
            .iter()
            .map(|c| &c.mean)
            .max_by(|a, b| a[1].total_cmp(&b[1]))
            .unwrap();
        assert!(codes[9] == strongest[0] && codes[10] == 0.0 && (codes[13] - 2.0).abs() < 0.1);
        let message = |unit: usize| prior.unit_sweep(unit, &[1.0]).unwrap_err().to_string();
        assert!(message(3).contains("0 to 2") && message(2).contains("none of the images"));
    }

    #[test]
    fn interpolation_includes_both_ends() {
        assert_eq!(interpolate(&[0.0, 2.0], &[4.0, 2.0], 3), [0.0, 2.0, 2.0, 2.0, 4.0, 2.0]);
        assert_eq!(interpolate(&[1.0], &[2.0], 2), [1.0, 2.0]);
    }

    #[test]
    fn too_few_codes_and_dead_codes_are_refused() {
        let codes = Codes { units: 2, values: vec![0.0; 80], labels: None };
        assert!(fit_for_test(&codes, "").unwrap_err().to_string().contains("no unit"));
        let few = Codes { units: 2, values: vec![1.0; 8], labels: None };
        assert!(fit_for_test(&few, "").unwrap_err().to_string().contains("4 images"));
    }
}
