//! The codes of images, and k-means clustering.

use rayon::prelude::*;

use crate::data::{Labels, Sample, patches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::linalg::distances::{map_distances, squared_distance};
use crate::rng::Stream;

/// Maximum number of k-means iterations. Clusters initialise a mixture and condition the sparse
/// prior; neither needs converged ones.
const MAX_ITERATIONS: usize = 20;

/// The codes of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// Number of values in a code.
    pub units: usize,
    /// The values of all codes, in memory order.
    pub values: Vec<f32>,
    /// Classes of the images, if they are labelled.
    pub labels: Option<Labels>,
}

impl Codes {
    /// Encodes the images of a sample. `progress` is called with the number of finished images.
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or a code is not finite.
    pub fn of(
        device: &mut Device,
        inference: &mut Inference<'_>,
        sample: &Sample,
        mut progress: impl FnMut(usize),
    ) -> Result<Self> {
        let size = inference.graph.nodes[0].dims;
        let units = inference.graph.nodes[inference.graph.code].dims.len();
        let mut values = Vec::with_capacity(sample.len() * units);
        sample.each_part(|images, chosen| {
            for chosen in chosen.chunks(inference.batch(device)) {
                values.extend(inference.run_code(
                    device,
                    &patches::cut(images, chosen, size.size()),
                    &[],
                )?);
                progress(values.len() / units);
            }
            Ok(())
        })?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::failed(
                "the model's codes are NaN or infinite; train it again with a lower optimizer.lr",
            ));
        }
        Ok(Self { units, values, labels: sample.labels_of_patches() })
    }

    /// Number of codes.
    pub fn len(&self) -> usize {
        self.values.len() / self.units
    }

    /// Whether there are no codes.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Indices of the codes of each class, without empty classes. Unlabelled codes are one group
    /// without a class.
    pub fn by_class(&self) -> Vec<(Option<u32>, Vec<usize>)> {
        let Some(labels) = &self.labels else { return vec![(None, (0..self.len()).collect())] };
        let members = |class: usize| {
            (0..self.len()).filter(|code| labels.of[*code] as usize == class).collect::<Vec<_>>()
        };
        let all = (0..labels.classes.len()).map(|class| (Some(class as u32), members(class)));
        all.filter(|(_, codes)| !codes.is_empty()).collect()
    }

    /// The codes with these indices.
    pub fn rows(&self, numbers: &[usize]) -> Vec<f32> {
        numbers
            .iter()
            .flat_map(|code| &self.values[code * self.units..(code + 1) * self.units])
            .copied()
            .collect()
    }
}

/// A clustering of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Clusters {
    /// The cluster centres, row by row.
    pub centres: Vec<f32>,
    /// The cluster of each row.
    pub of: Vec<u32>,
}

/// Clusters rows of `depth` values by k-means (Lloyd 1982), initialised by k-means++ (Arthur &
/// Vassilvitskii 2007). Returns at most `count` clusters, none of them empty.
pub fn k_means(rows: &[f32], depth: usize, count: usize, stream: &mut Stream) -> Clusters {
    let n = rows.len() / depth;
    let row = |i: usize| &rows[i * depth..(i + 1) * depth];
    let mut centres = row(stream.below(n)).to_vec();
    // Squared distance of each row to its nearest centre.
    let mut distances = vec![f32::INFINITY; n];
    while centres.len() < count.min(n) * depth {
        let last = &centres[centres.len() - depth..];
        distances
            .par_iter_mut()
            .zip(rows.par_chunks_exact(depth))
            .for_each(|(distance, row)| *distance = distance.min(squared_distance(row, last)));
        let total: f64 = distances.iter().map(|distance| f64::from(*distance)).sum();
        let mut left = f64::from(stream.uniform()) * total;
        let chosen = distances.iter().position(|distance| {
            left -= f64::from(*distance);
            left < 0.0
        });
        // Stops when every row equals a centre.
        let Some(chosen) = chosen.filter(|_| total > 0.0) else { break };
        centres.extend_from_slice(row(chosen));
    }
    let mut of = nearest(rows, &centres, depth);
    for _ in 0..MAX_ITERATIONS {
        centres = means(rows, &of, depth);
        let next = nearest(rows, &centres, depth);
        if next == of {
            break;
        }
        of = next;
    }
    // Renumbers the clusters, which removes empty ones.
    let mut numbers = vec![u32::MAX; centres.len() / depth];
    let mut count = 0;
    for cluster in &mut of {
        let number = &mut numbers[*cluster as usize];
        if *number == u32::MAX {
            *number = count;
            count += 1;
        }
        *cluster = *number;
    }
    Clusters { centres: means(rows, &of, depth), of }
}

/// The mean of each cluster; zeros for an empty one.
fn means(rows: &[f32], of: &[u32], depth: usize) -> Vec<f32> {
    let count = of.iter().max().map_or(0, |max| *max as usize + 1);
    let (mut sums, mut counts) = (vec![0.0_f64; count * depth], vec![0.0_f64; count]);
    for (row, cluster) in rows.chunks_exact(depth).zip(of) {
        let cluster = *cluster as usize;
        counts[cluster] += 1.0;
        sums[cluster * depth..]
            .iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums.iter().enumerate().map(|(i, sum)| (sum / counts[i / depth].max(1.0)) as f32).collect()
}

/// Index of the nearest centre of each row.
pub fn nearest(rows: &[f32], centres: &[f32], depth: usize) -> Vec<u32> {
    map_distances(rows, centres, depth, |_, distances| {
        let min = distances.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        min.map_or(0, |(centre, _)| centre as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_means_finds_separate_clouds() {
        let mut stream = Stream::new(3, "test");
        // Five clouds of different sizes on a line.
        let cloud = |i: usize| [0, 0, 0, 1, 1, 2, 2, 2, 3, 4][i % 10];
        let rows: Vec<f32> = (0..1000)
            .flat_map(|i| [10.0 * cloud(i) as f32 + 0.5 * stream.normal(), stream.normal()])
            .collect();
        let found = k_means(&rows, 2, 5, &mut stream);
        assert_eq!(found.centres.len(), 10);
        for i in 0..1000 {
            let same = |j: usize| found.of[i] == found.of[j];
            assert!((0..50).all(|j| same(j) == (cloud(i) == cloud(j))), "{i}");
            let centre = found.centres[2 * found.of[i] as usize];
            assert!((centre - 10.0 * cloud(i) as f32).abs() < 0.3, "{centre}");
        }
        // Not more clusters than different rows.
        let few = k_means(&[1.0, 1.0, 2.0, 2.0, 2.0], 1, 4, &mut stream);
        assert_eq!(few.centres.len(), 2);
        assert_eq!(few.of.iter().filter(|cluster| **cluster == few.of[0]).count(), 2);
    }

    #[test]
    fn classes_without_images_are_left_out() {
        let labels =
            Labels { classes: ["a", "b", "c"].map(String::from).to_vec(), of: vec![2, 0, 2] };
        let codes = Codes { units: 1, values: vec![5.0, 6.0, 7.0], labels: Some(labels) };
        assert_eq!(codes.by_class(), [(Some(0), vec![1]), (Some(2), vec![0, 2])]);
        assert_eq!(codes.rows(&[2, 0]), [7.0, 5.0]);
        assert_eq!(Codes { labels: None, ..codes }.by_class(), [(None, vec![0, 1, 2])]);
    }
}
