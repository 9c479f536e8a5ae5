//! Charts as pictures: lines, dots and bars with labelled axes, and tiles with captions. The font
//! is bundled, so that every machine draws the same bytes.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::report::picture::{Picture, TileGrid};
use crate::shape::{Dims, Size};

/// Size of a chart. Two side by side fit on most screens.
const SIZE: Size = Size::new(400, 640);
/// Height of text in pixels.
pub(crate) const TEXT: u32 = 15;
/// Height of a title in pixels.
pub(crate) const TITLE: u32 = 18;
/// Supersampling factor (antialiasing): everything is drawn this many times larger and then
/// averaged. 3 would smooth lines a little more and take more than twice the time.
const FINE: u32 = 2;
/// The name under which the font is registered with plotters.
const FONT: &str = "bundled";
/// The panic message of drawing calls, which cannot fail: the target is memory.
pub(crate) const DRAWN: &str = "drawing into memory does not fail";
/// Colour of text and axes.
pub(crate) const INK: RGBColor = RGBColor(51, 51, 51);
/// Colour of grid lines.
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Colours of series: blue, orange, … of Okabe & Ito's palette, which people with colour vision
/// deficiency can distinguish.
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// How the points of a series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Joined by a thick line.
    Line,
    /// As dots, joined by a thin line.
    Dots,
}

/// A named sequence of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name in the legend, which is drawn if a chart has more than one series.
    pub name: String,
    /// The points (x, y).
    pub points: Vec<(f64, f64)>,
    /// Half the length of the error bar of each point. Empty: no error bars.
    pub spread: Vec<f64>,
    /// How the points are drawn.
    pub look: Look,
}

/// An axis of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// The quantity, with its unit.
    pub label: String,
    /// Whether the axis is logarithmic. Values that are not above 0 are then left out.
    pub log: bool,
    /// A value that the range must include, such as 0.
    pub include: Option<f64>,
}

/// A chart of series or bars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The series, at most six, which is the number of colours.
    pub series: Vec<Series>,
    /// Bars (from, to, height), which start at height 0.
    pub bars: Vec<(f64, f64, f64)>,
}

impl Chart {
    /// The scales of both axes.
    pub(super) fn scales(&self) -> (Scale, Scale) {
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let x_values = points().map(|p| p.0).chain(self.bars.iter().flat_map(|bar| [bar.0, bar.1]));
        let ends = |series: &Series| {
            series
                .points
                .iter()
                .zip(&series.spread)
                .flat_map(|(p, spread)| [p.1 - spread, p.1 + spread])
                .collect::<Vec<_>>()
        };
        let y_values = points()
            .map(|p| p.1)
            .chain(self.bars.iter().map(|bar| bar.2))
            .chain(self.series.iter().flat_map(ends));
        let y_axis = if self.bars.is_empty() {
            self.y.clone()
        } else {
            Axis { include: Some(0.0), ..self.y.clone() }
        };
        (Scale::new(&self.x, x_values, true), Scale::new(&y_axis, y_values, false))
    }
}

/// The range and the ticks of an axis, in drawing coordinates: the values themselves, or their
/// decimal logarithms on a logarithmic axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) range: (f64, f64),
    pub(super) ticks: Vec<f64>,
    log: bool,
}

