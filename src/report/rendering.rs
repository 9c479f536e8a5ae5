//! How samples of any type and number of channels become the colours of a picture.
//!
//! Gray and RGB images are shown as they are. Of other images, chosen channels become colours; by
//! default one channel is shown with a colour map and a colour bar, and of two or of more than
//! three channels the first three principal components are red, green and blue. Signals are line
//! plots.

use nalgebra::DMatrix;

use super::chart::number;
use super::colour_bar::with_bar;
use super::colour_map::ColourMap;
use super::picture::{self, Picture, TileGrid};
use super::signals::{self, LINES};
use super::titled::{below_title, titled};
use crate::data::Normalization;
use crate::error::{Error, Result};
use crate::model::ModelSpec;
use crate::sample_type::SampleType;
use crate::shape::Dims;

/// Maximum number of channels that have a colour in a picture.
const COLOURS: usize = 3;
/// Maximum number of values that principal components are computed from. Their time grows with the
/// channels; these take less than 0.1 s.
const VALUES: usize = 1 << 16;
/// Minimum number of pixels that principal components are computed from, with many channels.
const MIN_PIXELS: usize = 256;
/// Shares of the pixels that are darker and lighter than the range of a principal component, so
/// that a few extreme pixels do not make all others gray.
const EXTREMES: f64 = 0.01;

/// Small pictures are enlarged up to about this width in pixels: colours of single pixels are hard
/// to see, and the title needs it.
const MIN_WIDTH: usize = 320;

/// What samples are.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Size of a sample. Signals have one row.
    pub dims: Dims,
    /// The type in which they are stored.
    pub sample: SampleType,
    /// The normalization of the model that reads them.
    pub normalization: Option<&'a Normalization>,
}

impl<'a> Source<'a> {
    /// The samples that a model reads, of a type if it is known.
    pub fn of(model: &'a ModelSpec, dims: Dims, sample: Option<SampleType>) -> Self {
        let normalization = model.normalization.as_ref();
        let named = || {
            let all = [SampleType::U8, SampleType::U16, SampleType::F16, SampleType::F32];
            let samples = &normalization?.samples;
            all.into_iter().find(|sample| sample.name() == samples)
        };
        let sample = sample.or_else(named).unwrap_or_default();
        Self { dims, sample, normalization }
    }

    /// Whether the colours are principal components, which depend on the samples.
    pub fn has_components(&self, chosen: &[usize]) -> bool {
        let plain = [1, 3].contains(&self.dims.c) || is_signal(self.dims);
        chosen.is_empty() && !plain
    }

    /// The smallest and the largest value of a channel, in the units of the data.
    fn range(&self, channel: usize) -> [f32; 2] {
        match self.normalization {
            Some(normalization) => [normalization.min[channel], normalization.max[channel]],
            None if self.sample.is_integer() => [0.0, self.sample.full_scale()],
            None => [0.0, 1.0],
        }
    }
}

/// The colours of one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The channel.
    channel: usize,
    map: ColourMap,
    /// The values at 0 and 1 of the samples, in the units of the data.
    range: [f32; 2],
    /// The values at both ends of the map, in the units of the data.
    ends: [f32; 2],
}

impl Mapping {
    fn new(source: &Source, channel: usize) -> Self {
        let range = source.range(channel);
        let [low, high] = range;
        let (map, ends) = if source.sample.is_integer() {
            (ColourMap::Gray, range)
        } else if low < 0.0 && high > 0.0 {
            let far = high.max(-low);
            (ColourMap::Diverging, [-far, far])
        } else {
            (ColourMap::Viridis, range)
        };
        Self { channel, map, range, ends }
    }

    /// The colour of a value of the samples, from 0 to 1.
    fn colour(&self, value: f32) -> [f32; 3] {
        let ([low, high], [first, last]) = (self.range, self.ends);
        let value = low + value * (high - low);
        let width = if last > first { last - first } else { 1.0 };
        self.map.colour((value - first) / width)
    }

