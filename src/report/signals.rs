//! Line plots of signals: originals with their reconstructions, and small plots.

use super::chart::{Axis, COLOURS, Chart, Look, Series, charts};
use super::picture::Picture;
use crate::model::ModelSpec;
use crate::shape::{Dims, Size};

/// Maximum number of signals that are plotted. More make each of them smaller.
const SIGNALS: usize = 4;
/// Maximum number of channels of a signal that are plotted beside each other.
const CHANNELS: usize = 3;
/// Maximum number of channels that are lines of one plot: the number of colours.
pub(super) const LINES: usize = COLOURS.len();

fn axis(label: &str) -> Axis {
    Axis { label: label.to_owned(), log: false, include: None }
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), points, spread: Vec::new(), look: Look::Line }
}

/// One channel of a signal (W,C) of `channels`.
fn points(signal: &[f32], channel: usize, channels: usize) -> Vec<(f64, f64)> {
    let values = signal.iter().skip(channel).step_by(channels);
    values.enumerate().map(|(at, value)| (at as f64, f64::from(*value))).collect()
}

/// A picture of signals with their reconstructions, in the units of the data: a row for each
/// signal, a column for each of the first channels `shown`. `pairs` are signals (W,C) in the values
/// of the model.
pub fn reconstructions(
    pairs: &[[Vec<f32>; 2]],
    model: &ModelSpec,
    dims: Dims,
    shown: &[usize],
) -> Picture {
    let shown = &shown[..shown.len().min(CHANNELS)];
    let mut all = Vec::new();
    for (number, pair) in pairs.iter().take(SIGNALS).enumerate() {
        let [x, y] = pair.clone().map(|mut values| {
            if let Some(normalization) = &model.normalization {
                normalization.undo(&mut values);
            }
            values
        });
        let of = if pairs.len() > 1 { format!("signal {number}, ") } else { String::new() };
        all.extend(shown.iter().map(|channel| Chart {
            title: format!("{of}channel {channel}"),
            x: axis("sample"),
            y: axis("value"),
            series: vec![
                line("signal", points(&x, *channel, dims.c)),
                line("reconstruction", points(&y, *channel, dims.c)),
            ],
            bars: Vec::new(),
        }));
    }
    charts(&all, shown.len())
}

/// A picture of a signal (W,C) in the values of the model, in the units of the data, and below it
/// its heat map (W): a chart for each of the first channels `shown`, and one of the heat.
pub fn heat(
    signal: &[f32],
    heat: &[f32],
    threshold: f32,
    (model, dims, shown): (&ModelSpec, Dims, &[usize]),
) -> Picture {
    let mut values = signal.to_vec();
    if let Some(normalization) = &model.normalization {
        normalization.undo(&mut values);
    }
    let chart = |title: String, y: &str, series: Vec<Series>| Chart {
        title,
        x: axis("sample"),
        y: axis(y),
        series,
        bars: Vec::new(),
    };
    let mut all: Vec<Chart> = shown
        .iter()
        .take(CHANNELS)
        .map(|channel| {
            let series = vec![line("signal", points(&values, *channel, dims.c))];
            chart(format!("channel {channel}"), "value", series)
        })
        .collect();
    let last = heat.len().saturating_sub(1) as f64;
    let limit = vec![(0.0, f64::from(threshold)), (last, f64::from(threshold))];
    all.push(chart(
        "heat map".to_owned(),
        "standard deviations",
        vec![line("heat", points(heat, 0, 1)), line("threshold", limit)],
    ));
    charts(&all, 1)
}

/// Size of the small plot of a signal.
pub const TILE: Size = Size::new(60, 140);
/// Number of small plots in a row of a picture.
pub(super) const COLUMNS: usize = 6;
/// Share of the height of a small plot above and below its lines.
const MARGIN: f32 = 0.08;
/// Half the thickness of a line in pixels.
const HALF_LINE: f32 = 0.65;
/// The names of the colours of lines, in their order.
const COLOUR_NAMES: [&str; LINES] = ["blue", "orange", "green", "pink", "light blue", "yellow"];

/// The channels of signals that are shown: the chosen ones, or the first ones.
pub(super) fn shown(channels: usize, chosen: &[usize]) -> Vec<usize> {
    if chosen.is_empty() {
        (0..channels.min(LINES)).collect()
    } else {
        chosen.iter().copied().take(LINES).collect()
    }
}

/// The colours of the lines, as a sentence.
pub(super) fn note(shown: &[usize], channels: usize) -> String {
    if channels == 1 {
        return String::new();
    }
    let lines = shown.iter().zip(COLOUR_NAMES);
    let lines: Vec<String> = lines.map(|(channel, colour)| format!("{channel} {colour}")).collect();
    let more = if shown.len() < channels { format!(" of {channels}") } else { String::new() };
    format!("Channels{more}: {}.", lines.join(", "))
}

