//! The pictures of a model: originals beside reconstructions, filters, atoms.

use std::path::Path;

use crate::data::{Images, Patch, patches};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::infer::evaluate::EvaluationReport;
use crate::infer::reconstruct;
use crate::infer::restore::{Code, Restorer};
use crate::infer::whole_images;
use crate::model::Node;
use crate::report::picture;
use crate::report::picture::Tiles;
use crate::shape::Dims;
use crate::spec::{CorruptionSpec, LayerOp};

/// Every picture that may be made.
pub const NAMES: [&str; 6] =
    ["restored.png", "codes.png", "reconstructions.png", "whole.png", "filters.png", "atoms.png"];
/// Pairs shown.
const SHOWN: usize = 48;
/// Atoms shown.
const ATOMS: usize = 64;

/// Writes `reconstructions.png` (patches above what is drawn from their codes), `whole.png` (a
/// whole image beside its reconstruction, where images are larger than the model's input, and not
/// restored), `filters.png` and `atoms.png` into a folder, as far as the model has them; returns
/// their names.
pub fn write(
    folder: &Path,
    device: &mut Device,
    inference: &mut Inference,
    images: &Images,
    chosen: &[Patch],
    report: &EvaluationReport,
) -> Result<Vec<&'static str>> {
    let mut written = Vec::new();
    let graph = inference.graph;
    if graph.target == 0 {
        written.extend(reconstructions(folder, device, inference, images, chosen)?);
    }
    if let Some(filters) = filters(device, inference)? {
        filters.picture().save(&folder.join("filters.png"))?;
        written.push("filters.png");
    }
    let statistics = &report.statistics;
    let mut order: Vec<usize> =
        (0..statistics.units()).filter(|unit| !statistics.is_dead(*unit)).collect();
    order.sort_by(|a, b| statistics.activity(*b).total_cmp(&statistics.activity(*a)));
    let lit = |unit: &usize| (*unit, 4.0 * statistics.activity(*unit).max(1e-3));
    let lit: Vec<(usize, f64)> = order.iter().take(ATOMS).map(lit).collect();
    if let Some(atoms) = atoms(device, inference, &lit)? {
        atoms.picture().save(&folder.join("atoms.png"))?;
        written.push("atoms.png");
    }
    Ok(written)
}

/// Patches above what is drawn from their codes, and a whole image beside its reconstruction where
/// images are larger; the names of both.
fn reconstructions(
    folder: &Path,
    device: &mut Device,
    inference: &mut Inference,
    images: &Images,
    chosen: &[Patch],
) -> Result<Vec<&'static str>> {
    let mut written = vec!["reconstructions.png"];
    let dims = inference.graph.nodes[0].dims;
    let step = (chosen.len() / SHOWN).max(1);
    let shown: Vec<Patch> = chosen.iter().step_by(step).take(SHOWN).copied().collect();
    let x = patches::cut(images, &shown, dims.h, dims.w);
    let y = inference.run(device, &x)?.y;
    let tiles = |data: &[f32]| data.chunks(dims.len()).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let columns = picture::columns_for(shown.len(), dims.h, dims.w).min(shown.len());
    picture::pairs(&tiles(&x), &tiles(&y), dims.h, dims.w, dims.c, columns)
        .save(&folder.join("reconstructions.png"))?;
    let (h, w) = (images.table[0].h, images.table[0].w);
    if (h, w) != (dims.h, dims.w) && inference.degradation.is_none() {
        let original = images.image_f32(0);
        let mut drawn = reconstruct::image(device, inference, &original, h, w)?;
        drawn.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        picture::grid(&[original, drawn], h, w, dims.c, 2, 4).save(&folder.join("whole.png"))?;
        written.push("whole.png");
    }
    Ok(written)
}

/// Images shown in `restored.png`.
const RESTORED: usize = 4;
/// Their largest side there.
const RESTORED_SIDE: usize = 320;