    /// The map, and the values at its ends.
    pub(super) const fn bar(&self) -> (ColourMap, [f32; 2]) {
        (self.map, self.ends)
    }
}

/// A principal component of the channels.
#[derive(Clone, Debug, PartialEq)]
struct Component {
    /// The weight of each channel.
    axis: Vec<f32>,
    /// The values that become 0 and 1.
    range: [f32; 2],
    /// Its share of the variance.
    share: f64,
}

impl Component {
    fn value(&self, pixel: &[f32]) -> f32 {
        pixel.iter().zip(&self.axis).map(|(value, weight)| value * weight).sum()
    }

    fn width(&self) -> f32 {
        let width = self.range[1] - self.range[0];
        if width > 0.0 { width } else { 1.0 }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Colours {
    /// Gray or RGB.
    AsTheyAre,
    /// One channel with a colour map.
    Map(Mapping),
    /// Two channels as magenta and green, or three as red, green and blue.
    Channels(Vec<usize>),
    /// Principal components as red, green and blue. Missing ones are middle gray.
    Components(Vec<Component>),
    /// Channels of signals as lines.
    Lines(Vec<usize>),
}

/// How samples become colours.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    channels: usize,
    colours: Colours,
}

/// Whether samples of this size are signals.
pub const fn is_signal(dims: Dims) -> bool {
    dims.h == 1 && dims.w > 1
}

/// Checks the channels to show: that they exist, and that there are colours for all.
///
/// # Errors
/// If they are not channels of `dims`, one is named twice, or they are too many for images.
pub fn check_channels(chosen: &[usize], dims: Dims) -> Result<()> {
    let c = dims.c;
    if let Some(channel) = chosen.iter().find(|channel| **channel >= c) {
        return Err(Error::usage(format!(
            "channel {channel} does not exist; the samples have {c} {}, numbered from 0",
            if c == 1 { "channel" } else { "channels" }
        )));
    }
    let twice = chosen.iter().enumerate().find(|(at, channel)| chosen[..*at].contains(channel));
    if let Some((_, channel)) = twice {
        return Err(Error::usage(format!("channel {channel} is named twice; name it once")));
    }
    let (most, what) = if is_signal(dims) { (LINES, "signals") } else { (COLOURS, "images") };
    if chosen.len() > most {
        return Err(Error::usage(format!(
            "pictures of {what} show at most {most} channels; choose fewer"
        )));
    }
    Ok(())
}

impl Rendering {
    /// Chooses the colours. `samples` are those that a picture shows (…,C), scaled so that the
    /// range of each channel is 0…1. `chosen` are the channels to show; none for the default.
    pub fn fit<'a>(
        source: &Source,
        chosen: &[usize],
        samples: impl IntoIterator<Item = &'a [f32]>,
    ) -> Self {
        let c = source.dims.c;
        let is_plain = source.sample.is_integer() && source.normalization.is_none();
        let colours = match *chosen {
            _ if is_signal(source.dims) => Colours::Lines(signals::shown(c, chosen)),
            [channel] if c > 1 || !is_plain => Colours::Map(Mapping::new(source, channel)),
            [_, _, ..] => Colours::Channels(chosen.iter().copied().take(COLOURS).collect()),
            _ if c == 3 || c == 1 && is_plain => Colours::AsTheyAre,
            _ if c == 1 => Colours::Map(Mapping::new(source, 0)),
            _ => Colours::Components(components(samples, c)),
        };
        Self { channels: c, colours }
    }

    /// The channels of signals that are lines. `None` for images.
    pub fn lines(&self) -> Option<&[usize]> {
        match &self.colours {
            Colours::Lines(shown) => Some(shown),
            Colours::AsTheyAre
            | Colours::Map(_)
            | Colours::Channels(_)
            | Colours::Components(_) => None,
        }
    }

    /// Whether gray and RGB images are shown as they are.
    pub const fn is_plain(&self) -> bool {
        matches!(self.colours, Colours::AsTheyAre)
    }

