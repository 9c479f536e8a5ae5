//! How a model restores images with another number of channels than its own.

use super::conditions::{Condition, Strength};
use crate::error::{Error, Result};
use crate::raster::color::{from_jpeg, from_opponent, to_jpeg, to_opponent};
use crate::spec::ModelSpec;

/// What a model restores of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planes {
    /// The image as it is: it has the model's channels.
    Own,
    /// A gray image in each channel of the model. The result is the mean over the channels.
    Repeated,
    /// One channel of an image whose channels are equal, for a gray model. The result has it in
    /// each channel. Its noise is the same in all channels, which [`Self::Opponent`] does not
    /// expect.
    Gray,
    /// Each channel by itself, for a gray model.
    Channels,
    /// The luma and the two chroma planes of a colour image, for a gray model that removes noise.
    ///
    /// The channels of photographs are alike. So luma has more contrast than a channel has, and
    /// chroma has little detail that could hide noise, but white noise is equally strong in all of
    /// them. This gains 1.2 dB over single channels. Missing pixels and enlarged images are
    /// restored better in single channels (`benches/results/2026-11-30-color.md`).
    Opponent,
    /// The luma and the two chroma planes of a JPEG file, for a gray model that removes the
    /// artefacts of its compression. The model learned from luma, so that chroma is kept: it has
    /// mostly half of the resolution, and decoders smooth it when they enlarge it.
    Jpeg,
}

impl Planes {
    /// What a model with `channels` channels restores of an image with `c` channels.
    ///
    /// # Errors
    /// When the numbers differ and neither is 1.
    pub fn of(spec: &ModelSpec, channels: usize, c: usize) -> Result<Self> {
        match (channels, c) {
            _ if channels == c => Ok(Self::Own),
            (_, 1) => Ok(Self::Repeated),
            (1, 3) if spec.undoes.sigma.is_some() => Ok(Self::Opponent),
            (1, 3) if spec.undoes.quality.is_some() => Ok(Self::Jpeg),
            (1, _) => Ok(Self::Channels),
            _ => Err(Error::usage(format!(
                "the model takes {channels} channels, but the image has {c}; convert the image, or \
                 use a gray model"
            ))),
        }
    }

    /// The same for an image whose channels are equal in every pixel.
    pub const fn of_gray(self) -> Self {
        match self {
            Self::Channels | Self::Opponent | Self::Jpeg | Self::Gray => Self::Gray,
            Self::Own => Self::Own,
            Self::Repeated => Self::Repeated,
        }
    }

    /// The strength of the noise in plane `plane`.
    pub const fn strength(self, condition: &Condition, plane: usize) -> Strength {
        match (self, condition.planes) {
            (Self::Opponent | Self::Jpeg, Some([luma, chroma])) => {
                if plane == 0 {
                    luma
                } else {
                    chroma
                }
            }
            _ => condition.strength,
        }
    }

    /// Whether a model that is conditioned on the level leaves an image as it is. If the noise of
    /// the channels is weak, a change of the luma alone is not worth compressing a file again.
    pub fn keep_all(self, condition: &Condition) -> bool {
        condition.strength.kept == 1.0
            || (0..2).all(|plane| self.strength(condition, plane).kept == 1.0)
    }

    /// Runs a model of `channels` channels on pixels with `c` channels. `mean` is the mean of the
    /// image in each of the `c` channels. `run` gets the number of the plane, and pixels and means
    /// in the model's channels.
    ///
    /// # Errors
    /// When `run` fails.
    pub fn run(
        self,
        (channels, c): (usize, usize),
        pixels: &[f32],
        mean: Option<&[f32]>,
        mut run: impl FnMut(usize, &[f32], Option<Vec<f32>>) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        match self {
            Self::Own => run(0, pixels, mean.map(<[f32]>::to_vec)),
            Self::Repeated => {
                let repeat = |values: &[f32]| -> Vec<f32> {
                    values.iter().flat_map(|v| std::iter::repeat_n(*v, channels)).collect()
                };
                let average = |pixel: &[f32]| pixel.iter().sum::<f32>() / channels as f32;
                let restored = run(0, &repeat(pixels), mean.map(repeat))?;
                Ok(restored.chunks_exact(channels).map(average).collect())
            }
            Self::Gray => {
                let first: Vec<f32> = pixels.iter().step_by(c).copied().collect();
                let restored = run(0, &first, mean.map(|mean| vec![mean[0]]))?;
                Ok(restored.into_iter().flat_map(|v| std::iter::repeat_n(v, c)).collect())
            }
            Self::Channels => one_by_one(c, pixels, mean, run),
            Self::Opponent => {
                let mean = mean.map(to_opponent);
                let restored = one_by_one(c, &to_opponent(pixels), mean.as_deref(), run)?;
                Ok(from_opponent(&restored))
            }
            Self::Jpeg => {
                let mean = mean.map(to_jpeg);
                let restored = one_by_one(c, &to_jpeg(pixels), mean.as_deref(), run)?;
                Ok(from_jpeg(&restored))
            }
        }
    }
}