impl Scale {
    /// A scale that includes all `values`. If it is not `tight`, it has a margin of 5 % on each
    /// side.
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, tight: bool) -> Self {
        let log = axis.log;
        let valid = values.chain(axis.include).filter(|v| v.is_finite() && (!log || *v > 0.0));
        let coordinates = valid.map(|v| if log { v.log10() } else { v });
        let (mut low, mut high) =
            coordinates.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        // No valid value.
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A single value: the range must not be empty.
        if high - low <= 1e-9 * high.abs().max(1e-9) {
            let margin = if log { 0.5 } else { (0.1 * high.abs()).max(0.5) };
            (low, high) =
                if low == 0.0 && !log { (0.0, 1.0) } else { (low - margin, high + margin) };
        }
        if !tight {
            // No margin below the included value: an axis that includes 0 starts there.
            let (margin, edge) = (0.05 * (high - low), axis.include.filter(|_| !log));
            (low, high) = (if edge == Some(low) { low } else { low - margin }, high + margin);
        }
        let ticks = if log { log_ticks(low, high) } else { ticks(low, high, 6) };
        Self { range: (low, high), ticks, log }
    }

    /// The drawing coordinate of a value, clamped to the range. `None` if it has none, for example
    /// 0 on a logarithmic axis.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let placed = if self.log { value.log10() } else { value };
        placed.is_finite().then(|| placed.clamp(self.range.0, self.range.1))
    }

    /// The text of a tick.
    pub(super) fn text(&self, tick: f64) -> String {
        let apart = match self.ticks[..] {
            [first, second, ..] if !self.log => second - first,
            _ => 1.0,
        };
        number(if self.log { 10.0_f64.powf(tick) } else { tick }, apart)
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, placed: &f64) -> String {
        self.text(*placed)
    }
}

/// About `count` round numbers in the range `low..=high`, whose distance is 1, 2 or 5 times a power
/// of ten.
pub(super) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + 1e-9 * step).collect()
}

/// Ticks of a logarithmic axis from 10^`low` to 10^`high`: decimal logarithms of powers of ten, of
/// 1, 2 and 5 times these if there are fewer than three, or of all multiples.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let all = |factors: &[f64]| -> Vec<f64> {
        // At most about 8 powers: over more decades, only every second, third, … power.
        let every = ((high - low) / 8.0).ceil().max(1.0) as i64;
        let powers = (low.floor() as i64..=high.ceil() as i64).filter(|power| power % every == 0);
        let ticks = powers
            .flat_map(|power| factors.iter().map(move |factor| power as f64 + factor.log10()));
        ticks.filter(|tick| (low - 1e-9..=high + 1e-9).contains(tick)).collect()
    };
    [&[1.0][..], &[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]]
        .into_iter()
        .map(all)
        .find(|ticks| ticks.len() >= 3)
        .unwrap_or_else(|| ticks(low, high, 4))
}

/// Formats a number with four significant digits, or with more if they are needed to distinguish it
/// from a number at the distance `apart`. Trailing zeros are left out.
pub(super) fn number(value: f64, apart: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs().log10().floor();
    if !(-4.0..7.0).contains(&size) {
        return format!("{value:.0e}");
    }
    let digits = (3.0 - size).max(-apart.log10().floor()).clamp(0.0, 8.0);
    let text = format!("{value:.*}", digits as usize);
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.replace('-', "−")
}

/// A text style: size in pixels of the picture, and colour.
pub(crate) fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let font = include_bytes!("../../assets/font/sans.ttf");
        assert!(register_font(FONT, FontStyle::Normal, font).is_ok(), "the bundled font is sound");
    });
    (FONT, size * FINE).into_font().color(&colour)
}

/// Converts pixels of the picture to pixels of the supersampled drawing.
pub(crate) const fn fine(pixels: usize) -> i32 {
    pixels as i32 * FINE as i32
}

/// Draws a picture of `size` on a white background. `draw` draws in supersampled coordinates, see
/// [`fine`].
pub(crate) fn page(size: Size, draw: impl FnOnce(&DrawingArea<BitMapBackend, Shift>)) -> Picture {
    let fine = FINE as usize;
    let (Size { h, w }, drawn) = (size, size.map(|side| side * fine));
    let mut bytes = vec![255_u8; 3 * drawn.area()];
    {
        let area = BitMapBackend::with_buffer(&mut bytes, (drawn.w as u32, drawn.h as u32))
            .into_drawing_area();
        draw(&area);
        area.present().expect(DRAWN);
    }
    let mut pixels = Vec::with_capacity(3 * size.area());
    for (y, x, c) in (0..h).flat_map(|y| (0..w).flat_map(move |x| (0..3).map(move |c| (y, x, c)))) {
        let at = |i: usize| ((y * fine + i / fine) * drawn.w + x * fine + i % fine) * 3 + c;
        let sum: u32 = (0..fine * fine).map(|i| u32::from(bytes[at(i)])).sum();
        pixels.push(sum as f32 / (255 * FINE * FINE) as f32);
    }
    Picture { dims: Dims::of(size, 3), pixels }
}

