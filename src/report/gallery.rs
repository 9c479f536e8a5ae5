//! The pictures of a model: originals with reconstructions, filters, atoms, codes.

use std::path::Path;

use crate::data::{Images, Patch, patches};
use crate::device::Device;
use crate::error::Result;
use crate::infer::batches::Inference;
use crate::infer::evaluate::EvaluationReport;
use crate::infer::reconstruct;
use crate::infer::restore::{Code, Restorer};
use crate::infer::whole_images;
use crate::model::{Graph, Node};
use crate::report::picture;
use crate::report::picture::TileGrid;
use crate::report::rendering::{Rendering, Source};
use crate::report::signals;
use crate::report::titled::titled;
use crate::shape::{Dims, Size, to_nhwc};
use crate::spec::{CorruptionSpec, LayerOp};

/// The file names of all pictures that this module writes.
pub const NAMES: [&str; 6] =
    ["restored.png", "codes.png", "reconstructions.png", "whole.png", "filters.png", "atoms.png"];
/// Maximum number of patches in `reconstructions.png`. More patches make each of them smaller.
const PATCHES: usize = 48;
/// Maximum number of atoms in `atoms.png`. More atoms make each of them smaller.
const ATOMS: usize = 64;

/// Writes the pictures that exist for the model into a folder and returns their file names:
///
/// - `reconstructions.png`: patches, each above its reconstruction;
/// - `whole.png`: a whole image beside its reconstruction, if images are larger than the model's
///   input and the model is not a restoration model;
/// - `filters.png`: the filters of the first convolution;
/// - `atoms.png`: the atoms of the most active units, see [`atoms`].
///
/// `channels` are the channels to show, see [`Rendering::fit`].
///
/// # Errors
/// If the device fails or a file cannot be written.
pub fn write(
    folder: &Path,
    device: &mut Device,
    inference: &mut Inference,
    (images, chosen): (&Images, &[Patch]),
    report: &EvaluationReport,
    channels: &[usize],
) -> Result<Vec<&'static str>> {
    let mut written = Vec::new();
    let graph = inference.graph;
    let dims = graph.nodes[0].dims;
    let step = (chosen.len() / PATCHES).max(1);
    let pictured: Vec<Patch> = chosen.iter().step_by(step).take(PATCHES).copied().collect();
    let x = patches::cut(images, &pictured, dims.size());
    let mut scaled = x.clone();
    graph.spec.to_unit(&mut scaled);
    let source = Source::of(&graph.spec, dims, Some(images.encoding.sample));
    let rendering = Rendering::fit(&source, channels, [&scaled[..]]);
    if graph.target == 0 {
        let shown = (&x[..], &scaled[..], chosen.len());
        written.extend(reconstructions(folder, device, inference, images, shown, &rendering)?);
    }
    if let Some(filters) = filters(device, inference, &rendering)? {
        let title = filters_title(graph, &rendering);
        titled(filters.picture(), &title).save(&folder.join("filters.png"))?;
        written.push("filters.png");
    }
    let statistics = &report.statistics;
    let mut order: Vec<usize> =
        (0..statistics.units()).filter(|unit| !statistics.is_dead(*unit)).collect();
    order.sort_by(|a, b| statistics.activity(*b).total_cmp(&statistics.activity(*a)));
    // A unit is set to four times its mean activity, a compromise: the mean includes zeros, so
    // active units are stronger, but far stronger codes do not occur. The minimum keeps the atoms
    // of rarely active units above rounding errors.
    let strength = |unit: &usize| (*unit, 4.0 * statistics.activity(*unit).max(1e-3));
    let units: Vec<(usize, f64)> = order.iter().take(ATOMS).map(strength).collect();
    if let Some(atoms) = atoms(device, inference, &units)? {
        let (shown, all) = (atoms.values.len(), statistics.units());
        let title = atoms_title(shown, all, "most active first", &rendering);
        titled(atoms.tiles(&rendering).picture(), &title).save(&folder.join("atoms.png"))?;
        written.push("atoms.png");
    }
    Ok(written)
}

