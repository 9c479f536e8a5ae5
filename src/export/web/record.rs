//! Records the passes of a model for a page, at the size of a tile.

use super::plan::{Library, Plan};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::tiles::Tiles;
use crate::model::{Graph, LoadedModel, Purpose, Store, TileGeometry, tile_geometry};
use crate::record::{Builder, Mode};
use crate::shape::{Dims, Size};
use crate::view::View;

/// Sides of tiles in pixels. Larger ones waste less on their borders, smaller ones are faster for
/// small images. A page uses those that fit, and for each image the one with the least work.
const TILES: [usize; 3] = [128, 256, 512];
/// Sides of whole images in pixels, the best first.
const WHOLE: [usize; 3] = [256, 128, 64];
/// An image side that is larger than any tile.
const LARGE: usize = 1 << 20;
/// Maximum memory of a pass in bytes: what browsers grant on small GPUs.
const MAX_MEMORY: u64 = 1 << 30;

/// How an image of any size becomes one that a pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is cut into overlapping tiles, whose results are joined.
    Tiles(TileGeometry),
    /// A larger one is shrunk, a smaller one mirrored at its right and lower border.
    Mirrored,
    /// It is resized.
    Resized,
}

/// The sizes of images that a page needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// That of training: programs resize images to it.
    Own,
    /// One that the page chooses.
    One,
    /// Any.
    Any,
}

/// What a page needs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The sizes of images.
    pub sizes: Sizes,
    /// Whether the page also needs the code, and the decoder alone.
    pub code: bool,
}

/// The recorded passes of a model.
#[derive(Debug)]
pub struct Recorded {
    /// The kernels of all passes.
    pub library: Library,
    /// From images to the result, for each size of tiles.
    pub forward: Vec<(Size, Plan)>,
    /// From the code to the result, if that depends on nothing else.
    pub decode: Option<Plan>,
    /// How images get the size of a pass.
    pub fit: Fit,
    /// The graph at the first size.
    pub graph: Graph,
    /// The values of all parameters, then of all states, in memory order.
    pub values: [Vec<f32>; 2],
}

/// How images of any size become those of a pass, and the sizes to try. A page uses all sizes of
/// tiles that fit, and otherwise the first size that does.
fn sizes(graph: &Graph, wanted: Wanted) -> (Fit, Vec<Size>) {
    let own = graph.nodes[0].dims.size();
    let Ok(geometry) = tile_geometry(graph) else { return (Fit::Resized, vec![own]) };
    let TileGeometry { halo, align, whole } = geometry;
    let sides = WHOLE.into_iter().map(|side| side.next_multiple_of(align));
    let sizes = sides.map(|side| Size::new(side, side)).chain([own]).collect();
    match (whole, wanted.sizes) {
        // Units that compete in a whole image have a number for images of the size of training.
        (_, Sizes::Own) | (true, Sizes::One) => (Fit::Resized, vec![own]),
        (true, Sizes::Any) => (Fit::Resized, sizes),
        (false, Sizes::One) => (Fit::Mirrored, sizes),
        (false, Sizes::Any) => {
            let large = Size::new(LARGE, LARGE);
            let size = |side| Tiles::new(large, side, halo, align).ok().map(|tiles| tiles.size());
            let mut sizes: Vec<Size> = TILES.into_iter().filter_map(size).collect();
            sizes.dedup();
            (Fit::Tiles(geometry), sizes)
        }
    }
}

/// Records the passes of a model.
///
/// # Errors
/// When a pass needs more memory than WebGPU guarantees, even for the smallest tiles, or a tensor
/// of the model is missing.
pub fn record(loaded: &LoadedModel, wanted: Wanted) -> Result<Recorded> {
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer)?;
    let values = [device.read(store.weights)?, device.read(store.state)?];
    let (fit, sizes) = sizes(&loaded.graph, wanted);
    let mut library = Library::default();
    let (mut forward, mut first) = (Vec::new(), None);
    for size in sizes {
        let dims = Dims::of(size, loaded.graph.nodes[0].dims.c);
        let Ok(graph) = Graph::new(&loaded.graph.spec, dims) else { continue };
        let pass = Pass { graph: &graph, store: &store, wanted };
        let plan = pass.forward(&mut device, &mut library)?;
        if plan.fits() && plan.bytes() <= MAX_MEMORY {
            forward.push((size, plan));
            first.get_or_insert(graph);
            if !matches!(fit, Fit::Tiles(_)) {
                break;
            }
        }
    }
    let graph = first.ok_or_else(|| {
        Error::usage(
            "a pass over one image needs more memory than WebGPU guarantees in browsers; export \
             the model as an ONNX file",
        )
    })?;
    let pass = Pass { graph: &graph, store: &store, wanted };
    let decode = if wanted.code { pass.decode(&mut device, &mut library)? } else { None };
    Ok(Recorded { library, forward, decode, fit, graph, values })
}

/// A pass to record.
struct Pass<'a> {
    graph: &'a Graph,
    store: &'a Store,
    wanted: Wanted,
}

/// The views of a pass that the host writes or reads, by name.
type Ports = Vec<(&'static str, View)>;

impl Pass<'_> {
    /// A pass without calls, and the mean of the image, if layers read it.
    fn begin(&self) -> (Builder<'_>, Ports) {
        let mut b = Builder::new(self.graph, self.store, 1, Mode::Infer);
        let mut ports = Vec::new();
        if self.graph.input_means().next().is_some() {
            ports.push(("mean", b.give_input_mean()));
        }
        (b, ports)
    }

    /// From an image to the result, and to the code if it is wanted.
    fn forward(&self, device: &mut Device, library: &mut Library) -> Result<Plan> {
        let (mut b, mut ports) = self.begin();
        let x = b.input();
        let code = self.wanted.code.then_some(self.graph.code);
        let results: Vec<usize> = [self.graph.output].into_iter().chain(code).collect();
        b.forward(x, &results);
        ports.extend([("x", x), ("y", b.value(self.graph.output))]);
        ports.extend(code.map(|code| ("z", b.value(code))));
        if self.graph.is_conditioned_on_level() {
            ports.push(("level", b.level()));
        }
        if self.graph.is_conditioned_on_mask() {
            ports.push(("known", b.known()));
        }
        self.plan(b, ports, device, library)
    }

    /// From the code to the result. `None` if that also depends on other layers.
    fn decode(&self, device: &mut Device, library: &mut Library) -> Result<Option<Plan>> {
        let (mut b, mut ports) = self.begin();
        let z = b.tape.map("code", self.graph.nodes[self.graph.code].dims.len());
        let Some(y) = b.decode(z) else { return Ok(None) };
        ports.extend([("z", z), ("y", y)]);
        self.plan(b, ports, device, library).map(Some)
    }

    fn plan(
        &self,
        mut b: Builder,
        mut ports: Ports,
        device: &mut Device,
        library: &mut Library,
    ) -> Result<Plan> {
        ports.iter().for_each(|(_, view)| b.tape.keep(*view));
        let mut views: Vec<&mut View> = ports.iter_mut().map(|(_, view)| view).collect();
        let (calls, memory) = b.tape.allocate(device, &mut views)?;
        library.plan(&calls, self.store, &memory.buffers, &ports)
    }
}
