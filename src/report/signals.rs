//! Line plots of signals: originals with their reconstructions, and atoms.

use std::path::Path;

use super::chart::{Axis, Chart, Look, Series, charts};
use crate::error::Result;
use crate::model::ModelSpec;
use crate::shape::Dims;

/// Maximum number of signals that are plotted. More make each of them smaller.
const SIGNALS: usize = 4;
/// Maximum number of channels of a signal that are plotted.
const CHANNELS: usize = 3;
/// Maximum number of atoms that are plotted.
const ATOMS: usize = 12;

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

/// Writes a picture of signals with their reconstructions, in the units of the data: a row for each
/// signal, a column for each channel. `pairs` are signals (W,C) in the values of the model.
///
/// # Errors
/// If the file cannot be written.
pub fn reconstructions(
    path: &Path,
    pairs: &[(Vec<f32>, Vec<f32>)],
    model: &ModelSpec,
    dims: Dims,
) -> Result<()> {
    let shown = dims.c.min(CHANNELS);
    let mut all = Vec::new();
    for (number, (x, y)) in pairs.iter().take(SIGNALS).enumerate() {
        let [x, y] = [x, y].map(|values| {
            let mut values = values.clone();
            if let Some(normalization) = &model.normalization {
                normalization.undo(&mut values);
            }
            values
        });
        for channel in 0..shown {
            all.push(Chart {
                title: format!("signal {number}, channel {channel}"),
                x: axis("sample"),
                y: axis("value"),
                series: vec![
                    line("signal", points(&x, channel, dims.c)),
                    line("reconstruction", points(&y, channel, dims.c)),
                ],
                bars: Vec::new(),
            });
        }
    }
    charts(&all, shown).save(path)
}

/// Writes a picture of atoms (W,C each) of units: a chart for each, a line for each channel.
///
/// # Errors
/// If the file cannot be written.
pub fn atoms(path: &Path, atoms: &[(usize, Vec<f32>)], channels: usize) -> Result<()> {
    let chart = |(unit, atom): &(usize, Vec<f32>)| Chart {
        title: format!("unit {unit}"),
        x: axis("sample"),
        y: axis("value"),
        series: (0..channels.min(CHANNELS))
            .map(|channel| line(&format!("channel {channel}"), points(atom, channel, channels)))
            .collect(),
        bars: Vec::new(),
    };
    let all: Vec<Chart> = atoms.iter().take(ATOMS).map(chart).collect();
    charts(&all, 3).save(path)
}