/// Writes `reconstructions.png` and, if it applies, `whole.png`; see [`write()`]. `x` and `scaled`
/// are the pictured samples in the values of the model and with the range 0…1, of `count`. Returns
/// the file names.
fn reconstructions(
    folder: &Path,
    device: &mut Device,
    inference: &mut Inference,
    images: &Images,
    (x, scaled, count): (&[f32], &[f32], usize),
    rendering: &Rendering,
) -> Result<Vec<&'static str>> {
    let mut written = vec!["reconstructions.png"];
    let spec = &inference.graph.spec;
    let dims = inference.graph.nodes[0].dims;
    let mut y = inference.run(device, x)?.y;
    let path = folder.join("reconstructions.png");
    if let Some(lines) = rendering.lines() {
        let pairs = x.chunks(dims.len()).zip(y.chunks(dims.len()));
        let pairs: Vec<[Vec<f32>; 2]> = pairs.map(|(x, y)| [x.to_vec(), y.to_vec()]).collect();
        signals::reconstructions(&pairs, spec, dims, lines).save(&path)?;
        return Ok(written);
    }
    spec.to_unit(&mut y);
    let tiles =
        |data: &[f32]| data.chunks(dims.len()).map(|one| rendering.tile(one)).collect::<Vec<_>>();
    let (x, y) = (tiles(scaled), tiles(&y));
    let columns = picture::columns_for(x.len(), dims.size()).min(x.len());
    let title = format!(
        "{} of {count} validation samples ({}x{} pixels), each above its reconstruction.",
        x.len(),
        dims.w,
        dims.h
    );
    rendering.titled(picture::pairs(&x, &y, rendering.dims(dims), columns), &title).save(&path)?;
    let size = images.table[0].size;
    if size != dims.size() && inference.degradation.is_none() {
        let mut original = images.image_f32(0);
        let mut whole = reconstruct::image(device, inference, &original, size)?;
        spec.to_unit(&mut original);
        spec.to_unit(&mut whole);
        let pair = [original, whole].map(|mut pixels| {
            pixels.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
            rendering.tile(&pixels)
        });
        let title =
            format!("Left: {}, a validation image. Right: its reconstruction.", images.names[0]);
        let dims = rendering.dims(Dims::of(size, dims.c));
        rendering
            .titled(picture::grid(&pair, dims, 2, 4), &title)
            .save(&folder.join("whole.png"))?;
        written.push("whole.png");
    }
    Ok(written)
}

/// Maximum number of images in `restored.png`.
const RESTORED: usize = 4;
/// Maximum size of an image in `restored.png`. Larger images are cropped and not downscaled, which
/// would hide noise.
const RESTORED_SIZE: Size = Size::new(320, 320);

/// Writes `restored.png` into a folder: a row per image with the corrupted, the restored and the
/// clean image. Of large images it shows the centre. `channels` are the channels to show, see
/// [`Rendering::fit`]. Returns the file name.
///
/// # Errors
/// If the device fails or the file cannot be written.
pub fn restored(
    folder: &Path,
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    corruption: (&CorruptionSpec, u64),
    channels: &[usize],
) -> Result<&'static str> {
    let count = images.len().min(RESTORED);
    let shown = (0..count)
        .map(|i| whole_images::restore_example(device, restorer, images, i, corruption))
        .collect::<Result<Vec<_>>>()?;
    let smallest = shown.iter().map(|shown| shown.size).reduce(Size::at_most);
    let Size { h, w } = smallest.unwrap_or(Size::new(1, 1)).at_most(RESTORED_SIZE);
    // The aspect ratio is limited to 3:2, so that a panorama does not make the picture too wide.
    let size = Size::new(h.min(w * 3 / 2).max(1), w.min(h * 3 / 2).max(1));
    let c = images.channels;
    let centre = |picture: &[f32], from: Size| -> Vec<f32> {
        let start = ((from.h - size.h) / 2, (from.w - size.w) / 2);
        crate::raster::crop(picture, Dims::of(from, c), start, size)
    };
    let mut tiles: Vec<Vec<f32>> = shown
        .iter()
        .flat_map(|shown| shown.pictures.iter().map(|picture| centre(picture, shown.size)))
        .collect();
    let dims = Dims::of(size, c);
    let source = Source { dims, sample: images.encoding.sample, normalization: None };
    let originals = tiles.iter().skip(2).step_by(3).map(Vec::as_slice);
    let rendering = Rendering::fit(&source, channels, originals);
    tiles.iter_mut().for_each(|tile| *tile = rendering.tile(tile));
    let title = "Validation images. Left: degraded. Middle: restored. Right: original.";
    rendering
        .titled(picture::grid(&tiles, rendering.dims(dims), 3, 4), title)
        .save(&folder.join("restored.png"))?;
    Ok("restored.png")
}