    /// Whether channels were chosen for images.
    pub const fn is_chosen(&self) -> bool {
        matches!(self.colours, Colours::Channels(_))
    }

    /// Size of the tile of a sample of a size, with 1 or 3 channels.
    pub fn dims(&self, sample: Dims) -> Dims {
        match self.colours {
            Colours::AsTheyAre => sample,
            Colours::Map(_) | Colours::Channels(_) | Colours::Components(_) => {
                Dims { c: 3, ..sample }
            }
            Colours::Lines(_) => Dims::of(signals::TILE, 3),
        }
    }

    /// The tile of a sample (…,C) whose channels have the range 0…1, on the 0–1 scale.
    ///
    /// # Panics
    /// If the number of values is not a multiple of the channels.
    pub fn tile(&self, samples: &[f32]) -> Vec<f32> {
        let pixels = self.pixels(samples);
        match &self.colours {
            Colours::AsTheyAre => samples.to_vec(),
            Colours::Map(map) => pixels.flat_map(|pixel| map.colour(pixel[map.channel])).collect(),
            Colours::Channels(chosen) => pixels.flat_map(|pixel| colour(chosen, pixel)).collect(),
            Colours::Components(all) => {
                let value = |component: &Component, pixel: &[f32]| {
                    (component.value(pixel) - component.range[0]) / component.width()
                };
                pixels.flat_map(|pixel| of_components(all, 0.5, |one| value(one, pixel))).collect()
            }
            Colours::Lines(shown) => signals::tile(samples, self.channels, shown, None),
        }
    }

    /// Tiles of changes to samples (…,C), such as atoms, each scaled on its own: 0 is middle gray,
    /// or the gray line of signals.
    ///
    /// # Panics
    /// If the number of values is not a multiple of the channels.
    pub fn changes(&self, changes: &[Vec<f32>], dims: Dims) -> TileGrid {
        let tile = |change: &Vec<f32>| {
            let pixels = self.pixels(change);
            let values: Vec<f32> = match &self.colours {
                Colours::AsTheyAre => change.clone(),
                Colours::Map(map) => pixels.map(|pixel| pixel[map.channel]).collect(),
                Colours::Channels(of) => pixels.flat_map(|pixel| colour(of, pixel)).collect(),
                Colours::Components(all) => {
                    let value = |one: &Component, pixel: &[f32]| one.value(pixel) / one.width();
                    let colour = |pixel: &[f32]| of_components(all, 0.0, |one| value(one, pixel));
                    pixels.flat_map(colour).collect()
                }
                Colours::Lines(shown) => {
                    return signals::tile(change, self.channels, shown, Some(0.0));
                }
            };
            picture::centred(&values)
        };
        let (dims, columns) = match self.colours {
            Colours::AsTheyAre | Colours::Channels(_) | Colours::Components(_) => {
                let dims = self.dims(dims);
                (dims, picture::columns_for(changes.len(), dims.size()))
            }
            Colours::Map(_) => {
                (Dims { c: 1, ..dims }, picture::columns_for(changes.len(), dims.size()))
            }
            Colours::Lines(_) => (self.dims(dims), signals::COLUMNS),
        };
        TileGrid { dims, columns, tiles: changes.iter().map(tile).collect() }
    }