/// Draws charts row by row in `columns` columns.
pub fn charts(charts: &[Chart], columns: usize) -> Picture {
    let columns = columns.clamp(1, charts.len().max(1));
    let rows = charts.len().div_ceil(columns).max(1);
    let dims = Dims::of(Size::new(SIZE.h * rows, SIZE.w * columns), 3);
    let mut pixels = vec![1.0; dims.len()];
    for (i, chart) in charts.iter().enumerate() {
        // One at a time: the supersampled drawing of all charts takes tens of megabytes.
        let drawn = page(SIZE, |area| draw(chart, area)).pixels;
        let (top, left) = (i / columns * SIZE.h, i % columns * SIZE.w);
        for (y, row) in drawn.chunks_exact(3 * SIZE.w).enumerate() {
            let start = ((top + y) * dims.w + left) * 3;
            pixels[start..start + row.len()].copy_from_slice(row);
        }
    }
    Picture { dims, pixels }
}

/// Draws one chart into an area.
fn draw(chart: &Chart, area: &DrawingArea<BitMapBackend, Shift>) {
    let points = || chart.series.iter().flat_map(|series| series.points.iter().copied());
    let (x, y) = chart.scales();
    let mut built = ChartBuilder::on(area)
        .caption(&chart.title, text(TITLE, INK))
        .margin(fine(12))
        .margin_right(fine(28))
        .x_label_area_size(fine(48))
        .y_label_area_size(fine(72))
        .build_cartesian_2d(x.clone(), y.clone())
        .expect(DRAWN);
    built
        .configure_mesh()
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label)
        .x_labels(x.ticks.len().max(1))
        .y_labels(y.ticks.len().max(1))
        .label_style(text(TEXT, INK))
        .axis_desc_style(text(TEXT, INK))
        .axis_style(INK.stroke_width(FINE))
        .bold_line_style(GRID.stroke_width(FINE))
        .light_line_style(TRANSPARENT)
        .set_all_tick_mark_size(fine(5))
        .draw()
        .expect(DRAWN);
    let bars = chart
        .bars
        .iter()
        .filter_map(|(from, to, height)| Some((x.place(*from)?, x.place(*to)?, *height)));
    built
        .draw_series(bars.map(|(from, to, height)| {
            let mut bar = Rectangle::new([(from, 0.0), (to, height)], COLOURS[0].filled());
            bar.set_margin(0, 0, FINE, FINE);
            bar
        }))
        .expect(DRAWN);
    for (series, colour) in chart.series.iter().zip(COLOURS) {
        let placed =
            || series.points.iter().filter_map(|(a, b)| Some((x.place(*a)?, y.place(*b)?)));
        let width = FINE * if series.look == Look::Line { 2 } else { 1 };
        let line =
            built.draw_series(LineSeries::new(placed(), colour.stroke_width(width))).expect(DRAWN);
        if chart.series.len() > 1 {
            let dots = series.look == Look::Dots;
            line.label(&series.name).legend(move |(x, y)| {
                let line =
                    PathElement::new([(x, y), (x + fine(18), y)], colour.stroke_width(width));
                let dot =
                    Circle::new((x + fine(9), y), if dots { fine(4) } else { 0 }, colour.filled());
                EmptyElement::at((0, 0)) + line + dot
            });
        }
        for ((a, b), spread) in series.points.iter().zip(&series.spread) {
            if let (Some(a), Some(low), Some(high)) =
                (x.place(*a), y.place(b - spread), y.place(b + spread))
            {
                built
                    .draw_series([PathElement::new(
                        [(a, low), (a, high)],
                        colour.stroke_width(FINE),
                    )])
                    .expect(DRAWN);
            }
        }
        if series.look == Look::Dots {
            built
                .draw_series(placed().map(|point| Circle::new(point, fine(4), colour.filled())))
                .expect(DRAWN);
        }
    }
    if chart.series.len() > 1 {
        // The legend is at the right, above or below the points there: most curves flatten out
        // towards the right and leave one of the two corners free.
        let right = points().filter_map(|(a, b)| Some((x.place(a)?, y.place(b)?)));
        let share = |value: f64, of: &Scale| (value - of.range.0) / (of.range.1 - of.range.0);
        let right: Vec<f64> =
            right.filter(|p| share(p.0, &x) > 0.6).map(|p| share(p.1, &y)).collect();
        let high = right.iter().sum::<f64>() > 0.5 * right.len() as f64;
        built
            .configure_series_labels()
            .position(if high {
                SeriesLabelPosition::LowerRight
            } else {
                SeriesLabelPosition::UpperRight
            })
            .legend_area_size(fine(26))
            .margin(fine(8))
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .label_font(text(TEXT, INK))
            .draw()
            .expect(DRAWN);
    }
}

