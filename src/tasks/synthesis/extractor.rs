//! A model compiled for whole images of one size. It computes the feature statistics of an image,
//! and then either their gradient with respect to the image, or the decoder's output for changed
//! feature maps. Matrices over a layer's channels are small and pass through the host. Maps stay on
//! the device.
//!
//! Everything is expressed as convolutions. The Gram matrix of a map is the weight gradient of a
//! 1×1 convolution of the map with itself, and applying a matrix at every position is such a
//! convolution.

use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::model::{Graph, Store};
use crate::ops::{
    Activation, AddAssign, ChannelSum, Combine, Conv2dBwdWeight, Conv2dFwd, SCALAR_PARTIALS,
    SumSquares, WINDOW,
};
use crate::record::Memory;
use crate::record::{Builder, Mode};
use crate::shape::{Conv2d, Dims, Size, Taps};
use crate::tasks::synthesis::frame::Frame;
use crate::tasks::synthesis::moments::Moments;
use crate::view::{StepParams, View};

/// Distance, in positions of the last layer and along each axis, between the two positions whose
/// products enter the cross-correlations. Without them, stones become blobs and a weave becomes
/// noise (`benches/results/2026-11-28-textures-and-styles.md`).
pub const SHIFT: usize = 3;

/// The window of a layer's correlations: 1×1 (the Gram matrix), or with `shifted` 3×3 with dilation
/// [`SHIFT`], which adds the correlations with the eight positions at that distance.
const fn correlation_window(shifted: bool) -> Taps {
    let (kernel, away) = if shifted { ([3, 3], SHIFT) } else { ([1, 1], 0) };
    Taps {
        kernel,
        stride: [1, 1],
        padding: [away, away],
        dilation: [if shifted { SHIFT } else { 1 }; 2],
    }
}

/// The number of pairs of positions inside the map, for each offset of the window.
fn pair_counts(dims: Dims, taps: Taps) -> Vec<usize> {
    let along =
        |side: usize, offset: usize| side - offset.abs_diff(taps.kernel[0] / 2) * taps.dilation[0];
    (0..taps.kernel[0] * taps.kernel[1])
        .map(|at| along(dims.h, at / taps.kernel[1]) * along(dims.w, at % taps.kernel[1]))
        .collect()
}

/// The content that an image should show: target values for every position of a layer.
#[derive(Clone, Debug)]
pub struct Content {
    /// Target values of the last observed layer.
    pub maps: Vec<f32>,
    /// Weight of the relative squared distance to the target in the objective.
    pub weight: f64,
}

/// What the extractor computes besides the statistics.
#[derive(Clone, Debug)]
pub enum Output {
    /// The gradient with respect to the image, with an optional content term.
    Gradient(Option<Content>),
    /// The decoder's output for an affine map of the code.
    Decoded,
    /// Nothing else.
    Statistics {
        /// Whether to include correlations at a distance, as [`Output::Gradient`] does.
        shifted: bool,
    },
}

/// A layer whose statistics are computed.
#[derive(Clone, Debug)]
struct Tap {
    maps: View,
    size: Conv2d,
    pair_counts: Vec<usize>,
    sums: View,
    products: View,
    matrix: View,
    offset: View,
}

/// A model compiled for one image size.
#[derive(Debug)]
pub struct MapExtractor {
    frame: Frame,
    taps: Vec<Tap>,
    input: View,
    /// The gradient with respect to the input, or the decoded picture.
    result: Option<View>,
    decoded: Dims,
    content: Option<(View, View)>,
    /// Weight of the content, divided by the squared norm of its maps.
    content_scale: f64,
    statistics_program: Program,
    output: Option<Program>,
    memory: Memory,
}

/// The calls and views of an extractor before buffers are allocated.
struct Recorded<'a> {
    b: Builder<'a>,
    input: View,
    taps: Vec<Tap>,
    result: Option<View>,
    content: Option<(View, View)>,
    content_scale: f64,
    /// Number of calls up to and including the statistics.
    statistics_calls: usize,
}