    fn pixels<'a>(&self, samples: &'a [f32]) -> std::slice::ChunksExact<'a, f32> {
        assert!(
            samples.len().is_multiple_of(self.channels),
            "pixels of {} channels",
            self.channels
        );
        samples.chunks_exact(self.channels)
    }

    /// What the colours are, as a sentence after a title. Empty for gray and RGB images.
    pub fn note(&self) -> String {
        let c = self.channels;
        match &self.colours {
            Colours::AsTheyAre => String::new(),
            Colours::Map(_) if c == 1 => String::new(),
            Colours::Map(map) => format!("Channel {} of {c}.", map.channel),
            Colours::Channels(chosen) => {
                let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
                let colours =
                    if chosen.len() == 2 { "Magenta and green" } else { "Red, green and blue" };
                format!("{colours}: channels {} of {c}.", names.join(", "))
            }
            Colours::Lines(shown) => signals::note(shown, c),
            Colours::Components(all) => {
                let shares: Vec<String> = all
                    .iter()
                    .map(|one| number((1000.0 * one.share).round() / 10.0, 0.1))
                    .collect();
                let (colours, count) = match all.len() {
                    1 => ("Red", "first principal component"),
                    2 => ("Red and green", "two principal components"),
                    _ => ("Red, green and blue", "first three principal components"),
                };
                format!(
                    "{colours}: the {count} of {c} channels, with {} % of the variance.",
                    shares.join(", ")
                )
            }
        }
    }

    /// A picture of such tiles with a title, what the colours are, and a colour bar with the values
    /// in the units of the data if they are of one channel. Nothing is added to gray and RGB images
    /// without a title. The title wraps; a narrow picture becomes wider.
    pub fn titled(&self, picture: Picture, title: &str) -> Picture {
        self.below(picture, title, titled)
    }

    /// As [`Rendering::titled`], but gray and RGB pictures keep their width.
    pub fn below_title(&self, picture: Picture, title: &str) -> Picture {
        self.below(picture, title, if self.is_plain() { below_title } else { titled })
    }

    fn below(
        &self,
        picture: Picture,
        title: &str,
        add: impl Fn(Picture, &str) -> Picture,
    ) -> Picture {
        let picture = match &self.colours {
            Colours::Map(map) => with_bar(picture.enlarged(MIN_WIDTH), map),
            Colours::Channels(_) | Colours::Components(_) => picture.enlarged(MIN_WIDTH),
            Colours::AsTheyAre | Colours::Lines(_) => picture,
        };
        let text = [title, &self.note()].join(" ");
        if text.trim().is_empty() { picture } else { add(picture, text.trim()) }
    }
}

/// The colour of chosen channels of a pixel.
fn colour(chosen: &[usize], pixel: &[f32]) -> [f32; 3] {
    match *chosen {
        // Magenta and green can be distinguished with colour vision deficiency.
        [a, b] => [pixel[a], pixel[b], pixel[a]],
        _ => std::array::from_fn(|i| pixel[chosen[i]]),
    }
}

fn of_components(all: &[Component], missing: f32, value: impl Fn(&Component) -> f32) -> [f32; 3] {
    std::array::from_fn(|i| all.get(i).map_or(missing, &value))
}

