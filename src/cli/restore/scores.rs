//! Scores of restored images against clean ones.

use serde_json::{Map, Value, json};

/// PSNR in dB and SSIM of an image before and after its restoration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// PSNR and SSIM of the input.
    pub before: [f64; 2],
    /// PSNR and SSIM of the result.
    pub after: [f64; 2],
}

impl Scores {
    /// The scores as fields for `--json`.
    pub fn fields(&self) -> Map<String, Value> {
        let ([p0, s0], [p1, s1]) = (self.before, self.after);
        let fields = [("psnr_before", p0), ("ssim_before", s0), ("psnr", p1), ("ssim", s1)];
        fields.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect()
    }

    /// The mean over images. `None` for fewer than two. A perfect result has an infinite PSNR; 100
    /// dB keeps the mean finite.
    pub fn mean(all: &[Self]) -> Option<Self> {
        let of = |value: &dyn Fn(&Self) -> f64| {
            all.iter().map(|scores| value(scores).min(100.0)).sum::<f64>() / all.len() as f64
        };
        (all.len() > 1).then(|| Self {
            before: [0, 1].map(|at| of(&|scores| scores.before[at])),
            after: [0, 1].map(|at| of(&|scores| scores.after[at])),
        })
    }

    /// The line of the mean over `images` images.
    pub fn report(&self, images: usize, json: bool) -> String {
        if json {
            let mut line = json!({"kind": "mean", "images": images});
            line.as_object_mut().expect("`line` is an object").extend(self.fields());
            return line.to_string();
        }
        format!("mean of {images} images{self}")
    }
}

impl std::fmt::Display for Scores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ([p0, s0], [p1, s1]) = (self.before, self.after);
        write!(f, "  PSNR {p0:.2} → {p1:.2} dB  SSIM {s0:.4} → {s1:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_needs_two_images_and_is_finite() {
        let scores = |psnr| Scores { before: [20.0, 0.5], after: [psnr, 0.75] };
        assert_eq!(Scores::mean(&[scores(30.0)]), None);
        assert_eq!(Scores::mean(&[]), None);
        let mean = Scores::mean(&[scores(30.0), scores(f64::INFINITY)]).unwrap();
        assert_eq!(mean, scores(65.0));
        assert_eq!(
            mean.report(2, false),
            "mean of 2 images  PSNR 20.00 → 65.00 dB  SSIM 0.5000 → 0.7500"
        );
        let line: Value = serde_json::from_str(&mean.report(2, true)).unwrap();
        assert_eq!((&line["kind"], &line["psnr"]), (&"mean".into(), &65.0.into()));
    }
}
