//! The pictures of a model: originals beside reconstructions, filters, atoms.

use std::path::Path;

use super::evaluate::Report;
use super::infer::Inference;
use super::{picture, reconstruct};
use crate::data::{Images, Patch, patches};
use crate::device::Device;
use crate::error::Result;

/// Every picture that [`write`] may make.
pub const NAMES: [&str; 4] = ["reconstructions.png", "whole.png", "filters.png", "atoms.png"];
/// Pairs shown.
const SHOWN: usize = 48;
/// Atoms shown.
const ATOMS: usize = 64;

/// Writes `reconstructions.png` (patches above what is drawn from their codes), `whole.png` (a whole image beside its reconstruction, where images are
/// larger than the model's input), `filters.png` and `atoms.png` into a folder, as far as the model has them; returns their names.
pub fn write(
    folder: &Path,
    device: &mut Device,
    inference: &mut Inference,
    images: &Images,
    chosen: &[Patch],
    report: &Report,
) -> Result<Vec<&'static str>> {
    let mut written = vec!["reconstructions.png"];
    let graph = inference.graph;
    let dims = graph.nodes[0].dims;
    let step = (chosen.len() / SHOWN).max(1);
    let shown: Vec<Patch> = chosen.iter().step_by(step).take(SHOWN).copied().collect();
    let x = patches::cut(images, &shown, dims.h, dims.w);
    let y = inference.run(device, &x)?.y;
    let tiles = |data: &[f32]| data.chunks(dims.len()).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let columns = picture::columns_for(shown.len(), dims.h, dims.w).min(shown.len());
    picture::pairs(&tiles(&x), &tiles(&y), dims.h, dims.w, dims.c, columns).save(&folder.join("reconstructions.png"))?;
    let (h, w) = (images.table[0].h, images.table[0].w);
    if (h, w) != (dims.h, dims.w) {
        let original = images.image_f32(0);
        let mut drawn = reconstruct::image(device, inference, &original, h, w)?;
        drawn.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
        picture::grid(&[original, drawn], h, w, dims.c, 2, 4).save(&folder.join("whole.png"))?;
        written.push("whole.png");
    }
    let first = graph.nodes.iter().find_map(|node| node.weight.filter(|w| graph.params[*w].shape.len() == 4));
    if let Some(weight) = first {
        let [k, c, r, s] = graph.params[weight].shape[..] else { unreachable!("four axes were asked for") };
        let values = inference.store.read_param(device, graph, weight)?;
        picture::filters(&values, k, c, r, s).picture().save(&folder.join("filters.png"))?;
        written.push("filters.png");
    }
    if let Some(atoms) = atoms(device, inference, report)? {
        picture::atoms(&atoms, dims.h, dims.w, dims.c).picture().save(&folder.join("atoms.png"))?;
        written.push("atoms.png");
    }
    Ok(written)
}

/// What the most active units draw: the decoder's answer to one unit at a typical strength, less its answer to the empty code. A map's unit is
/// lit at its centre.
fn atoms(device: &mut Device, inference: &Inference, report: &Report) -> Result<Option<Vec<Vec<f32>>>> {
    let graph = inference.graph;
    let dims = graph.nodes[graph.code].dims;
    let mut order: Vec<usize> = (0..dims.c).filter(|unit| report.activity[*unit] > 0.0).collect();
    order.sort_by(|a, b| report.activity[*b].total_cmp(&report.activity[*a]));
    order.truncate(ATOMS);
    if order.is_empty() {
        return Ok(None);
    }
    let mut codes = vec![0.0; (order.len() + 1) * dims.len()];
    for (i, unit) in order.iter().enumerate() {
        let strength = 4.0 * report.activity[*unit].max(1e-3);
        codes[(i + 1) * dims.len() + dims.offset(*unit, dims.h / 2, dims.w / 2)] = strength as f32;
    }
    let Some(images) = inference.decode(device, &codes)? else { return Ok(None) };
    let size = graph.nodes[graph.output].dims.len();
    let (empty, lit) = images.split_at(size);
    Ok(Some(lit.chunks(size).map(|atom| atom.iter().zip(empty).map(|(a, e)| a - e).collect()).collect()))
}