/// The first principal components of pixels, at most three, with the range of their values. The
/// largest weight of each is positive.
fn components<'a>(samples: impl IntoIterator<Item = &'a [f32]>, c: usize) -> Vec<Component> {
    let samples: Vec<&[f32]> = samples.into_iter().collect();
    let count = samples.iter().map(|sample| sample.len() / c).sum::<usize>();
    let step = count.div_ceil((VALUES / c).max(MIN_PIXELS)).max(1);
    let pixels = samples.iter().flat_map(|sample| sample.chunks_exact(c)).step_by(step);
    let finite = |value: &f32| f64::from(if value.is_finite() { *value } else { 0.0 });
    let values: Vec<f64> = pixels.flat_map(|pixel| pixel.iter().map(finite)).collect();
    let n = values.len() / c;
    if n == 0 {
        return Vec::new();
    }
    let mut matrix = DMatrix::from_row_slice(n, c, &values);
    for mut column in matrix.column_iter_mut() {
        let mean = column.mean();
        column.add_scalar_mut(-mean);
    }
    let total = matrix.norm_squared();
    let found = matrix.svd(false, true);
    let Some(axes) = found.v_t else { return Vec::new() };
    let strengths = found.singular_values.iter().zip(axes.row_iter()).take(COLOURS);
    strengths
        .map(|(strength, axis)| {
            let largest =
                axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            let axis: Vec<f32> =
                axis.iter().map(|weight| (weight * largest.signum()) as f32).collect();
            let share = if total > 0.0 { strength * strength / total } else { 0.0 };
            let mut component = Component { axis, range: [0.0, 1.0], share };
            let mut along: Vec<f32> = values
                .chunks_exact(c)
                .map(|pixel| {
                    let pixel: Vec<f32> = pixel.iter().map(|value| *value as f32).collect();
                    component.value(&pixel)
                })
                .collect();
            along.sort_by(f32::total_cmp);
            let rank = |share: f64| along[(share * (n - 1) as f64).round() as usize];
            component.range = [rank(EXTREMES), rank(1.0 - EXTREMES)];
            component
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(channels: usize, sample: SampleType) -> Source<'static> {
        Source { dims: Dims::new(channels, 4, 4), sample, normalization: None }
    }

    fn normalization(min: &[f32], max: &[f32]) -> Normalization {
        Normalization {
            samples: "32-bit float".to_owned(),
            offset: vec![0.0; min.len()],
            divisor: vec![1.0; min.len()],
            min: min.to_vec(),
            max: max.to_vec(),
        }
    }

    /// Pixels of four channels that lie along two directions: a strong and a weak one.
    fn plane() -> Vec<f32> {
        let at = |i: usize| {
            let [a, b] = [(i % 17) as f32 / 16.0, (i % 5) as f32 / 4.0];
            [0.8 * a, 0.6 * a, 0.5, 0.1 * b]
        };
        (0..17 * 5 * 4).flat_map(at).collect()
    }

    #[test]
    fn gray_and_rgb_images_are_shown_as_they_are() {
        for c in [1, 3] {
            let rendering = Rendering::fit(&source(c, SampleType::U8), &[], []);
            let pixels = vec![0.25; 6 * c];
            let dims = Dims::new(c, 2, 3);
            assert_eq!((rendering.tile(&pixels), rendering.dims(dims)), (pixels, dims));
            assert_eq!(rendering.note(), "");
        }
    }

    #[test]
    fn principal_components_are_those_of_the_pixels() {
        let pixels = plane();
        let rendering = Rendering::fit(&source(4, SampleType::F32), &[], [&pixels[..]]);
        let Colours::Components(all) = &rendering.colours else { panic!("{rendering:?}") };
        for (found, wanted) in all[0].axis.iter().zip([0.8, 0.6, 0.0, 0.0]) {
            assert!((found - wanted).abs() < 1e-5, "{all:?}");
        }
        assert!((all[1].axis[3].abs() - 1.0).abs() < 1e-5, "{all:?}");
        assert!(all[2].share < 1e-9 && (all[0].share + all[1].share - 1.0).abs() < 1e-6);
        let note = rendering.note();
        assert!(note.contains("first three principal components of 4 channels"), "{note}");
        // The first component is red, from 0 to 1; a change along it is red alone.
        let tile = rendering.tile(&pixels);
        assert!(tile[0].abs() < 1e-5 && (tile[16 * 3] - 1.0).abs() < 1e-5, "{:?}", &tile[..51]);
        let dims = Dims::new(4, 1, 1);
        let change = &rendering.changes(&[vec![0.8, 0.6, 0.0, 0.0]], dims).tiles[0];
        assert!((change[0] - 1.0).abs() < 1e-5 && (change[1] - 0.5).abs() < 1e-5, "{change:?}");
        // The same samples give the same colours, others do not.
        let again = Rendering::fit(&source(4, SampleType::F32), &[], [&pixels[..]]);
        assert_eq!(rendering, again);
        let part = Rendering::fit(&source(4, SampleType::F32), &[], [&pixels[..40]]);
        assert_ne!(rendering, part);
    }

    #[test]
    fn components_of_odd_samples_are_found() {
        for (c, pixels) in [(2, 1), (5, 2), (700, 3), (4, 0)] {
            let samples = vec![0.5; c * pixels];
            let rendering = Rendering::fit(&source(c, SampleType::U8), &[], [&samples[..]]);
            let tile = rendering.tile(&samples);
            assert_eq!(tile.len(), 3 * pixels);
            assert!(tile.iter().all(|value| value.is_finite()));
        }
        let bad = [f32::NAN, 1.0, f32::INFINITY, 2.0];
        let rendering = Rendering::fit(&source(2, SampleType::F32), &[], [&bad[..]]);
        assert_eq!(rendering.tile(&bad[..2]).len(), 3);
        assert!(rendering.note().contains("two principal components"), "{}", rendering.note());
    }

    #[test]
    fn chosen_channels_are_shown() {
        let pixel = [0.1, 0.2, 0.3, 0.4];
        let shown = |chosen: &[usize]| {
            let rendering = Rendering::fit(&source(4, SampleType::U8), chosen, [&pixel[..]]);
            (rendering.tile(&pixel), rendering.note())
        };
        assert_eq!(shown(&[3, 0, 2]).0, [0.4, 0.1, 0.3]);
        assert_eq!(shown(&[3, 0, 2]).1, "Red, green and blue: channels 3, 0, 2 of 4.");
        assert_eq!(shown(&[1, 3]).0, [0.2, 0.4, 0.2]);
        assert_eq!(shown(&[2]).0, [0.3; 3]);
        assert_eq!(shown(&[2]).1, "Channel 2 of 4.");
        let dims = Dims::new(4, 8, 8);
        assert!(check_channels(&[0, 3], dims).is_ok());
        let message = check_channels(&[4], dims).unwrap_err().to_string();
        assert!(message.contains("channel 4 does not exist"), "{message}");
        let message = check_channels(&[1, 1], dims).unwrap_err().to_string();
        assert!(message.contains("twice"), "{message}");
        let message = check_channels(&[0, 1, 2, 3], dims).unwrap_err().to_string();
        assert!(message.contains("at most 3 channels"), "{message}");
        assert!(check_channels(&[0, 1, 2, 3], Dims::new(4, 1, 8)).is_ok());
    }

    #[test]
    fn one_channel_of_floats_has_a_map_that_fits_its_range() {
        let fit = |min: f32, max: f32| {
            let normalization = normalization(&[min], &[max]);
            let normalization = Some(&normalization);
            let source =
                Source { sample: SampleType::F32, normalization, ..source(1, SampleType::U8) };
            Rendering::fit(&source, &[], [])
        };
        let map = |rendering: &Rendering| match &rendering.colours {
            Colours::Map(map) => map.clone(),
            other => panic!("{other:?}"),
        };
        let positive = fit(300.0, 310.0);
        assert_eq!(map(&positive).bar(), (ColourMap::Viridis, [300.0, 310.0]));
        let signed = fit(-1.0, 3.0);
        assert_eq!(map(&signed).bar(), (ColourMap::Diverging, [-3.0, 3.0]));
        // 0 of the data is a quarter of the range, and white.
        let white = ColourMap::Diverging.colour(0.5);
        assert_eq!(signed.tile(&[0.25]), white);
        assert_ne!(signed.tile(&[0.5]), white);
        let constant = fit(2.0, 2.0);
        assert!(constant.tile(&[0.0]).iter().all(|value| value.is_finite()));
        // Changes have no colour map: they are gray, and no change is middle gray.
        let changes = signed.changes(&[vec![0.0, 2.0, -1.0]], Dims::new(1, 1, 3));
        assert_eq!((changes.dims.c, &changes.tiles[0][..]), (1, &[0.5, 1.0, 0.25][..]));
    }

    #[test]
    fn signals_are_lines() {
        let source = Source { dims: Dims::new(3, 1, 64), ..source(3, SampleType::F32) };
        let rendering = Rendering::fit(&source, &[2], []);
        assert_eq!(rendering.lines(), Some(&[2][..]));
        let tile = rendering.tile(&[0.5; 3 * 64]);
        assert_eq!(tile.len(), rendering.dims(source.dims).len());
    }
}
