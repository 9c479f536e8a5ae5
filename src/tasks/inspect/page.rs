//! The HTML page of an inspection: for each unit its atom, how often it fires, and its
//! top-activating patches.

use std::fmt::Write;

use crate::error::Result;
use crate::infer::top_patches::TopPatches;
use crate::report::page::{self, Page, Sheet, escaped};
use crate::report::picture::TileGrid;
use crate::report::svg;
use crate::shape::Dims;
use crate::tasks::inspect::{Inspection, l0, percent, rates};

/// Side in CSS pixels at which an atom is shown.
const ATOM: f64 = 96.0;
/// Side in CSS pixels at which a top-activating patch is shown.
const PATCH: f64 = 36.0;

/// Makes the page of an inspection with images. `facts` are those of its heading.
///
/// # Errors
/// When there are too many units for a picture.
pub fn write(
    found: &Inspection,
    facts: &[(&str, String)],
    top_patches: &TopPatches,
    filters: Option<&TileGrid>,
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
        let caption = "Each filter is scaled on its own, so that its largest weight is black or \
                       white; middle gray is 0.";
        page = page.section("Filters of the first convolution", page::figure(&picture, caption));
    }
    let (units, sheets) = units(found, top_patches)?;
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
fn units(found: &Inspection, top_patches: &TopPatches) -> Result<(String, Vec<Sheet>)> {
    let Some(report) = &found.report else { return Ok((String::new(), Vec::new())) };
    let s = &report.statistics;
    let order = s.by_rate();
    let atoms = match &found.atoms {
        Some(tiles) => Sheet::new("atom", &tiles.tiles, tiles.dims, ATOM)?,
        None => None,
    };
    // Patches are on the sheet in the order of the cards.
    let channels = top_patches
        .units
        .iter()
        .flatten()
        .next()
        .map_or(1, |patch| patch.pixels.len() / top_patches.size.area().max(1));
    // Images with other channel counts are shown by their first channel or first three.
    let c = if channels >= 3 { 3 } else { 1 };
    let visible = |pixels: &[u8]| -> Vec<f32> {
        pixels
            .chunks_exact(channels)
            .flat_map(|pixel| pixel[..c].iter().map(|byte| f32::from(*byte) / 255.0))
            .collect()
    };
    let patches: Vec<Vec<f32>> = order
        .iter()
        .flat_map(|unit| &top_patches.units[*unit])
        .map(|patch| visible(&patch.pixels))
        .collect();
    let sheet = Sheet::new("part", &patches, Dims::of(top_patches.size, c), PATCH)?;
    let mut html = format!(
        "<p class=\"soft\">{}{} Move the pointer over a picture.</p>\n",
        if atoms.is_some() {
            "Large: the atom of the unit, which is what it adds to an image; middle gray is 0, \
             and each atom is scaled on its own. "
        } else {
            ""
        },
        if top_patches.kept == 0 {
            "There was no memory for top-activating patches."
        } else {
            "Small: its top-activating patches, each from another image, the strongest first."
        }
    );
    html += "<div class=controls hidden>\
             <label>sorted by <select id=order><option value=rate>firing rate\
             <option value=strength>mean when active<option value=unit>number</select></label>\
             <label><input type=checkbox id=dead checked> dead units</label>\
             <label>unit <input id=find size=6 inputmode=numeric></label></div>\n\
             <div class=units>\n";
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
            for patch in &top_patches.units[*unit] {
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
