//! The views of an image and the heat map that they form.

use super::Image;
use super::bank::{Bank, Banks};
use super::field::{Describer, DescriptorGrid};
use super::filters;
use super::smooth::blur;
use super::statistics::{BANDS, BandStatistics, standardise};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::{Inference, MemoryInUse};
use crate::model::{Graph, LoadedModel, Purpose, Store, tile_geometry};
use crate::shape::{Dims, Size};

/// Names of the views, in storage order. A detector without a network has only the first one.
pub const VIEWS: [&str; 3] = ["filters", "network", "features"];
/// Share of the pixels whose mean is the score. A single pixel is noise, and small defects cover
/// few pixels. Image AUROC of magnetic tiles was 0.79 with 0.1 %, 0.77 with 0.3 % and 0.74 with 1 %
/// (`benches/results/2026-11-30-anomaly.md`).
const TOP: f64 = 0.001;
/// The heat map is smoothed by Gaussians with a standard deviation of this share of the image's
/// shorter side, and of twice as much. Unsmoothed it shows the edges of a large defect, but not its
/// inside; pixel AUROC of textures was then 0.944 in place of 0.948
/// (`benches/results/2026-12-01-anomaly.md`).
const SMOOTHING: f64 = 1.0 / 40.0;
/// Maximum of that standard deviation in pixels: work grows with it.
const MAX_SMOOTHING: f64 = 16.0;
/// Maximum side of a tile. Larger tiles need more memory; smaller ones compute more overlap.
const MAX_TILE: usize = 256;

/// The size of the tiles that suit images of these sizes.
///
/// # Errors
/// If the network cannot be tiled.
pub fn tile_of(graph: &Graph, sizes: impl Iterator<Item = Size>) -> Result<Size> {
    let align = tile_geometry(graph)?.align.max(1);
    let max = sizes.fold(Size::new(1, 1), Size::at_least);
    Ok(max.map(|side| side.min(MAX_TILE).next_multiple_of(align)))
}

/// The network for tiles of one size.
///
/// # Errors
/// If its layers do not fit that size.
pub fn tiled(graph: &Graph, tile: Size) -> Result<Graph> {
    Graph::new(&graph.spec, Dims::of(tile, graph.nodes[0].dims.c))
}

/// The views and the heat map of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Views {
    /// Each view in standard deviations of normal pixels, in the order of [`VIEWS`].
    pub maps: Vec<Vec<f32>>,
    /// The heat map: the mean of the views, smoothed by a narrow and by a wide Gaussian. It is the
    /// mean of both results.
    pub heat: Vec<f32>,
    /// The image's score: [`score`] of the mean of the views.
    pub score: f32,
}

impl Views {
    /// Forms the heat map of an image of `size` from its raw views.
    pub fn new(
        mut maps: Vec<Vec<f32>>,
        size: Size,
        statistics: &[[BandStatistics; BANDS]],
    ) -> Self {
        for (map, statistics) in maps.iter_mut().zip(statistics) {
            standardise(map, size, statistics);
        }
        let mut mean = vec![0.0_f32; size.area()];
        for map in &maps {
            mean.iter_mut().zip(map).for_each(|(mean, value)| *mean += value / maps.len() as f32);
        }
        let sigma = (SMOOTHING * size.h.min(size.w) as f64).min(MAX_SMOOTHING);
        let (narrow, wide) = (blur(&mean, size, sigma), blur(&mean, size, 2.0 * sigma));
        let heat = narrow.iter().zip(wide).map(|(a, b)| 0.5 * (a + b)).collect();
        let score = score(&mean);
        Self { maps, heat, score }
    }
}

/// The score of a map: the mean of the largest 0.1 % of its values, above their median. Grain or
/// light that changes all pixels alike changes the median, too.
pub fn score(map: &[f32]) -> f32 {
    let mut sorted = map.to_vec();
    let top = ((TOP * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
    let from = sorted.len() - top;
    let (below, next, above) = sorted.select_nth_unstable_by(from, f32::total_cmp);
    let mean = (*next + above.iter().sum::<f32>()) / top as f32;
    let middle = below.len() / 2;
    let median = if below.is_empty() {
        mean
    } else {
        *below.select_nth_unstable_by(middle, f32::total_cmp).1
    };
    mean - median
}

/// Computes the views of images.
#[derive(Debug)]
pub struct ViewExtractor<'a> {
    /// The network on images of any size, if the detector has one.
    pub(super) describer: Option<Describer<'a>>,
}

impl<'a> ViewExtractor<'a> {
    /// The views that need no network. `data` is the number of bytes that images occupy.
    ///
    /// # Errors
    /// If memory is too small.
    pub fn without_network(device: &Device, data: u64) -> Result<Self> {
        if let Some(budget) = device.budget_with(data).filter(|budget| data > *budget) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            return Err(Error::usage(format!(
                "the images and their maps need {:.2} MiB, more than the {:.2} MiB allowed; {}, or \
                 use fewer or smaller images",
                mib(data),
                mib(budget),
                device.memory_advice()
            )));
        }
        Ok(Self { describer: None })
    }

    /// Loads a detector's network for the tiles of `graph`. `data` is the number of bytes that
    /// images occupy.
    ///
    /// # Errors
    /// If memory is too small or the device fails.
    pub fn open(
        device: &mut Device,
        loaded: &LoadedModel,
        graph: &'a Graph,
        data: u64,
    ) -> Result<Self> {
        let store = loaded.place(device, graph, Purpose::Infer)?;
        Self::new(device, graph, &store, data)
    }

    /// The same for a network whose values are on the device.
    ///
    /// # Errors
    /// If memory is too small.
    pub fn new(device: &Device, graph: &'a Graph, store: &Store, data: u64) -> Result<Self> {
        let mut inference = Inference::new(graph, store);
        inference.fit(device, MemoryInUse { parameters: store.bytes(), data })?;
        Ok(Self { describer: Some(Describer::new(inference)) })
    }

    /// The views as they are, before statistics of normal pixels.
    pub(super) fn raw_views(
        &mut self,
        device: &mut Device,
        image: &Image,
        banks: &Banks,
    ) -> Result<Vec<Vec<f32>>> {
        let size = image.dims.size();
        let map = |bank: &Bank, grid: DescriptorGrid| {
            grid.interpolate(&bank.distances(&grid.values), size)
        };
        let filtered = filters::describe(&image.pixels, image.dims);
        let mut maps = vec![map(&banks.filters, filtered)];
        if let (Some(describer), Some(bank)) = (&mut self.describer, &banks.features) {
            let found = describer.describe(device, &image.pixels, size)?;
            maps.extend([found.odds, map(bank, found.grid)]);
        }
        Ok(maps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_defects_and_not_the_level_decide_the_score() {
        let mut map = vec![1.0; 10_000];
        assert!(score(&map).abs() < 1e-6);
        map[500..510].fill(4.0);
        assert!((score(&map) - 3.0).abs() < 1e-5, "{}", score(&map));
        map.iter_mut().for_each(|value| *value += 7.0);
        assert!((score(&map) - 3.0).abs() < 1e-5);
        assert_eq!(score(&[2.0]), 0.0);
    }
}