/// The title of a picture of filters.
pub fn filters_title(graph: &Graph, rendering: &Rendering) -> String {
    if rendering.lines().is_some() {
        let note = rendering.note();
        return format!("Filters of the first convolution, each scaled on its own. {note}");
    }
    let c = first_filters(graph).map_or(1, |(_, [_, c, ..])| c);
    let how = if rendering.is_chosen() && c == graph.nodes[0].dims.c {
        format!(". {}", rendering.note())
    } else if [1, 3].contains(&c) {
        String::new()
    } else {
        let shown = if c > picture::FILTER_CHANNELS {
            format!("the first {} of {c}", picture::FILTER_CHANNELS)
        } else {
            format!("{c}")
        };
        format!(", with {shown} channels of a filter side by side")
    };
    format!(
        "Filters of the first convolution; middle gray is 0, each filter is scaled on its own{how}"
    )
}

/// The title of a picture of atoms of `shown` units of `all`, in an order.
pub fn atoms_title(shown: usize, all: usize, order: &str, rendering: &Rendering) -> String {
    let shown = if shown < all { format!("{shown} of {all}") } else { all.to_string() };
    let (what, zero) = zero_of(rendering);
    let note = rendering.note();
    let note = if note.is_empty() { note } else { format!(". {note}") };
    format!(
        "Atoms: what {shown} units add to {what}, {order}; {zero} is 0, each atom is scaled on its \
         own{note}"
    )
}

/// What samples are, and what shows 0 in atoms.
pub fn zero_of(rendering: &Rendering) -> (&'static str, &'static str) {
    match rendering.lines() {
        Some(_) => ("a signal", "the gray line"),
        None => ("an image", "middle gray"),
    }
}

/// The parameter of the first convolution, and its K, C, R and S. `None` if there is none.
fn first_filters(graph: &Graph) -> Option<(usize, [usize; 4])> {
    graph.nodes.iter().find_map(|node| {
        let weight = node.weight?;
        let shape = graph.params[weight].shape[..].try_into().ok()?;
        Some((weight, shape))
    })
}

/// The filters of the first convolution. `None` if the model has no convolution.
///
/// # Errors
/// If the device fails.
pub fn filters(
    device: &mut Device,
    inference: &Inference,
    rendering: &Rendering,
) -> Result<Option<TileGrid>> {
    let graph = inference.graph;
    let Some((weight, [k, c, r, s])) = first_filters(graph) else { return Ok(None) };
    let values = inference.store.read_param(device, graph, weight)?;
    let is_rendered = rendering.lines().is_some() || rendering.is_chosen();
    if is_rendered && c == graph.nodes[0].dims.c {
        let dims = Dims::new(c, r, s);
        let filters: Vec<Vec<f32>> =
            values.chunks_exact(dims.len()).map(|filter| to_nhwc(filter, dims)).collect();
        return Ok(Some(rendering.changes(&filters, dims)));
    }
    Ok(Some(picture::filters(&values, k, c, r, s)))
}