/// Writes `restored.png` into a folder: images as given, restored and clean, their middles where
/// they are large; returns its name.
///
/// # Errors
/// When the device fails, or the file cannot be written.
pub fn restored(
    folder: &Path,
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    corruption: (&CorruptionSpec, u64),
) -> Result<&'static str> {
    let count = images.len().min(RESTORED);
    let shown = (0..count)
        .map(|i| whole_images::restore_example(device, restorer, images, i, corruption))
        .collect::<Result<Vec<_>>>()?;
    let side = |of: fn(&whole_images::RestoredExample) -> usize| {
        shown.iter().map(of).min().unwrap_or(1).min(RESTORED_SIDE)
    };
    let (h, w, c) = (side(|shown| shown.size.0), side(|shown| shown.size.1), images.channels);
    // Not too far from square.
    let (h, w) = (h.min(w * 3 / 2).max(1), w.min(h * 3 / 2).max(1));
    let middle = |picture: &[f32], (from_h, from_w): (usize, usize)| -> Vec<f32> {
        let (top, left) = ((from_h - h) / 2, (from_w - w) / 2);
        crate::raster::crop(picture, from_w, c, top..top + h, left..left + w)
    };
    let tiles: Vec<Vec<f32>> = shown
        .iter()
        .flat_map(|shown| shown.pictures.iter().map(|picture| middle(picture, shown.size)))
        .collect();
    picture::grid(&tiles, h, w, c, 3, 4).save(&folder.join("restored.png"))?;
    Ok("restored.png")
}

/// The filters of the first convolution, if the model has one.
pub fn filters(device: &mut Device, inference: &Inference) -> Result<Option<Tiles>> {
    let graph = inference.graph;
    let first = graph
        .nodes
        .iter()
        .find_map(|node| node.weight.filter(|w| graph.params[*w].shape.len() == 4));
    let Some(weight) = first else { return Ok(None) };
    let [k, c, r, s] = graph.params[weight].shape[..] else {
        unreachable!("four axes were asked for")
    };
    let values = inference.store.read_param(device, graph, weight)?;
    Ok(Some(picture::filters(&values, k, c, r, s)))
}

/// The atoms of some units of a decoder that is one transposed convolution of the code, whatever
/// else is added to it.
fn dictionary(
    device: &mut Device,
    inference: &Inference,
    units: impl ExactSizeIterator<Item = usize>,
) -> Result<Option<Tiles>> {
    let graph = inference.graph;
    let draws = |node: &&Node| {
        node.inputs == [graph.code] && matches!(node.op, Some(LayerOp::ConvTranspose2d(_)))
    };
    let Some(weight) = graph.nodes.iter().find(draws).and_then(|node| node.weight) else {
        return Ok(None);
    };
    let [_, c, r, s] = graph.params[weight].shape[..] else {
        unreachable!("a convolution's weight has four axes")
    };
    let (values, k) = (inference.store.read_param(device, graph, weight)?, units.len());
    let chosen: Vec<f32> =
        units.flat_map(|unit| &values[unit * c * r * s..(unit + 1) * c * r * s]).copied().collect();
    Ok(Some(picture::filters(&chosen, k, c, r, s)))
}

/// Maps shown in `codes.png`.
const MAPS: usize = 30;

/// Writes `codes.png` into a folder: an image as given, then the maps of its code, those first
/// whose magnitudes have the largest sum; 0 is middle gray, and all are on one scale. Returns its
/// name, if the model has such a code.
///
/// # Errors
/// When the device fails, or the file cannot be written.
pub fn codes(
    folder: &Path,
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    corruption: (&CorruptionSpec, u64),
) -> Result<Option<&'static str>> {
    let posed = whole_images::degrade_image(images, 0, corruption)?;
    let ((h, w), c) = (posed.size, images.channels);
    let Some(Code { values, dims, of: (part_h, part_w) }) =
        restorer.code(device, [h, w, c], &posed.condition, &posed.given)?
    else {
        return Ok(None);
    };
    let scaled = picture::centred(&values);
    let map = |unit: usize| scaled.iter().skip(unit).step_by(dims.c).copied().collect::<Vec<f32>>();
    let sum = |unit: usize| map(unit).iter().map(|v| f64::from((v - 0.5).abs())).sum::<f64>();
    let mut units: Vec<usize> = (0..dims.c).collect();
    units.sort_by(|a, b| sum(*b).total_cmp(&sum(*a)));
    // The image at the code's size, its first channel.
    let [down, across] = [(part_h / dims.h).max(1), (part_w / dims.w).max(1)];
    let pixel = |at: usize| {
        posed.given[((at / dims.w * down).min(h - 1) * w + (at % dims.w * across).min(w - 1)) * c]
    };
    let mut tiles = vec![(0..dims.area()).map(pixel).collect::<Vec<f32>>()];
    tiles.extend(units.into_iter().take(MAPS - 1).map(map));
    let columns = picture::columns_for(tiles.len(), dims.h, dims.w);
    picture::grid(&tiles, dims.h, dims.w, 1, columns, 4).save(&folder.join("codes.png"))?;
    Ok(Some("codes.png"))
}