fn record<'a>(
    graph: &'a Graph,
    store: &'a Store,
    layers: &[usize],
    output: &Output,
) -> Result<Recorded<'a>> {
    let mut b = Builder::new(graph, store, 1, Mode::Infer);
    let input = b.input();
    b.forward(input, layers);
    let mut taps = Vec::with_capacity(layers.len());
    for (i, &layer) in layers.iter().enumerate() {
        let (maps, dims, name) =
            (b.value(layer), graph.nodes[layer].dims, &graph.nodes[layer].name);
        let shifted = matches!(output, Output::Gradient(_) | Output::Statistics { shifted: true });
        let window = correlation_window(shifted && i + 1 == layers.len());
        let size = Conv2d::forward(1, dims, dims.c, window, 1)?;
        let (channels, weights) = (dims.c, size.weight_len());
        let mut kept = |what: &str, len: usize| {
            let view = b.tape.real(format!("{what} of {name}"), len);
            b.tape.keep(view);
            view
        };
        let (sums, products) = (kept("sums", channels), kept("products", weights));
        let (matrix, offset) = (kept("matrix", weights), kept("offset", channels));
        let partials =
            b.tape.real("partial products", Conv2dBwdWeight::partials_len(&size, false, false));
        b.tape.push(Conv2dBwdWeight {
            size,
            transposed: false,
            x: maps,
            dy: maps,
            dw: products,
            db: None,
            partials,
        });
        let partials = b.tape.real("partial sums", ChannelSum::partials_len(dims.area(), channels));
        b.tape.push(ChannelSum {
            rows: dims.area(),
            channels,
            x: maps,
            weight: None,
            y: sums,
            partials,
        });
        b.tape.keep(maps);
        taps.push(Tap {
            maps,
            size,
            pair_counts: pair_counts(dims, window),
            sums,
            products,
            matrix,
            offset,
        });
    }
    let (mut content_scale, mut content, mut content_difference) = (0.0, None, None);
    if let Output::Gradient(Some(Content { maps: wanted, weight })) = output {
        let tap = taps.last().expect("at least one layer is observed");
        content_scale =
            weight / wanted.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().max(1e-9);
        let (goal, norm) =
            (b.tape.map("content", tap.maps.len), b.tape.real("distance to the content", 1));
        let difference = b.tape.map("difference to the content", tap.maps.len);
        [goal, norm].into_iter().for_each(|view| b.tape.keep(view));
        b.tape.push(Combine { alpha: 1.0, beta: -1.0, a: tap.maps, b: Some(goal), y: difference });
        let partials =
            b.tape.real("partial norms", tap.maps.len.div_ceil(WINDOW) * SCALAR_PARTIALS);
        b.tape.push(SumSquares {
            scale: 1.0,
            width: 1,
            index: 0,
            window: WINDOW,
            x: difference,
            scalars: norm,
            partials,
        });
        (content, content_difference) = (Some((goal, norm)), Some(difference));
    }
    let statistics_calls = b.tape.calls.len();
    let result = match output {
        Output::Statistics { .. } => None,
        Output::Decoded => {
            let tap = taps.last().expect("the code is observed");
            let changed = b.tape.map("changed maps", tap.maps.len);
            let partials = b.tape.real("partial sums", Conv2dFwd::partials_len(&tap.size));
            b.tape.push(affine(tap, changed, partials));
            Some(b.decode(changed).ok_or_else(|| {
                Error::usage(
    "the decoder also reads layers before the code, so a changed code cannot be decoded; \
     use a model whose decoder reads only the code",
)
            })?)
        }
        Output::Gradient(_) => {
            b.input_gradient = true;
            for (i, (layer, tap)) in layers.iter().zip(&taps).enumerate() {
                let seed = b.tape.map("gradient of the statistics", tap.maps.len);
                let partials = b.tape.real("partial sums", Conv2dFwd::partials_len(&tap.size));
                b.tape.push(affine(tap, seed, partials));
                if let Some(difference) = content_difference.filter(|_| i + 1 == taps.len()) {
                    let pull = b.tape.map("gradient of the content", tap.maps.len);
                    b.tape.push(Combine {
                        alpha: 2.0 * content_scale,
                        beta: 0.0,
                        a: difference,
                        b: None,
                        y: pull,
                    });
                    b.tape.push(AddAssign { x: pull, y: seed });
                }
                b.seed(*layer, seed);
            }
            b.backward();
            Some(b.gradient(0).expect("the gradient with respect to the input was requested"))
        }
    };
    result.into_iter().for_each(|view| b.tape.keep(view));
    Ok(Recorded { b, input, taps, result, content, content_scale, statistics_calls })
}