/// The atoms of units: what each adds to a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Atoms {
    /// Size of an atom.
    pub dims: Dims,
    /// The atoms (H,W,C), in the scale in which the range of each channel of the data is 0…1.
    pub values: Vec<Vec<f32>>,
}

impl Atoms {
    /// Their pictures.
    pub fn tiles(&self, rendering: &Rendering) -> TileGrid {
        rendering.changes(&self.values, self.dims)
    }

    /// Moran's I of an atom, see [`TileGrid::moran`].
    pub fn moran(&self, atom: usize) -> Option<f64> {
        let tiles = vec![picture::centred(self.values.get(atom)?)];
        TileGrid { dims: self.dims, columns: 1, tiles }.moran(0)
    }
}

/// The dictionary atoms of `units`: the filters of the transposed convolution whose input is the
/// code. `None` if the decoder has no such layer.
fn dictionary(
    device: &mut Device,
    inference: &Inference,
    units: impl ExactSizeIterator<Item = usize>,
) -> Result<Option<Atoms>> {
    let graph = inference.graph;
    let decodes = |node: &&Node| {
        node.inputs == [graph.code] && matches!(node.op, Some(LayerOp::ConvTranspose2d(_)))
    };
    let Some(weight) = graph.nodes.iter().find(decodes).and_then(|node| node.weight) else {
        return Ok(None);
    };
    let [_, c, r, s] = graph.params[weight].shape[..] else {
        unreachable!("a convolution's weight has four axes")
    };
    let dims = Dims::new(c, r, s);
    let all = inference.store.read_param(device, graph, weight)?;
    let values = units.map(|unit| to_nhwc(&all[unit * dims.len()..][..dims.len()], dims));
    Ok(Some(Atoms { dims, values: values.collect() }))
}

/// Maximum number of tiles in `codes.png`: the image and 29 maps. More make each of them smaller.
const MAPS: usize = 30;

/// Writes `codes.png` into a folder: the corrupted image, then the maps of its code by decreasing
/// L1 norm. All maps are on one scale, and 0 is middle gray. Returns the file name, or `None` if
/// the model has no such code.
///
/// # Errors
/// If the device fails or the file cannot be written.
pub fn codes(
    folder: &Path,
    device: &mut Device,
    restorer: &Restorer,
    images: &Images,
    corruption: (&CorruptionSpec, u64),
) -> Result<Option<&'static str>> {
    let posed = whole_images::degrade_image(images, 0, corruption)?;
    let (Size { h, w }, c) = (posed.size, images.channels);
    let Some(Code { values, dims, of: part }) =
        restorer.code(device, Dims::new(c, h, w), &posed.condition, &posed.given)?
    else {
        return Ok(None);
    };
    let scaled = picture::centred(&values);
    let map = |unit: usize| scaled.iter().skip(unit).step_by(dims.c).copied().collect::<Vec<f32>>();
    let sum = |unit: usize| map(unit).iter().map(|v| f64::from((v - 0.5).abs())).sum::<f64>();
    let mut units: Vec<usize> = (0..dims.c).collect();
    units.sort_by(|a, b| sum(*b).total_cmp(&sum(*a)));
    // The first channel of the image, subsampled to the size of the code.
    let [down, across] = [(part.h / dims.h).max(1), (part.w / dims.w).max(1)];
    let pixel = |at: usize| {
        posed.given[((at / dims.w * down).min(h - 1) * w + (at % dims.w * across).min(w - 1)) * c]
    };
    let mut tiles = vec![(0..dims.area()).map(pixel).collect::<Vec<f32>>()];
    tiles.extend(units.into_iter().take(MAPS - 1).map(map));
    let columns = picture::columns_for(tiles.len(), dims.size());
    let title = format!(
        "First: a degraded image. Then the {} maps of its code with the largest sums, of {}; \
         middle gray is 0, all on one scale.",
        tiles.len() - 1,
        dims.c
    );
    titled(picture::grid(&tiles, Dims { c: 1, ..dims }, columns, 4), &title)
        .save(&folder.join("codes.png"))?;
    Ok(Some("codes.png"))
}

