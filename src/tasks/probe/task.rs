//! The images of a probe, and their features in the order that fitting wants.

use super::linear::{Design, Scaling};
use super::{HELD_OUT, match_labels};
use crate::data::split::held_out;
use crate::data::{Labels, Sample};
use crate::error::{Error, Result};

/// Labelled images to fit to, and others to judge by.
#[derive(Debug)]
pub struct ProbeTask<'a> {
    /// The training images.
    pub train: &'a Sample,
    /// The test images.
    pub test: &'a Sample,
    /// The classes' names.
    pub classes: Vec<String>,
    labels: [Labels; 2],
    /// The row of each training image.
    row: Vec<usize>,
    /// ProbeFeatures that classifiers are fitted to while the penalty is chosen by the others.
    fit: usize,
}

/// Features of a task's images, brought to mean 0 and variance 1 by those of the training images.
#[derive(Debug)]
pub struct ProbeFeatures {
    /// Of the training images, those to fit to first.
    pub train: Design,
    /// How many those are.
    pub fit: usize,
    /// Of the test images.
    pub test: Design,
    /// What they were scaled by.
    pub scaling: Scaling,
}

impl<'a> ProbeTask<'a> {
    /// The task of two sets; which training labels are held out is drawn from the seed.
    ///
    /// # Errors
    /// When labels are missing or do not match.
    pub fn new(train: &'a Sample, test: &'a Sample, seed: u64) -> Result<Self> {
        let (of_train, of_test) = match_labels(train.labels(), test.labels())?;
        let (order, fit) = held_out(&of_train.of, of_train.classes.len(), HELD_OUT, seed);
        let mut row = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, image)| row[*image] = place);
        Ok(Self {
            train,
            test,
            classes: of_train.classes.clone(),
            labels: [of_train, of_test],
            row,
            fit,
        })
    }

    /// How many training images classifiers are fitted to while the penalty is chosen.
    pub const fn held_from(&self) -> usize {
        self.fit
    }

    /// Bytes of so many features of every image.
    pub fn bytes(&self, width: usize) -> u64 {
        4 * (width as u64) * (self.train.len() + self.test.len()) as u64
    }

    /// Fails if so many features of every image are more than may be taken.
    ///
    /// # Errors
    /// With the figures.
    pub fn check(&self, width: usize, allowed: Option<u64>) -> Result<()> {
        match allowed {
            Some(allowed) if self.bytes(width) > allowed => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                Err(Error::usage(format!(
                    "{width} features of {} images take {} MiB, more than the {} MiB that may be taken; pool them on a coarser --grid, or raise --max-memory",
                    self.train.len() + self.test.len(),
                    mib(self.bytes(width)),
                    mib(allowed)
                )))
            }
            _ => Ok(()),
        }
    }

    /// Takes the features of all images, which `each` gives for a set in order, the number of the
    /// first and the values of some.
    ///
    /// # Errors
    /// What `each` fails with.
    pub fn gather(
        &self,
        width: usize,
        mut each: impl FnMut(&Sample, &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()>,
    ) -> Result<ProbeFeatures> {
        let mut of = vec![0; self.row.len()];
        self.row.iter().zip(&self.labels[0].of).for_each(|(row, class)| of[*row] = *class);
        let mut train = Design::new(width, of);
        let mut test = Design::new(width, self.labels[1].of.clone());
        each(self.train, &mut |first, values| {
            values
                .chunks_exact(width)
                .enumerate()
                .for_each(|(i, values)| train.row_mut(self.row[first + i]).copy_from_slice(values));
            Ok(())
        })?;
        each(self.test, &mut |first, values| {
            values
                .chunks_exact(width)
                .enumerate()
                .for_each(|(i, values)| test.row_mut(first + i).copy_from_slice(values));
            Ok(())
        })?;
        let scaling = train.scaling();
        train.scale(&scaling);
        test.scale(&scaling);
        Ok(ProbeFeatures { train, fit: self.fit, test, scaling })
    }

    /// The pixels themselves as features, on the 0–1 scale.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn pixels(&self, width: usize) -> Result<ProbeFeatures> {
        self.gather(width, |sample, take| {
            let mut done = 0;
            sample.each_part(|images, _| {
                for image in 0..images.len() {
                    take(done, &images.image_f32(image))?;
                    done += 1;
                }
                Ok(())
            })
        })
    }
}
