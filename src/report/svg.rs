//! Charts as SVG in pages: in the colours of the page, with values as tooltips.

use std::fmt::Write;

use super::chart::{Chart, Look, Scale, Series, number};
use super::page::escaped;

/// Width of the drawing. On a screen of 400 pixels its text is 10 pixels high.
const WIDTH: f64 = 440.0;
/// Height of the drawing.
const HEIGHT: f64 = 250.0;
/// Left and right end of the horizontal axis.
const ACROSS: [f64; 2] = [52.0, 424.0];
/// Lower and upper end of the vertical axis.
const UP: [f64; 2] = [202.0, 8.0];
/// Number of colours in the style sheet, the classes `s0`, `s1`, ….
const COLOURS: usize = 6;

/// An axis in the drawing.
struct Axis {
    scale: Scale,
    ends: [f64; 2],
}

impl Axis {
    /// Where a value is. `None` if it has no place, for example 0 on a logarithmic axis.
    fn place(&self, value: f64) -> Option<f64> {
        Some(self.tick(self.scale.place(value)?))
    }

    /// Where a tick is.
    fn tick(&self, at: f64) -> f64 {
        let (low, high) = self.scale.range;
        self.ends[0] + (at - low) / (high - low) * (self.ends[1] - self.ends[0])
    }
}

/// A chart with its title, its legend and a caption, for a page with the style sheet of all pages.
pub fn figure(chart: &Chart, caption: &str) -> String {
    let (x, y) = chart.scales();
    let (x, y) = (Axis { scale: x, ends: ACROSS }, Axis { scale: y, ends: UP });
    let mut svg = axes(chart, &x, &y);
    for bar in &chart.bars {
        svg += &bar_of(*bar, &x, &y).unwrap_or_default();
    }
    let mut legend = String::new();
    for (i, series) in chart.series.iter().enumerate() {
        let colour = format!("s{}", i % COLOURS);
        svg += &curve(series, &colour, &x, &y);
        if chart.series.len() > 1 {
            let dot = if series.look == Look::Dots { " dot" } else { "" };
            let name = escaped(&series.name);
            let _ = write!(legend, "<span><i class=\"swatch{dot} {colour}\"></i>{name}</span>");
        }
    }
    let (title, caption) = (escaped(&chart.title), escaped(caption));
    format!(
        "<figure class=\"chart still\"><h3>{title}</h3><p class=\"legend\">{legend}</p>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n{svg}</svg>\
         <figcaption>{caption}</figcaption></figure>\n"
    )
}

/// Grid, ticks and labels.
fn axes(chart: &Chart, x: &Axis, y: &Axis) -> String {
    let ([left, right], [bottom, top]) = (ACROSS, UP);
    let mut svg = String::new();
    for tick in &y.scale.ticks {
        let (at, text) = (y.tick(*tick), y.scale.text(*tick));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    for tick in &x.scale.ticks {
        let (at, text) = (x.tick(*tick), x.scale.text(*tick));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            bottom + 16.0
        );
    }
    let (below, across, up) = (HEIGHT - 8.0, escaped(&chart.x.label), escaped(&chart.y.label));
    let _ = writeln!(
        svg,
        "<text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{across}</text>\
         <text x=\"2\" y=\"{below}\">{up}</text>"
    );
    svg
}

/// A bar (from, to, height).
fn bar_of((from, to, height): (f64, f64, f64), x: &Axis, y: &Axis) -> Option<String> {
    let [left, right] = [x.place(from)?, x.place(to)?];
    let [top, bottom] = [y.place(height)?, y.place(0.0)?];
    let [low, high] = [from, to].map(|edge| number(edge, to - from));
    Some(format!(
        "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
         class=\"s0\" fill=\"currentColor\"><title>{low} to {high}: {height}</title></rect>\n",
        left + 0.5,
        (right - left - 1.0).max(0.5),
        bottom - top
    ))
}

/// The line, the dots and the error bars of a series.
fn curve(series: &Series, colour: &str, x: &Axis, y: &Axis) -> String {
    let mut svg = String::new();
    let (mut line, mut marks) = (String::new(), String::new());
    for (i, (at, value)) in series.points.iter().enumerate() {
        let (Some(left), Some(top)) = (x.place(*at), y.place(*value)) else { continue };
        let _ = write!(line, "{left:.1},{top:.1} ");
        if series.look == Look::Dots {
            let [at, value] = [*at, *value].map(|number_of| number(number_of, 1.0));
            let _ = writeln!(
                marks,
                "<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"3\" class=\"{colour}\" \
                 fill=\"currentColor\"><title>{at}: {value}</title></circle>"
            );
        }
        let ends = series.spread.get(i).map(|spread| [value - spread, value + spread]);
        if let Some([Some(low), Some(high)]) = ends.map(|ends| ends.map(|end| y.place(end))) {
            let _ = writeln!(
                marks,
                "<line class=\"{colour} spread\" stroke=\"currentColor\" x1=\"{left:.1}\" \
                 x2=\"{left:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>"
            );
        }
    }
    let width = if series.look == Look::Line { 1.8 } else { 1.0 };
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" class=\"{colour}\" fill=\"none\" stroke=\"currentColor\" \
         stroke-width=\"{width}\"/>",
        line.trim_end()
    );
    svg + &marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart;

    fn chart() -> Chart {
        let series = |name: &str, look| Series {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (10.0, 3.0), (20.0, f64::NAN)],
            spread: vec![0.5, 0.5, 0.5],
            look,
        };
        Chart {
            title: "A <title>".to_owned(),
            x: chart::Axis { label: "step".to_owned(), ..chart::Axis::default() },
            y: chart::Axis { label: "dB & more".to_owned(), ..chart::Axis::default() },
            series: vec![series("first", Look::Line), series("second", Look::Dots)],
            bars: Vec::new(),
        }
    }

    #[test]
    fn curves_have_points_dots_error_bars_and_a_legend() {
        let svg = figure(&chart(), "caption");
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 2));
        assert_eq!(svg.matches(" spread\"").count(), 4, "error bars: {svg}");
        assert!(svg.contains("<title>10: 3</title>") && svg.contains("dB &amp; more"), "{svg}");
        assert!(
            svg.contains("</i>second</span>") && !svg.contains("NaN") && !svg.contains("<title>A")
        );
        // A series alone needs no legend.
        let alone = Chart { series: chart().series[..1].to_vec(), ..chart() };
        assert!(!figure(&alone, "").contains("swatch"));
    }

    #[test]
    fn bars_end_at_the_axis() {
        let bars = vec![(0.0, 1.0, 4.0), (1.0, 2.0, 8.0)];
        let svg = figure(&Chart { series: Vec::new(), bars, ..chart() }, "");
        let of = |name: &str| -> Vec<f64> {
            let parts = svg.split("<rect").skip(1);
            let value = parts.map(|part| part.split_once(&format!(" {name}=\"")).unwrap().1);
            value.map(|text| text.split('"').next().unwrap().parse().unwrap()).collect()
        };
        let (top, height) = (of("y"), of("height"));
        assert_eq!(top.len(), 2);
        // The lower edge of both is the axis, within the rounding of the text.
        assert!((top[0] + height[0] - UP[0]).abs() < 0.11, "{svg}");
        assert!((height[1] - 2.0 * height[0]).abs() < 0.21, "{svg}");
        assert!(svg.contains("<title>1 to 2: 8</title>"), "{svg}");
    }
}
