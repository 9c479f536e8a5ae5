//! The HTML page of an inspection: for each unit its atom, how often it fires, and its
//! top-activating patches.

use std::fmt::Write;

use crate::error::Result;
use crate::infer::top_patches::TopPatches;
use crate::report::chart;
use crate::report::page;
use crate::report::page::{Sheet, escaped};
use crate::shape::Dims;
use crate::tasks::inspect::{Inspection, l0, percent, rates};

/// Side in CSS pixels at which an atom is shown.
const ATOM: f64 = 96.0;
/// Side in CSS pixels at which a top-activating patch is shown.
const PATCH: f64 = 36.0;

/// A description list of named values.
fn description_list(values: &[(&str, String)]) -> String {
    let each: String = values
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value)))
        .collect();
    format!("<dl>{each}</dl>\n")
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
            "<tr><td>{}{mark}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
            escaped(&row.name),
            escaped(what.trim()),
            shape(row.shape),
            row.parameters,
            row.multiply_adds
        );
    }
    format!("<h2>Layers</h2>\n<div class=wide><table>\n{rows}</table></div>\n")
}

/// Makes the page of an inspection with images.
///
/// # Errors
/// When there are too many units for a picture.
pub fn write(found: &Inspection, name: &str, top_patches: &TopPatches) -> Result<String> {
    let Some(report) = &found.report else { unreachable!("a page needs an evaluation") };
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

    let mut body = format!("<h1>{}</h1>\n", escaped(name));
    let _ = writeln!(
        body,
        "<p class=note>The code of {} images: {} units of layer {}. The picture of a unit is its \
         atom, the reconstruction from this unit alone{}.</p>",
        report.images,
        s.units(),
        escaped(&found.summary.code),
        if top_patches.kept == 0 {
            "; there was no memory for top-activating patches"
        } else {
            ", with its top-activating patches, each from another image"
        }
    );
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
            "neighbours in an atom",
            found.moran().map_or("–".to_owned(), |[_, _, median, ..]| format!("I = {median:.2}")),
        ),
        ("parameters", found.summary.parameters.to_string()),
    ]);
    body += &description_list(&numbers);
    body += "<div class=charts>\n";
    body += &page::image(&chart::charts(&[rates(s)], 1), "histogram of the firing rates of units")?;
    body += &page::image(&chart::charts(&[l0(s)], 1), "histogram of the L0 of images")?;
    body += "</div>\n";
    body += &layers(found);
    if let Some(history) = found.run.history.as_ref().filter(|history| history.length().0 > 0) {
        body += "<h2>Training</h2>\n<div class=charts>\n";
        body += &page::image(&history.picture(found.sums_squares()), "losses during training")?;
        body += "</div>\n";
    }
    body += "<h2>Units</h2>\n<div class=controls hidden>\
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
            body,
            "<div class=\"{class}\" id=u{unit} data-unit={unit} data-rate={rate:e} \
             data-strength={strength:e}>"
        );
        if let Some(sheet) = &atoms {
            body += &sheet.tile(*unit, &format!("atom of unit {unit}"));
        }
        let firing =
            if dead { "never fires".to_owned() } else { format!("fires {}", percent(rate)) };
        let _ = write!(body, "<div><b>#{unit}</b><small>{firing}</small>");
        if !dead {
            let _ = write!(body, "<small>mean {strength:.3}</small>");
        }
        body += "</div>";
        if let Some(sheet) = &sheet
            && !top_patches.units[*unit].is_empty()
        {
            body += "<div class=strip>";
            for patch in &top_patches.units[*unit] {
                body +=
                    &sheet.tile(next_patch, &format!("image {}: {:.3}", patch.image, patch.value));
                next_patch += 1;
            }
            body += "</div>";
        }
        body += "</div>\n";
    }
    body += "</div>\n";
    let sheets: Vec<&Sheet> = atoms.iter().chain(&sheet).collect();
    Ok(page::page(&format!("{name}: {} units", s.units()), &sheets, &body, true))
}