/// Size in bytes of the buffers that [`MapExtractor::new`] allocates for the same arguments. The
/// store can be a layout.
///
/// # Errors
/// If the decoder needs more than the code.
pub fn planned_bytes(
    (graph, store): (&Graph, &Store),
    layers: &[usize],
    output: &Output,
) -> Result<u64> {
    Ok(record(graph, store, layers, output)?.b.tape.planned_bytes())
}

/// y = matrix·maps + offset, at every position.
const fn affine(tap: &Tap, y: View, partials: View) -> Conv2dFwd {
    Conv2dFwd {
        size: tap.size,
        activation: Activation::Identity,
        penalty: 0.0,
        x: tap.maps,
        w: tap.matrix,
        b: Some(tap.offset),
        gate: None,
        y,
        partials,
    }
}

impl MapExtractor {
    /// Compiles a model for images of the frame's size.
    ///
    /// `graph` is the model at the frame's padded size, with frozen parameters. `layers` are the
    /// observed layers, in order. `reserved` is the number of bytes that other extractors and the
    /// caller use or will use; it counts toward the memory budget.
    ///
    /// # Errors
    /// If a buffer would be larger than the device can bind, if the memory budget is too small, or
    /// if the decoder needs more than the code.
    pub fn new(
        device: &mut Device,
        (graph, store): (&Graph, &Store),
        layers: &[usize],
        frame: Frame,
        output: &Output,
        reserved: u64,
    ) -> Result<Self> {
        let mut recorded = record(graph, store, layers, output)?;
        let Size { h, w } = frame.size();
        let (bytes, (largest, what)) = (recorded.b.tape.planned_bytes(), recorded.b.tape.largest());
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if largest / 4 > device.max_elements() {
            return Err(Error::usage(format!(
                "{w}x{h} pixels: {what} needs {:.0} MiB in one buffer, but the device binds \
                 at most {:.0} MiB; make the picture smaller",
                mib(largest),
                mib(4 * device.max_elements())
            )));
        }
        if let Some(budget) = device.budget().filter(|budget| reserved + bytes > *budget) {
            return Err(Error::usage(format!(
                "{w}x{h} pixels need {:.0} MiB, more than the memory budget of {:.0} MiB; make the \
                 picture smaller, or {}",
                mib(reserved + bytes),
                mib(budget),
                device.memory_advice()
            )));
        }
        let Recorded {
            b,
            mut input,
            mut taps,
            mut result,
            mut content,
            content_scale,
            statistics_calls,
        } = recorded;
        let decoded = if matches!(output, Output::Decoded) {
            graph.nodes[graph.output].dims
        } else {
            graph.nodes[0].dims
        };
        let mut views = vec![&mut input];
        for Tap { maps, sums, products, matrix, offset, .. } in &mut taps {
            views.extend([maps, sums, products, matrix, offset]);
        }
        views.extend(&mut result);
        if let Some((goal, norm)) = &mut content {
            views.extend([goal, norm]);
        }
        let (mut calls, memory) = b.tape.allocate(device, &mut views)?;
        let rest = calls.split_off(statistics_calls);
        let statistics_program = device.compile(calls)?;
        let after = if rest.is_empty() { None } else { Some(device.compile(rest)?) };
        if let (Some((goal, _)), Output::Gradient(Some(wanted))) = (content, output) {
            device.write(goal, &wanted.maps);
        }
        Ok(Self {
            frame,
            taps,
            input,
            result,
            decoded,
            content,
            content_scale,
            statistics_program,
            output: after,
            memory,
        })
    }