/// Maximum width of a picture of tiles with captions, in pixels. It fits on most screens.
const WIDTH: usize = 1280;
/// Minimum width of a tile with a caption, in pixels; the caption needs it.
const MIN_TILE: usize = 64;
/// Gap between tiles in pixels.
const GAP: usize = 10;

/// Draws a title, and below it tiles with a caption of two short lines under each tile.
///
/// # Panics
/// If the numbers of tiles and captions differ.
pub fn captioned(title: &str, tiles: &TileGrid, captions: &[[String; 2]]) -> Picture {
    assert_eq!(tiles.tiles.len(), captions.len(), "a caption for each tile");
    let scale = MIN_TILE.div_ceil(tiles.dims.w);
    let Size { h, w } = tiles.dims.size().map(|side| side * scale);
    let columns = ((WIDTH - GAP) / (w + GAP)).clamp(1, captions.len().max(1));
    let rows = captions.len().div_ceil(columns);
    let (top, line) = (2 * GAP + TITLE as usize, TEXT as usize);
    let (step_x, step_y) = (w + GAP, h + 2 * line + GAP + 4);
    // An upper bound for the width of the title: a character is less than 0.6 of its height wide.
    let width =
        (columns * step_x + GAP).max(title.chars().count() * TITLE as usize * 6 / 10 + 2 * GAP);
    let mut picture = page(Size::new(top + rows * step_y + GAP, width), |page| {
        page.draw_text(title, &text(TITLE, INK), (fine(GAP), fine(GAP))).expect(DRAWN);
        for (i, lines) in captions.iter().enumerate() {
            let centre = GAP + i % columns * step_x + w / 2;
            let below = top + i / columns * step_y + h + 3;
            for (j, (words, colour)) in lines.iter().zip([INK, RGBColor(130, 130, 130)]).enumerate()
            {
                let style = text(TEXT - 2, colour).pos(Pos::new(HPos::Center, VPos::Top));
                page.draw_text(words, &style, (fine(centre), fine(below + j * line))).expect(DRAWN);
            }
        }
    });
    for (i, tile) in tiles.tiles.iter().enumerate() {
        let colour: Vec<f32> = if tiles.dims.c == 3 {
            tile.clone()
        } else {
            tile.iter().flat_map(|v| [*v; 3]).collect()
        };
        picture.paint(
            &colour,
            tiles.dims.size(),
            scale,
            top + i / columns * step_y,
            GAP + i % columns * step_x,
        );
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_in_the_range() {
        assert_eq!(ticks(0.0, 10.0, 6), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            ticks(-0.3, 0.31, 6).iter().map(|t| number(*t, 0.2)).collect::<Vec<_>>(),
            ["−0.2", "0", "0.2"]
        );
        for (low, high) in [(3.0, 3.01), (1e-8, 2e-8), (-5.0, 1e6), (999.0, 1001.0)] {
            let found = ticks(low, high, 6);
            assert!(
                (2..=8).contains(&found.len())
                    && found.iter().all(|t| (low - 1e-9..=high + 1e-9).contains(t)),
                "{low}–{high}: {found:?}"
            );
        }
    }

    #[test]
    fn log_ticks_are_powers_or_multiples_of_powers() {
        assert_eq!(log_ticks(-2.1, 0.1), [-2.0, -1.0, 0.0]);
        assert_eq!(log_ticks(0.0, 1.0).len(), 4);
        for (low, high) in [(3.0, 3.01), (1e-8, 2e-8), (-5.0, 9.0), (8.0, 9.0)] {
            let count = log_ticks(low, high).len();
            assert!((2..=10).contains(&count), "{low}–{high}: {count}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [12_345.0, 12_345.1, 12_345.25].map(|v| number(v, 0.05)),
            ["12345", "12345.1", "12345.25"]
        );
        for (value, text) in [
            (0.0, "0"),
            (1500.0, "1500"),
            (0.05, "0.05"),
            (2.5, "2.5"),
            (1e-5, "1e-5"),
            (3e9, "3e9"),
        ] {
            assert_eq!(number(value, 1e9), text);
        }
    }

    fn chart(points: &[(f64, f64)]) -> Chart {
        Chart {
            title: "λ‖z‖ of a test".to_owned(),
            x: Axis { label: "step".to_owned(), ..Axis::default() },
            y: Axis { label: "loss".to_owned(), log: true, include: None },
            series: vec![Series {
                name: "one".to_owned(),
                points: points.to_vec(),
                spread: Vec::new(),
                look: Look::Line,
            }],
            bars: Vec::new(),
        }
    }

    /// The number of blue pixels, the colour of the first series and of bars.
    fn blue_pixels(picture: &Picture) -> usize {
        let blue = |p: &&[f32]| p[2] > p[0] + 0.3;
        picture.pixels.chunks(3).filter(blue).count()
    }

    #[test]
    fn a_chart_depends_on_its_values_only() {
        let drawn = charts(&[chart(&[(0.0, 1.0), (10.0, 100.0)])], 1);
        assert_eq!(drawn.dims, Dims::new(3, 400, 640));
        assert!(blue_pixels(&drawn) > 500);
        assert_eq!(drawn, charts(&[chart(&[(0.0, 1.0), (10.0, 100.0)])], 1), "the same bytes");
        assert_ne!(drawn, charts(&[chart(&[(0.0, 1.0), (10.0, 90.0)])], 1));
    }

    #[test]
    fn charts_accept_any_values() {
        // No point, one point, values without a logarithm, extreme ranges.
        for points in [
            &[][..],
            &[(0.0, 5.0)],
            &[(0.0, 0.0), (1.0, f64::NAN), (2.0, f64::INFINITY)],
            &[(0.0, 1e-300), (1e300, 1e300)],
        ] {
            let drawn = charts(&[chart(points), chart(points), chart(points)], 2);
            assert_eq!(drawn.dims.size(), Size::new(800, 1280));
        }
    }

    #[test]
    fn bars_are_filled() {
        let bars = Chart {
            series: Vec::new(),
            bars: vec![(0.1, 1.0, 5.0), (1.0, 10.0, 9.0)],
            ..chart(&[])
        };
        let bars = Chart { y: Axis::default(), ..bars };
        assert!(blue_pixels(&charts(&[bars], 1)) > 20_000);
    }

    #[test]
    fn captioned_tiles_keep_their_pixels() {
        let tiles =
            TileGrid { dims: Dims::new(1, 2, 3), columns: 1, tiles: vec![vec![0.0; 6]; 40] };
        let captions: Vec<[String; 2]> =
            (0..40).map(|i| [format!("{i} %"), format!("#{i}")]).collect();
        let picture = captioned("forty", &tiles, &captions);
        assert!(picture.dims.w <= WIDTH, "{}", picture.dims.w);
        // Tiles are 66×44 pixels of pure black; text is dark gray.
        let black = picture.pixels.chunks(3).filter(|p| p.iter().all(|v| *v == 0.0)).count();
        assert_eq!(black, 40 * 66 * 44);
        let dark = picture.pixels.chunks(3).filter(|p| p[0] > 0.0 && p[0] < 0.5).count();
        assert!(dark > 500, "captions: {dark}");
    }
}