/// The small plot (H,W,3) of a signal (W,C): a line for each of the channels `shown`, scaled so
/// that they fill the height. A gray line is at the value `zero`, which is then in the range.
pub(super) fn tile(
    signal: &[f32],
    channels: usize,
    shown: &[usize],
    zero: Option<f32>,
) -> Vec<f32> {
    let Size { h, w } = TILE;
    let finite = |value: f32| if value.is_finite() { value } else { 0.0 };
    let lines: Vec<Vec<f32>> = shown
        .iter()
        .map(|c| signal.iter().skip(*c).step_by(channels).map(|v| finite(*v)).collect())
        .collect();
    let values = lines.iter().flatten().copied().chain(zero);
    let (low, high) = values.fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(v), b.max(v)));
    let row = |value: f32| {
        let place = if high > low { (value - low) / (high - low) } else { 0.5 };
        (MARGIN + (1.0 - 2.0 * MARGIN) * (1.0 - place)) * (h - 1) as f32
    };
    let mut pixels = vec![1.0; 3 * TILE.area()];
    // Draws the part of a line in a column of pixels, from row `top` to row `bottom`.
    let mut span = |x: usize, [top, bottom]: [f32; 2], half: f32, colour: [f32; 3]| {
        let (top, bottom) = (top - half, bottom + half);
        for y in top.max(0.0) as usize..=(bottom.ceil().max(0.0) as usize).min(h - 1) {
            // The share of the pixel, whose centre is at `y`, that the line covers.
            let covered = (bottom.min(y as f32 + 0.5) - top.max(y as f32 - 0.5)).clamp(0.0, 1.0);
            for (value, ink) in pixels[(y * w + x) * 3..][..3].iter_mut().zip(colour) {
                *value += covered * (ink - *value);
            }
        }
    };
    if let Some(zero) = zero {
        (0..w).for_each(|x| span(x, [row(zero); 2], 0.5, [0.75; 3]));
    }
    for (line, colour) in lines.iter().zip(COLOURS) {
        let colour = [colour.0, colour.1, colour.2].map(|byte| f32::from(byte) / 255.0);
        let Some(last) = line.len().checked_sub(1) else { continue };
        // The value between samples.
        let at = |place: f32| {
            let below = (place as usize).min(last);
            let above = (below + 1).min(last);
            line[below] + (place - below as f32).clamp(0.0, 1.0) * (line[above] - line[below])
        };
        for x in 0..w {
            let [from, to] = [x, x + 1].map(|x| last as f32 * x as f32 / w as f32);
            let inside = (from.ceil() as usize..=to as usize).map(|i| line[i.min(last)]);
            let rows = inside.chain([at(from), at(to)]).map(row);
            let ends = rows.fold([f32::MAX, f32::MIN], |[a, b], y| [a.min(y), b.max(y)]);
            span(x, ends, HALF_LINE, colour);
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of the darkest blue in a column of a tile.
    fn blue_row(tile: &[f32], x: usize) -> usize {
        let blue = |y: &usize| {
            let pixel = &tile[(y * TILE.w + x) * 3..][..3];
            ((pixel[2] - pixel[0]) * 1000.0) as i32
        };
        (0..TILE.h).max_by_key(blue).unwrap()
    }

    #[test]
    fn a_line_follows_its_signal() {
        let rising: Vec<f32> = (0..50).map(|i| i as f32).collect();
        let drawn = tile(&rising, 1, &[0], None);
        let (left, right) = (blue_row(&drawn, 0), blue_row(&drawn, TILE.w - 1));
        assert!(left > TILE.h - 10 && right < 10, "{left} {right}");
        // A peak of one sample among thousands is not lost.
        let mut peak = vec![0.0; 5000];
        peak[2500] = 1.0;
        let drawn = tile(&peak, 1, &[0], None);
        let top: f32 = drawn[8 * TILE.w * 3..9 * TILE.w * 3].iter().sum();
        assert!(top < 3.0 * TILE.w as f32 - 0.3, "{top}");
    }

    #[test]
    fn channels_are_lines_and_zero_is_a_line() {
        let signal: Vec<f32> = (0..40).flat_map(|i| [i as f32, 5.0, -(i as f32)]).collect();
        let one = tile(&signal, 3, &[0], Some(0.0));
        let all = tile(&signal, 3, &[0, 1, 2], Some(0.0));
        assert_ne!(one, all);
        assert_ne!(one, tile(&signal, 3, &[0], None));
        assert_eq!(note(&[0, 1, 2], 3), "Channels: 0 blue, 1 orange, 2 green.");
        assert_eq!(note(&[4], 8), "Channels of 8: 4 blue.");
        assert_eq!((shown(8, &[]), shown(8, &[7, 2])), (vec![0, 1, 2, 3, 4, 5], vec![7, 2]));
    }

    #[test]
    fn odd_signals_are_drawn() {
        for signal in [&[][..], &[1.0], &[f32::NAN, f32::INFINITY], &[0.0; 3]] {
            let drawn = tile(signal, 1, &[0], Some(0.0));
            assert!(drawn.iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}
