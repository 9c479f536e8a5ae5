//! A look at a model as a page: what each unit draws, how often it fires and what excites it.

use std::fmt::Write;

use crate::error::Result;
use crate::infer::top_patches::TopPatches;
use crate::report::chart;
use crate::report::page;
use crate::report::page::{Sheet, escaped};
use crate::tasks::inspect::{Inspection, l0, percent, rates};

/// Sides in pixels at which an atom and a part of an image are shown.
const ATOM: f64 = 96.0;
const PART: f64 = 36.0;

/// Numbers with what they are.
fn facts(facts: &[(&str, String)]) -> String {
    let each: String = facts
        .iter()
        .map(|(what, value)| format!("<div><dt>{what}</dt><dd>{}</dd></div>", escaped(value)))
        .collect();
    format!("<dl>{each}</dl>\n")
}

/// The table of the layers.
fn layers(found: &Inspection) -> String {
    let shape = |[c, h, w]: [usize; 3]| format!("{c}×{h}×{w}");
    let mut rows = String::from(
        "<tr><th>layer<th>operation<th class=n>output<th class=n>parameters<th class=n>multiply-adds</tr>\n",
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

/// The page of a look at images.
///
/// # Errors
/// When there are too many units for a picture.
pub fn write(found: &Inspection, name: &str, top_patches: &TopPatches) -> Result<String> {
    let Some(report) = &found.report else { unreachable!("a page is of a look at images") };
    let s = &report.statistics;
    let order = s.by_rate();
    let drawn = match &found.atoms {
        Some(tiles) => Sheet::new("atom", &tiles.tiles, [tiles.h, tiles.w, tiles.c], ATOM)?,
        None => None,
    };
    // in the order of the cards, so that a card's parts follow one another
    let channels = top_patches
        .units
        .iter()
        .flatten()
        .next()
        .map_or(1, |part| part.pixels.len() / (top_patches.size.0 * top_patches.size.1).max(1));
    let c = if channels >= 3 { 3 } else { 1 };
    let visible = |pixels: &[u8]| -> Vec<f32> {
        pixels
            .chunks_exact(channels)
            .flat_map(|pixel| pixel[..c].iter().map(|byte| f32::from(*byte) / 255.0))
            .collect()
    };
    let parts: Vec<Vec<f32>> = order
        .iter()
        .flat_map(|unit| &top_patches.units[*unit])
        .map(|part| visible(&part.pixels))
        .collect();
    let sheet = Sheet::new("part", &parts, [top_patches.size.0, top_patches.size.1, c], PART)?;

    let mut body = format!("<h1>{}</h1>\n", escaped(name));
    let _ = writeln!(
        body,
        "<p class=note>The code of {} images: {} units of layer {}. A unit's picture is what it draws alone{}.</p>",
        report.images,
        s.units(),
        escaped(&found.summary.code),
        if top_patches.kept == 0 {
            "; for parts of images there was no memory"
        } else {
            "; beside it what excites it most, from different images"
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
    body += &facts(&numbers);
    body += "<div class=charts>\n";
    body += &page::image(&chart::charts(&[rates(s)], 1), "histogram of the units' firing rates")?;
    body += &page::image(&chart::charts(&[l0(s)], 1), "histogram of the images' L0")?;
    body += "</div>\n";
    body += &layers(found);
    if let Some(history) = found.run.history.as_ref().filter(|history| history.length().0 > 0) {
        body += "<h2>Training</h2>\n<div class=charts>\n";
        body += &page::image(&history.picture(found.sums_squares()), "losses over the training")?;
        body += "</div>\n";
    }
    body += "<h2>Units</h2>\n<div class=controls hidden>\
             <label>sorted by <select id=order><option value=rate>firing rate<option value=strength>mean where active<option value=unit>number</select></label>\
             <label><input type=checkbox id=dead checked> dead units</label>\
             <label>unit <input id=find size=6 inputmode=numeric></label></div>\n<div class=units>\n";
    let mut part = 0;
    for unit in &order {
        let (rate, strength, dead) = (s.rate(*unit), s.strength(*unit), s.is_dead(*unit));
        let class = if dead { "unit dead" } else { "unit" };
        let _ = write!(
            body,
            "<div class=\"{class}\" id=u{unit} data-unit={unit} data-rate={rate:e} data-strength={strength:e}>"
        );
        if let Some(sheet) = &drawn {
            body += &sheet.tile(*unit, &format!("what unit {unit} draws"));
        }
        let told = if dead { "never fires".to_owned() } else { format!("fires {}", percent(rate)) };
        let _ = write!(body, "<div><b>#{unit}</b><small>{told}</small>");
        if !dead {
            let _ = write!(body, "<small>mean {strength:.3}</small>");
        }
        body += "</div>";
        if let Some(sheet) = &sheet
            && !top_patches.units[*unit].is_empty()
        {
            body += "<div class=strip>";
            for exciter in &top_patches.units[*unit] {
                body +=
                    &sheet.tile(part, &format!("image {}: {:.3}", exciter.image, exciter.value));
                part += 1;
            }
            body += "</div>";
        }
        body += "</div>\n";
    }
    body += "</div>\n";
    let sheets: Vec<&Sheet> = drawn.iter().chain(&sheet).collect();
    Ok(page::page(&format!("{name}: {} units", s.units()), &sheets, &body, true))
}
