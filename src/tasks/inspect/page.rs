//! The HTML page of an inspection: for each unit its atom, how often it fires, and its
//! top-activating patches.

use std::fmt::Write;

use crate::error::Result;
use crate::infer::top_patches::TopPatches;
use crate::report::gallery::zero_of;
use crate::report::page::{self, Page, Sheet, escaped};
use crate::report::picture::TileGrid;
use crate::report::rendering::{Rendering, is_signal};
use crate::report::{signals, svg};
use crate::tasks::inspect::{Inspection, l0, percent, rates};

/// Side in CSS pixels at which an atom is shown.
const ATOM: f64 = 96.0;
/// Side in CSS pixels at which a top-activating patch is shown.
const PATCH: f64 = 36.0;
/// Width in CSS pixels at which an atom of a signal is shown.
const SIGNAL_ATOM: f64 = signals::TILE.w as f64;
/// Width in CSS pixels at which a top-activating signal is shown.
const SIGNAL_PATCH: f64 = 84.0;
/// Maximum number of pixels of all small plots of signals.
const MAX_PIXELS: usize = 1 << 22;

/// Number of top-activating signals of each unit that are plotted: plots are larger than signals.
fn plotted(top_patches: &TopPatches) -> usize {
    let fitting = MAX_PIXELS / (signals::TILE.area() * top_patches.units.len().max(1));
    fitting.clamp(1, top_patches.kept.max(1))
}

/// Memory in bytes for the plots of signals and for the sheet of them; 0 for images, whose sheets
/// [`TopPatches::bytes`] counts.
pub fn plot_bytes(top_patches: &TopPatches) -> u64 {
    if !is_signal(top_patches.input()) {
        return 0;
    }
    let plots = top_patches.units.len() * (1 + plotted(top_patches));
    (plots * 3 * signals::TILE.area() * 2 * size_of::<f32>()) as u64
}

/// Makes the page of an inspection with images. `facts` are those of its heading.
///
/// # Errors
/// When there are too many units for a picture.
pub fn write(
    found: &Inspection,
    facts: &[(&str, String)],
    top_patches: &TopPatches,
    (filters, rendering): (Option<&TileGrid>, &Rendering),
) -> Result<String> {
    let Some(report) = &found.report else { unreachable!("a page needs an evaluation") };
    let s = &report.statistics;
    let intro = format!(
        "The code of {} images: {} units of layer {}.",
        report.images,
        s.units(),
        found.summary.code
    );
    let histograms = [
        svg::figure(&rates(s), "How many units fire how often. Move the pointer over a bar."),
        svg::figure(&l0(s), "How many images have how many active units."),
    ];
    let mut page = Page::new(&format!("Inspection of {}", facts[0].1))
        .facts(facts)
        .intro(&intro)
        .section("Results", numbers(found))
        .section("Histograms", charts(&histograms));
    if let Some(history) = found.run.history.as_ref().filter(|history| history.length().0 > 0) {
        let drawn = history.charts(found.sums_squares());
        let drawn: Vec<String> = drawn.iter().map(|chart| svg::figure(chart, "")).collect();
        let legend = "<p class=\"soft\">Lines: means over logging intervals of training steps. \
                      Dots: validations. Move the pointer over a dot.</p>\n";
        page = page.section("Training", legend.to_owned() + &charts(&drawn));
    }
    page = page.section("Layers", layers(found));
    if let Some(filters) = filters {
        let picture = page::image(&filters.picture(), "filters", "filters.png")?;
        let caption = if rendering.lines().is_some() {
            format!("Each filter is scaled on its own; the gray line is 0. {}", rendering.note())
        } else {
            "Each filter is scaled on its own, so that its largest weight is black or white; \
             middle gray is 0."
                .to_owned()
        };
        page = page.section("Filters of the first convolution", page::figure(&picture, &caption));
    }
    let (units, sheets) = units(found, top_patches, rendering)?;
    page = page.section("Units", units);
    for sheet in &sheets {
        page = page.sheet(sheet);
    }
    Ok(page.script(include_str!("../../../assets/page/units.js")).html())
}

/// Charts side by side.
fn charts(all: &[String]) -> String {
    format!("<div class=\"charts\">\n{}</div>\n", all.concat())
}

/// The results as a list of named values.
fn numbers(found: &Inspection) -> String {
    let Some(report) = &found.report else { return String::new() };
    let mut numbers = vec![("images", report.images.to_string())];
    if !report.psnr.is_nan() {
        numbers.extend([
            ("PSNR", format!("{:.2} dB", report.psnr)),
            ("SSIM", format!("{:.4}", report.ssim)),
        ]);
    }
    numbers.extend([
        ("‖x − x̂‖²", format!("{:.3}", report.sum_squares)),
        ("explained variance", report.explained_variance_text()),
        ("L0", format!("{:.1} of {}", report.l0, report.code)),
        (
            "dead units",
            format!("{} of {} ({})", report.dead, report.units, percent(report.dead_share)),
        ),
        (
            "Moran's I of atoms",
            found.moran().map_or("–".to_owned(), |[_, _, median, ..]| format!("{median:.2}")),
        ),
        ("parameters", found.summary.parameters.to_string()),
    ]);
    let each: String = numbers
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value)))
        .collect();
    format!("<dl class=\"numbers\">{each}</dl>\n")
}

