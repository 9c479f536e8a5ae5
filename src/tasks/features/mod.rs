//! Feature extraction: the output of a trained encoder for each image, in order.

mod file;
mod parts;

pub use file::{FeatureFormat, FeatureSource, LABELS, NAMES, Writer, npy_header, read};
pub use parts::FeatureParts;

use crate::data::{Sample, patches};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, GridPooling, LayerOp, PoolKind, Store};
use crate::shape::{Dims, to_nchw};

/// How an image is placed before its features are extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pose {
    /// Whether it is mirrored left to right.
    pub mirrored: bool,
    /// Number of pixels by which it is moved down and to the right, after mirroring.
    pub shift: [isize; 2],
}

impl Pose {
    /// The image as it is.
    pub const OWN: Self = Self { mirrored: false, shift: [0; 2] };

    /// The image as it is; with `mirrored` also its mirror image; with a `shift` above 0 also each
    /// of them moved by that many pixels to each of the four sides.
    pub fn all(mirrored: bool, shift: usize) -> Vec<Self> {
        let n = shift.cast_signed();
        let shifts = [[0, 0], [-n, 0], [n, 0], [0, -n], [0, n]];
        let shifts = &shifts[..if shift == 0 { 1 } else { shifts.len() }];
        let mirrors = &[false, true][..if mirrored { 2 } else { 1 }];
        let poses = mirrors.iter().flat_map(|mirrored| {
            shifts.iter().map(|shift| Self { mirrored: *mirrored, shift: *shift })
        });
        poses.collect()
    }

    /// Mirrors and moves images (N,H,W,C). Pixels that come in from outside of an image equal the
    /// nearest ones at its border.
    pub fn apply(self, images: &mut [f32], dims: Dims) {
        if self.mirrored {
            for row in images.chunks_exact_mut(dims.w * dims.c) {
                for x in 0..dims.w / 2 {
                    let (left, right) = row.split_at_mut((dims.w - 1 - x) * dims.c);
                    left[x * dims.c..][..dims.c].swap_with_slice(&mut right[..dims.c]);
                }
            }
        }
        if self.shift != [0; 2] {
            let from = |to: usize, shift: isize, size: usize| {
                to.saturating_add_signed(-shift).min(size.saturating_sub(1))
            };
            for image in images.chunks_exact_mut(dims.len()) {
                let own = image.to_vec();
                for (i, pixel) in image.chunks_exact_mut(dims.c).enumerate() {
                    let y = from(i / dims.w, self.shift[0], dims.h);
                    let x = from(i % dims.w, self.shift[1], dims.w);
                    pixel.copy_from_slice(&own[(y * dims.w + x) * dims.c..][..dims.c]);
                }
            }
        }
    }
}

/// Extracts features by an encoder ([`crate::model::encoder`]).
#[derive(Debug)]
pub struct Extractor<'a> {
    inference: Inference<'a>,
    /// For each pooled layer the number of its values in the features of an image, and the factor
    /// that turns average pooling into sum pooling. Empty without sum pooling.
    sums: Vec<(usize, f32)>,
    /// Size of the features of an image.
    pub dims: Dims,
}

impl<'a> Extractor<'a> {
    /// An extractor for an encoder whose values are on the device. `pooling` is the pooling that
    /// the encoder was made with.
    ///
    /// # Errors
    /// When the pooling grid does not fit the encoder's maps.
    pub fn new(graph: &'a Graph, store: &Store, pooling: Option<GridPooling>) -> Result<Self> {
        let node = &graph.nodes[graph.output];
        let mut sums = Vec::new();
        if let Some(pooling @ GridPooling { how: PoolKind::Sum, .. }) = pooling {
            let pools = match node.op {
                Some(LayerOp::Concat(_)) => &node.inputs[..],
                _ => std::slice::from_ref(&graph.output),
            };
            for pool in pools {
                let pool = &graph.nodes[*pool];
                let cell = pooling.cell(graph.nodes[pool.inputs[0]].dims)?;
                sums.push((pool.dims.len(), cell as f32));
            }
        }
        Ok(Self { inference: Inference::new(graph, store), sums, dims: node.dims })
    }

