//! The images of a probe, and their features in the order that fits need.

use super::linear::{Design, Scaling};
use super::{HELD_OUT, match_labels};
use crate::advice::Advice;
use crate::data::split::held_out;
use crate::data::{Labels, Sample};
use crate::error::{Error, Result};
use crate::tasks::features::Pose;

/// Takes the number of an image, and the features from that image on.
pub type TakeFeatures<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Result<()>;

/// Labelled training and test images of a probe.
#[derive(Debug)]
pub struct ProbeTask<'a> {
    /// The training images.
    pub train: &'a Sample,
    /// The test images.
    pub test: &'a Sample,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Labels of the training and the test images.
    labels: [Labels; 2],
    /// The poses of each training image that classifiers are fitted to.
    poses: Vec<Pose>,
    /// The rank of each training image among the rows. Held-out images are last.
    row: Vec<usize>,
    /// Number of images to fit to while the others choose the penalty weight.
    fit: usize,
}

/// Features of the images, standardised by mean and variance of the training images.
#[derive(Debug)]
pub struct ProbeFeatures {
    /// Features of the training images: a row for each pose of an image, one after the other.
    /// Held-out images are last.
    pub train: Design,
    /// Number of rows that are not held out.
    pub fit: usize,
    /// Features of the test images.
    pub test: Design,
    /// The standardisation.
    pub scaling: Scaling,
}

impl<'a> ProbeTask<'a> {
    /// A task from two data sets. The seed chooses the held-out training images. Classifiers are
    /// fitted to the training images in all of these poses.
    ///
    /// # Errors
    /// As [`match_labels`].
    pub fn new(train: &'a Sample, test: &'a Sample, poses: Vec<Pose>, seed: u64) -> Result<Self> {
        let (of_train, of_test) = match_labels(train.labels(), test.labels())
            .map_err(|error| train.explain_missing_labels(error))
            .map_err(|error| test.explain_missing_labels(error))?;
        let (order, fit) = held_out(&of_train.of, of_train.classes.len(), HELD_OUT, seed);
        let mut row = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, image)| row[*image] = place);
        Ok(Self {
            train,
            test,
            classes: of_train.classes.clone(),
            labels: [of_train, of_test],
            poses,
            row,
            fit,
        })
    }

    /// Number of training images that are not held out.
    pub const fn held_from(&self) -> usize {
        self.fit
    }

    /// Memory in bytes for `width` features of every image.
    pub fn bytes(&self, width: usize) -> u64 {
        4 * width as u64 * self.extractions() as u64
    }

    /// Number of images whose features are extracted, with each pose of the training images.
    pub fn extractions(&self) -> usize {
        self.train.len() * self.poses.len() + self.test.len()
    }

    /// Checks that `width` features of every image fit into the allowed memory in bytes.
    ///
    /// # Errors
    /// When they do not; the message has both sizes.
    pub fn check(&self, width: usize, allowed: Option<u64>) -> Result<()> {
        match allowed {
            Some(allowed) if self.bytes(width) > allowed => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                Err(Error::usage(format!(
                    "{width} features of {} images need {} MiB, more than the {} MiB allowed; pool \
                     them on {}, or {}",
                    self.extractions(),
                    mib(self.bytes(width)),
                    mib(allowed),
                    Advice::CoarserGrid,
                    Advice::RaiseMemoryLimit
                )))
            }
            _ => Ok(()),
        }
    }

    /// Collects `width` features of all images and standardises them. `each` extracts the features
    /// of a data set in a pose, in order: it calls its callback with the number of an image and the
    /// features from that image on.
    ///
    /// # Errors
    /// The error of `each`.
    pub fn gather(
        &self,
        width: usize,
        mut each: impl FnMut(&Sample, Pose, TakeFeatures) -> Result<()>,
    ) -> Result<ProbeFeatures> {
        let copies = self.poses.len();
        let mut of = vec![0; self.row.len() * copies];
        for (row, class) in self.row.iter().zip(&self.labels[0].of) {
            of[row * copies..][..copies].fill(*class);
        }
        let mut train = Design::new(width, of);
        let mut test = Design::new(width, self.labels[1].of.clone());
        for (copy, pose) in self.poses.iter().enumerate() {
            each(self.train, *pose, &mut |first, values| {
                for (i, values) in values.chunks_exact(width).enumerate() {
                    let row = self.row[first + i] * copies + copy;
                    train.row_mut(row).copy_from_slice(values);
                }
                Ok(())
            })?;
        }
        each(self.test, Pose::OWN, &mut |first, values| {
            values
                .chunks_exact(width)
                .enumerate()
                .for_each(|(i, values)| test.row_mut(first + i).copy_from_slice(values));
            Ok(())
        })?;
        let scaling = train.scaling();
        train.scale(&scaling);
        test.scale(&scaling);
        Ok(ProbeFeatures { train, fit: self.fit * copies, test, scaling })
    }

    /// The pixels as features: the baseline of a probe.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn pixels(&self, width: usize) -> Result<ProbeFeatures> {
        self.gather(width, |sample, pose, take| {
            let (mut done, dims) = (0, sample.dims());
            sample.each_part(|images, _| {
                for image in 0..images.len() {
                    let mut pixels = images.image_f32(image);
                    pose.apply(&mut pixels, dims);
                    take(done, &pixels)?;
                    done += 1;
                }
                Ok(())
            })
        })
    }
}
