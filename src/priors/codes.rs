//! Codes of images, and groups of like ones.

use rayon::prelude::*;

use crate::data::{Labels, Sample, patches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::batches::Inference;
use crate::linalg::distances::{map_distances, squared_distance};
use crate::rng::Stream;

/// Rounds of k-means at most.
const ROUNDS: usize = 20;

/// The codes of images, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// Values of a code.
    pub units: usize,
    /// The values, in memory order.
    pub values: Vec<f32>,
    /// The images' classes, where they have some.
    pub labels: Option<Labels>,
}

impl Codes {
    /// The codes of a sample's images, `told` how many are done.
    ///
    /// # Errors
    /// When an image cannot be read, the device fails, or a code is no number.
    pub fn of(
        device: &mut Device,
        inference: &mut Inference<'_>,
        sample: &Sample,
        mut told: impl FnMut(usize),
    ) -> Result<Self> {
        let size = inference.graph.nodes[0].dims;
        let units = inference.graph.nodes[inference.graph.code].dims.len();
        let mut values = Vec::with_capacity(sample.len() * units);
        sample.each_part(|images, chosen| {
            for chosen in chosen.chunks(inference.batch(device)) {
                values.extend(inference.run_code(
                    device,
                    &patches::cut(images, chosen, size.h, size.w),
                    &[],
                )?);
                told(values.len() / units);
            }
            Ok(())
        })?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::failed(
                "the model gives codes that are no numbers; train it anew with a lower --set optimizer.lr",
            ));
        }
        Ok(Self { units, values, labels: sample.labels_of_patches() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.units
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The numbers of the codes of each class; of all where there are no classes. A class without
    /// an image is left out.
    pub fn by_class(&self) -> Vec<(Option<u32>, Vec<usize>)> {
        let Some(labels) = &self.labels else { return vec![(None, (0..self.len()).collect())] };
        let of = |class: usize| {
            (0..self.len()).filter(|code| labels.of[*code] as usize == class).collect::<Vec<_>>()
        };
        let all = (0..labels.classes.len()).map(|class| (Some(class as u32), of(class)));
        all.filter(|(_, codes)| !codes.is_empty()).collect()
    }

    /// Some of the codes, by their numbers.
    pub fn rows(&self, numbers: &[usize]) -> Vec<f32> {
        numbers
            .iter()
            .flat_map(|code| &self.values[code * self.units..(code + 1) * self.units])
            .copied()
            .collect()
    }
}

/// Means of rows that are alike, and which each is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// The means, one after the other.
    pub centres: Vec<f32>,
    /// The group of each row.
    pub of: Vec<u32>,
}

/// Groups of rows by k-means (Lloyd 1982), which begins with rows far apart (Arthur &
/// Vassilvitskii, "k-means++", 2007); `count` at most, none is empty.
pub fn groups(rows: &[f32], depth: usize, count: usize, stream: &mut Stream) -> Groups {
    let n = rows.len() / depth;
    let row = |i: usize| &rows[i * depth..(i + 1) * depth];
    let mut centres = row(stream.below(n)).to_vec();
    let mut far = vec![f32::INFINITY; n];
    while centres.len() < count.min(n) * depth {
        let last = &centres[centres.len() - depth..];
        far.par_iter_mut()
            .zip(rows.par_chunks_exact(depth))
            .for_each(|(far, row)| *far = far.min(squared_distance(row, last)));
        let total: f64 = far.iter().map(|far| f64::from(*far)).sum();
        let mut left = f64::from(stream.uniform()) * total;
        let chosen = far.iter().position(|far| {
            left -= f64::from(*far);
            left < 0.0
        });
        // where all rows are some centre already, there are no more groups
        let Some(chosen) = chosen.filter(|_| total > 0.0) else { break };
        centres.extend_from_slice(row(chosen));
    }
    let mut of = nearest(rows, &centres, depth);
    for _ in 0..ROUNDS {
        centres = means(rows, &of, depth);
        let next = nearest(rows, &centres, depth);
        if next == of {
            break;
        }
        of = next;
    }
    // groups that lost all their rows are no more
    let mut number = vec![u32::MAX; centres.len() / depth];
    let mut count = 0;
    for group in &mut of {
        let number = &mut number[*group as usize];
        if *number == u32::MAX {
            *number = count;
            count += 1;
        }
        *group = *number;
    }
    Groups { centres: means(rows, &of, depth), of }
}

/// The mean of each group; zeros for one without rows.
fn means(rows: &[f32], of: &[u32], depth: usize) -> Vec<f32> {
    let count = of.iter().max().map_or(0, |most| *most as usize + 1);
    let (mut sums, mut counts) = (vec![0.0_f64; count * depth], vec![0.0_f64; count]);
    for (row, group) in rows.chunks_exact(depth).zip(of) {
        let group = *group as usize;
        counts[group] += 1.0;
        sums[group * depth..]
            .iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums.iter().enumerate().map(|(i, sum)| (sum / counts[i / depth].max(1.0)) as f32).collect()
}

/// The centre nearest to each row.
pub fn nearest(rows: &[f32], centres: &[f32], depth: usize) -> Vec<u32> {
    map_distances(rows, centres, depth, |_, distances| {
        let least = distances.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        least.map_or(0, |(centre, _)| centre as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_rows_are_grouped() {
        let mut stream = Stream::new(3, "test");
        // five clouds on a line, of different sizes
        let cloud = |i: usize| [0, 0, 0, 1, 1, 2, 2, 2, 3, 4][i % 10];
        let rows: Vec<f32> = (0..1000)
            .flat_map(|i| [10.0 * cloud(i) as f32 + 0.5 * stream.normal(), stream.normal()])
            .collect();
        let found = groups(&rows, 2, 5, &mut stream);
        assert_eq!(found.centres.len(), 10);
        for i in 0..1000 {
            let same = |j: usize| found.of[i] == found.of[j];
            assert!((0..50).all(|j| same(j) == (cloud(i) == cloud(j))), "{i}");
            let centre = found.centres[2 * found.of[i] as usize];
            assert!((centre - 10.0 * cloud(i) as f32).abs() < 0.3, "{centre}");
        }
        // no more groups than different rows
        let few = groups(&[1.0, 1.0, 2.0, 2.0, 2.0], 1, 4, &mut stream);
        assert_eq!(few.centres.len(), 2);
        assert_eq!(few.of.iter().filter(|group| **group == few.of[0]).count(), 2);
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