/// The atoms of units, given as (unit, strength). An atom is the decoder's output for a code in
/// which only that unit has its strength, minus its output for the zero code.
///
/// In a convolutional code the unit is active at the centre of its map, and the border that no atom
/// reaches is cropped. If the decoder has inputs other than the code, the atoms are read from its
/// dictionary. Returns `None` without units, if the decoder has no dictionary, or if the output is
/// not an image.
///
/// # Errors
/// If the device fails.
pub fn atoms(
    device: &mut Device,
    inference: &Inference,
    units: &[(usize, f64)],
) -> Result<Option<Atoms>> {
    let graph = inference.graph;
    let no_decoder = graph.code == 0 || graph.code == graph.output;
    if units.is_empty() || no_decoder || !graph.code_reaches_output() {
        return Ok(None);
    }
    let (code, output) = (graph.nodes[graph.code].dims, graph.nodes[graph.output].dims);
    // A decoder can reconstruct a layer or classify, and then has any number of channels.
    if output.area() == 1 || output.c != graph.nodes[0].dims.c {
        return Ok(None);
    }
    let mut atoms: Vec<Vec<f32>> = Vec::new();
    // The first code of each batch is zero.
    for part in units.chunks((inference.batch(device) - 1).max(1)) {
        let mut codes = vec![0.0; (part.len() + 1) * code.len()];
        for (i, (unit, strength)) in part.iter().enumerate() {
            codes[(i + 1) * code.len() + code.offset(*unit, code.h / 2, code.w / 2)] =
                *strength as f32;
        }
        let Some(images) = inference.decode(device, &codes)? else {
            return dictionary(device, inference, units.iter().map(|(unit, _)| *unit));
        };
        let (zero, images) = images.split_at(output.len());
        atoms.extend(
            images
                .chunks(output.len())
                .map(|image| image.iter().zip(zero).map(|(a, z)| a - z).collect::<Vec<f32>>()),
        );
    }
    if let Some(normalization) = graph.spec.normalization.as_ref().filter(|_| graph.target == 0) {
        for atom in &mut atoms {
            normalization.change_to_unit(atom);
        }
    }
    let (values, dims) =
        if code.area() > 1 { crop_to_support(&atoms, output) } else { (atoms, output) };
    Ok(Some(Atoms { dims, values }))
}

/// Crops pictures (H,W,C) to the smallest common rectangle that contains every pixel above 0.1 % of
/// the maximum of its picture. Returns the parts and their size.
fn crop_to_support(pictures: &[Vec<f32>], dims: Dims) -> (Vec<Vec<f32>>, Dims) {
    let (mut top, mut bottom, mut left, mut right) = (dims.h, 0, dims.w, 0);
    for picture in pictures {
        let max = picture.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
        for (at, pixel) in picture.chunks(dims.c).enumerate() {
            if pixel.iter().any(|v| v.abs() > 1e-3 * max) {
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
    fn the_border_that_no_atom_reaches_is_cropped() {
        let dims = Dims::new(2, 3, 4);
        let mut picture = vec![0.0; dims.len()];
        picture[dims.offset(1, 1, 2)] = -2.0;
        picture[dims.offset(0, 2, 1)] = 1e-4; // negligible beside 2
        assert_eq!(
            crop_to_support(&[picture.clone()], dims),
            (vec![vec![0.0, -2.0]], Dims::new(2, 1, 1))
        );
        picture[dims.offset(0, 2, 1)] = 0.5;
        let (cut, size) = crop_to_support(&[picture, vec![0.0; dims.len()]], dims);
        assert_eq!(
            (size, &cut[0]),
            (Dims::new(2, 2, 2), &vec![0.0, 0.0, 0.0, -2.0, 0.5, 0.0, 0.0, 0.0])
        );
        assert_eq!(crop_to_support(&[vec![0.0; 24]], dims).1, dims);
    }
}
