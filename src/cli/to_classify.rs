//! The images that `csae classify` classifies.

use super::Common;
use super::image_names::{ImagePath, distinct_names};
use super::shard::Work;
use super::targets::open_each;
use crate::budget::Budget;
use crate::data::{Listing, LoadOptions, Sample, WholeSize};
use crate::error::Result;

/// The images to classify.
pub struct Images {
    /// The images of each source.
    pub samples: Vec<Sample>,
    /// The name of each image of each sample.
    pub names: Vec<Vec<String>>,
    /// The names of the images of all processes.
    pub all: Vec<String>,
}

/// Opens the images of this process.
///
/// # Errors
/// If a source cannot be opened, or images of one have other channels than the model.
pub fn open(
    (common, sources): (&Common, &[String]),
    work: Work,
    whole: WholeSize,
    want: &LoadOptions,
    budget: Budget,
) -> Result<Images> {
    if work.is_shard() {
        return open_part((common, sources), work, whole, want, budget);
    }
    let samples = open_each(common, sources, want.strict, |source| {
        Sample::open_whole(source, whole, want, budget)
    })?;
    let own = |sample: &Sample| (0..sample.len()).map(|image| sample.name(image)).collect();
    let listed = samples.iter().map(|(source, sample)| (*source, own(sample))).collect();
    let names = names(sources, listed);
    let samples = samples.into_iter().map(|(_, sample)| sample).collect();
    Ok(Images { samples, all: names.concat(), names })
}

/// Opens the images of a part. Names are chosen among all images.
fn open_part(
    (common, sources): (&Common, &[String]),
    work: Work,
    whole: WholeSize,
    want: &LoadOptions,
    budget: Budget,
) -> Result<Images> {
    let wanted = LoadOptions { channels: whole.channels(), ..*want };
    let listings = open_each(common, sources, want.strict, |source| {
        Listing::of(source, &wanted, budget.data)
    })?;
    let own = |listing: &Listing| (0..listing.len()).map(|image| listing.name(image)).collect();
    let listed = listings.iter().map(|(source, listing)| (*source, own(listing))).collect();
    let all = names(sources, listed);
    let count = all.iter().map(Vec::len).sum();
    work.report(common, count, 0);
    let range = work.range(count);
    let (mut opened, mut before) = (Images { samples: vec![], names: vec![], all: vec![] }, 0);
    for ((source, listing), all) in listings.into_iter().zip(&all) {
        let is_own = |place: &usize| range.contains(&(before + place));
        let places: Vec<usize> = (0..all.len()).filter(is_own).collect();
        before += all.len();
        if places.is_empty() {
            continue;
        }
        let source = &sources[source];
        let sample = Sample::open_part(source, listing, &places, whole, want, budget)?;
        opened.names.push(sample.places.iter().map(|place| all[*place].clone()).collect());
        opened.samples.push(sample);
    }
    opened.all = all.concat();
    Ok(opened)
}

/// The names of the images of each source. If sources have images of the same name, it starts with
/// the folders that distinguish them. `listed` are the names in the sources.
fn names(sources: &[String], listed: Vec<(usize, Vec<String>)>) -> Vec<Vec<String>> {
    let path = |(source, all): &(usize, Vec<String>)| {
        all.iter().map(|name| ImagePath::new(&sources[*source], name)).collect::<Vec<_>>()
    };
    let paths: Vec<ImagePath> = listed.iter().flat_map(path).collect();
    let paths: Vec<&ImagePath> = paths.iter().collect();
    let mut distinct = paths.iter().zip(distinct_names(&paths));
    let mut all: Vec<Vec<String>> = listed.into_iter().map(|(_, names)| names).collect();
    for own in all.iter_mut().flatten() {
        if let Some((path, name)) = distinct.next()
            && path.is_extended(&name)
        {
            *own = name.text;
        }
    }
    all
}