/// Runs a gray model on each of `c` planes.
fn one_by_one(
    c: usize,
    pixels: &[f32],
    mean: Option<&[f32]>,
    mut run: impl FnMut(usize, &[f32], Option<Vec<f32>>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let mut restored = vec![0.0; pixels.len()];
    for number in 0..c {
        let plane: Vec<f32> = pixels.iter().skip(number).step_by(c).copied().collect();
        let plane = run(number, &plane, mean.map(|mean| vec![mean[number]]))?;
        let out = restored.iter_mut().skip(number).step_by(c);
        out.zip(plane).for_each(|(to, from)| *to = from);
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Config, CorruptionSpec, Task};

    fn spec(task: Task) -> ModelSpec {
        let text = crate::spec::preset_text(task.name()).unwrap();
        let mut spec = Config::parse(text, "test", &[]).unwrap().model;
        spec.undoes = CorruptionSpec::for_task(task);
        spec
    }

    #[test]
    fn noise_alone_is_removed_from_opponent_planes() {
        let of = |task, channels, c| Planes::of(&spec(task), channels, c);
        assert_eq!(of(Task::Denoise, 1, 3).unwrap(), Planes::Opponent);
        assert_eq!(of(Task::Inpaint, 1, 3).unwrap(), Planes::Channels);
        assert_eq!(of(Task::Upscale, 1, 3).unwrap(), Planes::Channels);
        assert_eq!(of(Task::Denoise, 1, 2).unwrap(), Planes::Channels);
        assert_eq!(of(Task::Denoise, 3, 3).unwrap(), Planes::Own);
        assert_eq!(of(Task::Denoise, 3, 1).unwrap(), Planes::Repeated);
        assert!(of(Task::Denoise, 3, 2).unwrap_err().to_string().contains("3 channels"));
    }

    #[test]
    fn planes_have_their_own_strength() {
        let condition = Condition::noise_in(9.0, [12.0, 1.0]);
        let sigma = |planes: Planes, plane: usize| {
            (255.0 * planes.strength(&condition, plane).level).round()
        };
        assert_eq!([0, 1, 2].map(|plane| sigma(Planes::Opponent, plane)), [12.0, 1.0, 1.0]);
        assert_eq!([0, 1, 2].map(|plane| sigma(Planes::Channels, plane)), [9.0; 3]);
        assert!(!Planes::Opponent.keep_all(&condition) && !Planes::Own.keep_all(&condition));
        let none = Condition::noise_in(1.2, [1.4, 0.1]);
        assert!(Planes::Opponent.keep_all(&none) && Planes::Own.keep_all(&none));
        let chroma = Condition::noise_in(3.7, [1.0, 5.0]);
        assert!(!Planes::Opponent.keep_all(&chroma));
        let weak = Condition::noise_in(1.2, [1.8, 0.5]);
        assert!(Planes::Opponent.keep_all(&weak) && Planes::Own.keep_all(&weak));
    }

    /// Runs a model that returns what it gets, times the number of the plane.
    fn times_number(planes: Planes, pixels: &[f32]) -> Vec<f32> {
        let run = |plane: usize, pixels: &[f32], mean: Option<Vec<f32>>| {
            let mean = mean.unwrap()[0];
            Ok(pixels.iter().map(|v| mean + plane as f32 * (v - mean)).collect())
        };
        let mean: Vec<f32> = (0..3)
            .map(|c| pixels.iter().skip(c).step_by(3).sum::<f32>() / (pixels.len() / 3) as f32)
            .collect();
        planes.run((1, 3), pixels, Some(&mean), run).unwrap()
    }

    #[test]
    fn every_plane_gets_its_pixels_and_its_mean() {
        let pixels = [0.2, 0.5, 0.8, 0.4, 0.1, 0.6];
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let by_channel = times_number(Planes::Channels, &pixels);
        // Red becomes its mean, green stays, and blue has twice the contrast.
        assert!(close(&by_channel, &[0.3, 0.5, 0.9, 0.3, 0.1, 0.5]), "{by_channel:?}");
        let opponent = to_opponent(&times_number(Planes::Opponent, &pixels));
        assert!(close(&opponent, &times_number(Planes::Channels, &to_opponent(&pixels))));
        let gray = [0.2, 0.2, 0.2, 0.6, 0.6, 0.6];
        assert!(close(&times_number(Planes::Gray, &gray), &[0.4; 6]));
    }
}