/// What units draw: the decoder's answer to one unit at a given strength, less its answer to the
/// empty code. A map's unit is lit at its centre, and what none of them reaches is cut off. A
/// decoder that needs more than the code gives its dictionary instead, if it has one. None without
/// units.
pub fn atoms(
    device: &mut Device,
    inference: &Inference,
    lit: &[(usize, f64)],
) -> Result<Option<Tiles>> {
    let graph = inference.graph;
    if lit.is_empty() || graph.code == 0 || !graph.code_reaches_output() {
        return Ok(None);
    }
    let (code, drawn) = (graph.nodes[graph.code].dims, graph.nodes[graph.output].dims);
    // Maps that are to be like a layer's are no pictures.
    if graph.target > 0 && ![1, 3].contains(&drawn.c) {
        return Ok(None);
    }
    let mut atoms: Vec<Vec<f32>> = Vec::new();
    // one place of each batch is for the empty code
    let all = lit;
    for lit in lit.chunks((inference.batch(device) - 1).max(1)) {
        let mut codes = vec![0.0; (lit.len() + 1) * code.len()];
        for (i, (unit, strength)) in lit.iter().enumerate() {
            codes[(i + 1) * code.len() + code.offset(*unit, code.h / 2, code.w / 2)] =
                *strength as f32;
        }
        let Some(images) = inference.decode(device, &codes)? else {
            return dictionary(device, inference, all.iter().map(|(unit, _)| *unit));
        };
        let (empty, lit) = images.split_at(drawn.len());
        atoms.extend(
            lit.chunks(drawn.len())
                .map(|atom| atom.iter().zip(empty).map(|(a, e)| a - e).collect::<Vec<f32>>()),
        );
    }
    let (atoms, dims) = if code.area() > 1 { reached(&atoms, drawn) } else { (atoms, drawn) };
    Ok(Some(picture::atoms(&atoms, dims.h, dims.w, dims.c)))
}

/// The part of pictures outside of which all of them are next to nothing, and its size.
fn reached(pictures: &[Vec<f32>], dims: Dims) -> (Vec<Vec<f32>>, Dims) {
    let (mut top, mut bottom, mut left, mut right) = (dims.h, 0, dims.w, 0);
    for picture in pictures {
        let most = picture.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        for (at, pixel) in picture.chunks(dims.c).enumerate() {
            if pixel.iter().any(|v| v.abs() > 1e-3 * most) {
                let (y, x) = (at / dims.w, at % dims.w);
                (top, bottom, left, right) =
                    (top.min(y), bottom.max(y + 1), left.min(x), right.max(x + 1));
            }
        }
    }
    if top >= bottom {
        return (pictures.to_vec(), dims);
    }
    let row = |y: usize| (y * dims.w + left) * dims.c..(y * dims.w + right) * dims.c;
    let cut = |picture: &Vec<f32>| (top..bottom).flat_map(|y| &picture[row(y)]).copied().collect();
    (pictures.iter().map(cut).collect(), Dims::new(dims.c, bottom - top, right - left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_atom_reaches_is_cut_off() {
        let dims = Dims::new(2, 3, 4);
        let mut picture = vec![0.0; dims.len()];
        picture[dims.offset(1, 1, 2)] = -2.0;
        picture[dims.offset(0, 2, 1)] = 1e-4; // next to nothing beside 2
        assert_eq!(reached(&[picture.clone()], dims), (vec![vec![0.0, -2.0]], Dims::new(2, 1, 1)));
        picture[dims.offset(0, 2, 1)] = 0.5;
        let (cut, size) = reached(&[picture, vec![0.0; dims.len()]], dims);
        assert_eq!(
            (size, &cut[0]),
            (Dims::new(2, 2, 2), &vec![0.0, 0.0, 0.0, -2.0, 0.5, 0.0, 0.0, 0.0])
        );
        assert_eq!(reached(&[vec![0.0; 24]], dims).1, dims);
    }
}