/// The table of the layers.
fn layers(found: &Inspection) -> String {
    let shape = |[c, h, w]: [usize; 3]| format!("{c}×{h}×{w}");
    let mut rows = String::from(
        "<tr><th>layer<th>operation<th class=n>output<th class=n>parameters\
         <th class=n>multiply-adds</tr>\n",
    );
    for row in &found.summary.rows {
        let mark = match (row.is_code, row.is_output) {
            (true, true) => " (code, output)",
            (true, false) => " (code)",
            (false, true) => " (output)",
            (false, false) => "",
        };
        let from =
            if row.in_line { String::new() } else { format!(" from {}", row.inputs.join(", ")) };
        let what = format!("{} {}{from}", row.op, row.settings);
        let _ = writeln!(
            rows,
            "<tr><td>{}{mark}<td class=text>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
            escaped(&row.name),
            escaped(what.trim()),
            shape(row.shape),
            row.parameters,
            row.multiply_adds
        );
    }
    format!(
        "<div class=\"wide\"><table>\n{rows}</table></div>\n<p class=\"soft\">Outputs are \
         channels × height × width; multiply-adds are of one image.</p>\n"
    )
}

/// The cards of all units by falling firing rate, with the sheets of their pictures.
fn units(
    found: &Inspection,
    top_patches: &TopPatches,
    rendering: &Rendering,
) -> Result<(String, Vec<Sheet>)> {
    let Some(report) = &found.report else { return Ok((String::new(), Vec::new())) };
    let s = &report.statistics;
    let order = s.by_rate();
    let is_signal = is_signal(top_patches.input());
    let (atom_side, patch_side) =
        if is_signal { (SIGNAL_ATOM, SIGNAL_PATCH) } else { (ATOM, PATCH) };
    let atoms = match &found.atoms {
        Some(atoms) => {
            let tiles = atoms.tiles(rendering);
            Sheet::new("atom", &tiles.tiles, tiles.dims, atom_side)?
        }
        None => None,
    };
    let kept = if is_signal { plotted(top_patches) } else { usize::MAX };
    let of_unit = |unit: usize| top_patches.units[unit].iter().take(kept);
    // Patches are on the sheet in the order of the cards.
    let patches: Vec<Vec<f32>> = order
        .iter()
        .flat_map(|unit| of_unit(*unit))
        .map(|patch| rendering.tile(&patch.values()))
        .collect();
    let dims = rendering.dims(top_patches.dims());
    let sheet = Sheet::new("part", &patches, dims, patch_side)?;
    let atom_text = || {
        let (what, zero) = zero_of(rendering);
        format!(
            "Large: the atom of the unit, which is what it adds to {what}; {zero} is 0, and each \
             atom is scaled on its own. "
        )
    };
    let mut html = format!(
        "<p class=\"soft\">{}{} {} Move the pointer over a picture.</p>\n",
        if atoms.is_some() { atom_text() } else { String::new() },
        match (top_patches.kept, is_signal) {
            (0, _) => "There was no memory for top-activating patches.",
            (_, true) =>
                "Small: the parts of signals that activate it most, each from another signal and \
                 scaled on its own, the strongest first.",
            (_, false) =>
                "Small: its top-activating patches, each from another image, the strongest first.",
        },
        rendering.note()
    );
    html += "<div class=controls hidden>\
             <label>sorted by <select id=order><option value=rate>firing rate\
             <option value=strength>mean when active<option value=unit>number</select></label>\
             <label><input type=checkbox id=dead checked> dead units</label>\
             <label>unit <input id=find size=6 inputmode=numeric></label></div>\n";
    let class = if is_signal { "\"units signals\"" } else { "units" };
    let _ = writeln!(html, "<div class={class}>");
    // Number of the next patch on the sheet.
    let mut next_patch = 0;
    for unit in &order {
        let (rate, strength, dead) = (s.rate(*unit), s.strength(*unit), s.is_dead(*unit));
        let class = if dead { "unit dead" } else { "unit" };
        let _ = write!(
            html,
            "<div class=\"{class}\" id=u{unit} data-unit={unit} data-rate={rate:e} \
             data-strength={strength:e}>"
        );
        if let Some(sheet) = &atoms {
            html += &sheet.tile(*unit, &format!("atom of unit {unit}"));
        }
        let firing =
            if dead { "never fires".to_owned() } else { format!("fires {}", percent(rate)) };
        let _ = write!(html, "<div><b>#{unit}</b><small>{firing}</small>");
        if !dead {
            let _ = write!(html, "<small>mean {strength:.3}</small>");
        }
        html += "</div>";
        if let Some(sheet) = &sheet
            && !top_patches.units[*unit].is_empty()
        {
            html += "<div class=strip>";
            for patch in of_unit(*unit) {
                let name = found.names.get(&patch.image).map_or("", String::as_str);
                html += &sheet.tile(next_patch, &format!("{name}: {:.3}", patch.value));
                next_patch += 1;
            }
            html += "</div>";
        }
        html += "</div>\n";
    }
    html += "</div>\n";
    Ok((html, atoms.into_iter().chain(sheet).collect()))
}