    /// Chooses the batch size that fits into memory; see [`Inference::fit`].
    ///
    /// # Errors
    /// When not even one image fits.
    pub fn fit(&mut self, device: &Device, in_use: MemoryInUse) -> Result<()> {
        self.inference.fit(device, in_use)
    }

    /// Extracts the features of all images in a pose, in order. Calls `take` for each batch with
    /// the number of its first image and the features (N,C,H,W).
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or `take` fails.
    pub fn each(
        &mut self,
        device: &mut Device,
        sample: &Sample,
        pose: Pose,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let size = self.inference.graph.nodes[0].dims;
        let mut done = 0;
        sample.each_part(|images, chosen| {
            for chosen in chosen.chunks(self.inference.batch(device)) {
                let mut x = patches::cut(images, chosen, size.size());
                pose.apply(&mut x, size);
                let mut values = to_nchw(&self.inference.run_code(device, &x, &[])?, self.dims);
                if !self.sums.is_empty() {
                    values.chunks_exact_mut(self.dims.len()).for_each(|image| self.to_sums(image));
                }
                take(done, &values)?;
                done += chosen.len();
            }
            Ok(())
        })
    }

    /// Turns the means of an image's features into sums.
    fn to_sums(&self, mut image: &mut [f32]) {
        for (count, factor) in &self.sums {
            let (own, rest) = image.split_at_mut(*count);
            own.iter_mut().for_each(|value| *value *= factor);
            image = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_mirrored_pixel_by_pixel() {
        let dims = Dims::new(2, 2, 3);
        let mut images: Vec<f32> = (0..24_u8).map(f32::from).collect();
        let own = images.clone();
        let mirror = Pose { mirrored: true, ..Pose::OWN };
        Pose::OWN.apply(&mut images, dims);
        assert_eq!(images, own);
        mirror.apply(&mut images, dims);
        assert_eq!(images[..12], [4., 5., 2., 3., 0., 1., 10., 11., 8., 9., 6., 7.]);
        assert_eq!(images[12..18], [16., 17., 14., 15., 12., 13.]);
        mirror.apply(&mut images, dims);
        assert_eq!(images, own);
    }

    #[test]
    fn images_are_moved_one_by_one_and_borders_repeated() {
        let dims = Dims::new(1, 2, 3);
        let own: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let moved = |mirrored, shift| {
            let mut images = own.clone();
            Pose { mirrored, shift }.apply(&mut images, dims);
            images
        };
        assert_eq!(moved(false, [0, 1]), [0., 0., 1., 3., 3., 4., 6., 6., 7., 9., 9., 10.]);
        assert_eq!(moved(false, [0, -1]), [1., 2., 2., 4., 5., 5., 7., 8., 8., 10., 11., 11.]);
        assert_eq!(moved(false, [1, 0]), [0., 1., 2., 0., 1., 2., 6., 7., 8., 6., 7., 8.]);
        assert_eq!(moved(false, [-9, 0]), [3., 4., 5., 3., 4., 5., 9., 10., 11., 9., 10., 11.]);
        assert_eq!(moved(true, [0, 1])[..6], [2., 2., 1., 5., 5., 4.]);
    }

    #[test]
    fn poses_are_all_combinations_once() {
        assert_eq!(Pose::all(false, 0), [Pose::OWN]);
        for (mirrored, shift, count) in [(true, 0, 2), (false, 2, 5), (true, 1, 10)] {
            let poses = Pose::all(mirrored, shift);
            assert_eq!((poses.len(), poses[0]), (count, Pose::OWN));
            assert!(poses.iter().enumerate().all(|(i, pose)| !poses[..i].contains(pose)));
        }
    }
}