    /// Bytes allocated on the device.
    pub const fn bytes(&self) -> u64 {
        self.memory.bytes
    }

    /// Computes the moments of each observed layer for an image (H,W,C), and the weighted relative
    /// squared distance to the content (0 without one).
    ///
    /// # Errors
    /// If the device fails.
    pub fn statistics(&self, device: &mut Device, image: &[f32]) -> Result<(Vec<Moments>, f64)> {
        let c = self.input.len / self.frame.padded().area();
        device.write(self.input, &self.frame.pad(image, c));
        device.run(&self.statistics_program, &StepParams::default())?;
        let moments = self.taps.iter().map(|tap| {
            let (sums, products) = (device.read(tap.sums)?, device.read(tap.products)?);
            Ok(Moments::of_sums(tap.size.x.area(), &sums, &tap.pair_counts, &products))
        });
        let moments = moments.collect::<Result<Vec<_>>>()?;
        let content = match self.content {
            Some((_, norm)) => self.content_scale * f64::from(device.read(norm)?[0]).powi(2),
            None => 0.0,
        };
        Ok((moments, content))
    }

    /// The maps of the last observed layer, for the image passed to [`Self::statistics`] last.
    ///
    /// # Errors
    /// If the device fails.
    pub fn last_maps(&self, device: &mut Device) -> Result<Vec<f32>> {
        device.read(self.taps[self.taps.len() - 1].maps)
    }

    /// The gradient with respect to the image passed to [`Self::statistics`] last. For each layer,
    /// `changes` holds a matrix and an offset: the gradient with respect to the layer's maps is
    /// matrix·maps + offset. The content's gradient is added.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gradient(&self, device: &mut Device, changes: &[(&[f32], &[f32])]) -> Result<Vec<f32>> {
        let gradient = self.run_output(device, changes)?;
        let c = gradient.len() / self.frame.padded().area();
        Ok(self.frame.pad_adjoint(&gradient, c))
    }

    /// Decodes matrix·code + offset, for the image passed to [`Self::statistics`] last, cropped to
    /// the size of the image.
    ///
    /// # Errors
    /// If the device fails.
    pub fn decode(&self, device: &mut Device, matrix: &[f32], offset: &[f32]) -> Result<Vec<f32>> {
        let picture = self.run_output(device, &[(matrix, offset)])?;
        let (decoded, to) = (self.decoded, self.frame.size());
        let start = |padded: usize, decoded: usize| self.frame.padding() - (padded - decoded) / 2;
        let padded = self.frame.padded();
        let (top, left) = (start(padded.h, decoded.h), start(padded.w, decoded.w));
        Ok(crate::raster::crop(&picture, decoded, (top, left), to))
    }

    fn run_output(&self, device: &mut Device, changes: &[(&[f32], &[f32])]) -> Result<Vec<f32>> {
        assert_eq!(changes.len(), self.taps.len(), "one matrix per layer");
        for (tap, (matrix, offset)) in self.taps.iter().zip(changes) {
            device.write(tap.matrix, matrix);
            device.write(tap.offset, offset);
        }
        device.run(
            self.output.as_ref().expect("the extractor computes more than statistics"),
            &StepParams::default(),
        )?;
        device.read(self.result.expect("an output program has a result"))
    }
}
