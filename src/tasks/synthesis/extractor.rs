//! A model on the whole of an image: what its maps say on average, and from there either back to
//! the image as a gradient, or on through the decoder with the maps changed. Matrices of a map's
//! channels are small and go through the host; maps stay on the device.
//!
//! All of it is convolutions: the products of maps are the weight gradient of a 1×1 convolution of
//! the maps with themselves, and a matrix applied at every place is such a convolution.

use crate::device::{Device, Program};
use crate::error::{Error, Result};
use crate::model::{Graph, Store};
use crate::ops::{
    Activation, AddAssign, ChannelSum, Combine, Conv2dBwdWeight, Conv2dFwd, SCALAR_PARTIALS,
    SumSquares, WINDOW,
};
use crate::record::Memory;
use crate::record::{Builder, Mode};
use crate::shape::{Conv2d, Dims, Taps};
use crate::tasks::synthesis::frame::Frame;
use crate::tasks::synthesis::moments::Moments;
use crate::view::{StepParams, View};

/// How far places of the last layer lie apart whose products count too, along each side.
pub const APART: usize = 3;

/// A convolution that sees a place and, where `apart`, the eight around it that far away.
const fn window(apart: bool) -> Taps {
    let (kernel, away) = if apart { ([3, 3], APART) } else { ([1, 1], 0) };
    Taps {
        kernel,
        stride: [1, 1],
        padding: [away, away],
        dilation: [if apart { APART } else { 1 }; 2],
    }
}

/// Pairs of places of a map for each offset of a window.
fn pairs(dims: Dims, taps: Taps) -> Vec<usize> {
    let along =
        |side: usize, offset: usize| side - offset.abs_diff(taps.kernel[0] / 2) * taps.dilation[0];
    (0..taps.kernel[0] * taps.kernel[1])
        .map(|at| along(dims.h, at / taps.kernel[1]) * along(dims.w, at % taps.kernel[1]))
        .collect()
}

/// What maps are to be like, place by place: the content of an image.
#[derive(Clone, Debug)]
pub struct Content {
    /// The maps of the last layer looked at.
    pub maps: Vec<f32>,
    /// What their relative squared distance weighs.
    pub weight: f64,
}

/// What comes after the moments.
#[derive(Clone, Debug)]
pub enum Then {
    /// The gradient by the image.
    Gradient(Option<Content>),
    /// The decoder's picture of the maps of the code, changed.
    Decode,
    /// Nothing.
    Stop {
        /// Whether products of places apart count, as they do for the gradient.
        apart: bool,
    },
}

/// A layer that is looked at.
#[derive(Clone, Debug)]
struct Tap {
    maps: View,
    size: Conv2d,
    pairs: Vec<usize>,
    sums: View,
    products: View,
    matrix: View,
    offset: View,
}

/// A model compiled for one size of image.
#[derive(Debug)]
pub struct MapExtractor {
    frame: Frame,
    taps: Vec<Tap>,
    input: View,
    /// The gradient by the input, or the picture.
    result: Option<View>,
    drawn: Dims,
    content: Option<(View, View)>,
    /// Weight of the content, over the squared norm of its maps.
    content_scale: f64,
    look: Program,
    then: Option<Program>,
    memory: Memory,
}

/// What is recorded for a extractor before it has buffers.
struct Recorded<'a> {
    b: Builder<'a>,
    input: View,
    taps: Vec<Tap>,
    result: Option<View>,
    content: Option<(View, View)>,
    content_scale: f64,
    /// Calls up to the moments.
    looking: usize,
}

fn record<'a>(
    graph: &'a Graph,
    store: &'a Store,
    layers: &[usize],
    then: &Then,
) -> Result<Recorded<'a>> {
    let mut b = Builder::new(graph, store, 1, Mode::Infer);
    let input = b.input();
    b.forward(input, layers);
    let mut taps = Vec::with_capacity(layers.len());
    for (i, &layer) in layers.iter().enumerate() {
        let (maps, dims, name) =
            (b.value(layer), graph.nodes[layer].dims, &graph.nodes[layer].name);
        let taps_of = window(
            matches!(then, Then::Gradient(_) | Then::Stop { apart: true }) && i + 1 == layers.len(),
        );
        let size = Conv2d::forward(1, dims, dims.c, taps_of, 1)?;
        let (channels, weights) = (dims.c, size.weight_len());
        let mut kept = |what: &str, len: usize| {
            let view = b.tape.real(format!("{what} of {name}"), len);
            b.tape.keep(view);
            view
        };
        let (sums, products) = (kept("sums", channels), kept("products", weights));
        let (matrix, offset) = (kept("matrix", weights), kept("offset", channels));
        let partials = b.tape.real("partial products", Conv2dBwdWeight::partials_len(&size));
        b.tape.push(Conv2dBwdWeight { size, x: maps, dy: maps, dw: products, partials });
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
        taps.push(Tap { maps, size, pairs: pairs(dims, taps_of), sums, products, matrix, offset });
    }
    let (mut content_scale, mut content, mut apart) = (0.0, None, None);
    if let Then::Gradient(Some(Content { maps: wanted, weight })) = then {
        let tap = taps.last().expect("a layer is looked at");
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
        (content, apart) = (Some((goal, norm)), Some(difference));
    }
    let looking = b.tape.calls.len();
    let result = match then {
        Then::Stop { .. } => None,
        Then::Decode => {
            let tap = taps.last().expect("the code is looked at");
            let changed = b.tape.map("changed maps", tap.maps.len);
            b.tape.push(applied(tap, changed));
            Some(b.decode(changed).ok_or_else(|| {
                Error::usage("the decoder reads layers before the code, not the code alone")
            })?)
        }
        Then::Gradient(_) => {
            b.input_gradient = true;
            for (i, (layer, tap)) in layers.iter().zip(&taps).enumerate() {
                let seed = b.tape.map("gradient of moments", tap.maps.len);
                b.tape.push(applied(tap, seed));
                if let Some(apart) = apart.filter(|_| i + 1 == taps.len()) {
                    let pull = b.tape.map("gradient of content", tap.maps.len);
                    b.tape.push(Combine {
                        alpha: 2.0 * content_scale,
                        beta: 0.0,
                        a: apart,
                        b: None,
                        y: pull,
                    });
                    b.tape.push(AddAssign { x: pull, y: seed });
                }
                b.seed(*layer, seed);
            }
            b.backward();
            Some(b.gradient(0).expect("the first layer's gradient by the image"))
        }
    };
    result.into_iter().for_each(|view| b.tape.keep(view));
    Ok(Recorded { b, input, taps, result, content, content_scale, looking })
}

/// y = matrix·maps + offset, at every place.
const fn applied(tap: &Tap, y: View) -> Conv2dFwd {
    Conv2dFwd {
        size: tap.size,
        activation: Activation::Identity,
        x: tap.maps,
        w: tap.matrix,
        b: Some(tap.offset),
        gate: None,
        y,
    }
}

impl MapExtractor {
    /// For images of the frame's size; `graph` is the model at the frame's padded size, its
    /// parameters frozen, `layers` those that are looked at, in order. `taken` bytes are taken
    /// beside it, or will be.
    ///
    /// # Errors
    /// When it needs more memory than the device allows, with the figures.
    pub fn new(
        device: &mut Device,
        (graph, store): (&Graph, &Store),
        layers: &[usize],
        frame: Frame,
        then: &Then,
        taken: u64,
    ) -> Result<Self> {
        let mut recorded = record(graph, store, layers, then)?;
        let [h, w] = frame.size();
        let (bytes, (largest, what)) = (recorded.b.tape.planned_bytes(), recorded.b.tape.largest());
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if largest / 4 > device.max_elements() {
            return Err(Error::usage(format!(
                "{w}x{h} pixels: {what} would take {:.0} MiB in one buffer, the device binds {:.0}; make the picture smaller",
                mib(largest),
                mib(4 * device.max_elements())
            )));
        }
        if let Some(budget) = device.budget().filter(|budget| taken + bytes > *budget) {
            return Err(Error::usage(format!(
                "{w}x{h} pixels: {:.0} MiB would be taken, more than the {:.0} MiB that may be; make the picture smaller, or raise --max-memory",
                mib(taken + bytes),
                mib(budget)
            )));
        }
        let Recorded { b, mut input, mut taps, mut result, mut content, content_scale, looking } =
            recorded;
        let drawn = if matches!(then, Then::Decode) {
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
        let rest = calls.split_off(looking);
        let look = device.compile(calls)?;
        let after = if rest.is_empty() { None } else { Some(device.compile(rest)?) };
        if let (Some((goal, _)), Then::Gradient(Some(wanted))) = (content, then) {
            device.write(goal, &wanted.maps);
        }
        Ok(Self {
            frame,
            taps,
            input,
            result,
            drawn,
            content,
            content_scale,
            look,
            then: after,
            memory,
        })
    }

    /// Bytes that it has taken on the device.
    pub const fn bytes(&self) -> u64 {
        self.memory.bytes
    }

    /// Looks at an image (H,W,C): the moments of each layer, and the weighted relative squared
    /// distance to the content.
    pub fn look(&self, device: &mut Device, image: &[f32]) -> Result<(Vec<Moments>, f64)> {
        let c = self.input.len / (self.frame.padded()[0] * self.frame.padded()[1]);
        device.write(self.input, &self.frame.fill(image, c));
        device.run(&self.look, &StepParams::default())?;
        let moments = self.taps.iter().map(|tap| {
            let (sums, products) = (device.read(tap.sums)?, device.read(tap.products)?);
            Ok(Moments::of_sums(tap.size.x.area(), &sums, &tap.pairs, &products))
        });
        let moments = moments.collect::<Result<Vec<_>>>()?;
        let content = match self.content {
            Some((_, norm)) => self.content_scale * f64::from(device.read(norm)?[0]).powi(2),
            None => 0.0,
        };
        Ok((moments, content))
    }

    /// The maps of the last layer, of the image looked at last.
    pub fn code(&self, device: &mut Device) -> Result<Vec<f32>> {
        device.read(self.taps[self.taps.len() - 1].maps)
    }

    /// The gradient by the image looked at last, where the gradient by each layer's maps is a
    /// matrix times these and an offset (and what the content asks for).
    pub fn gradient(&self, device: &mut Device, changes: &[(&[f32], &[f32])]) -> Result<Vec<f32>> {
        let gradient = self.go_on(device, changes)?;
        let c = gradient.len() / (self.frame.padded()[0] * self.frame.padded()[1]);
        Ok(self.frame.fold(&gradient, c))
    }

    /// The picture that the decoder makes of the code's maps times a matrix plus an offset, at the
    /// size of the image.
    pub fn decode(&self, device: &mut Device, matrix: &[f32], offset: &[f32]) -> Result<Vec<f32>> {
        let picture = self.go_on(device, &[(matrix, offset)])?;
        let (Dims { c, h, w }, [to_h, to_w]) = (self.drawn, self.frame.size());
        let align = |padded: usize, drawn: usize| (padded - drawn) / 2;
        let [padded_h, padded_w] = self.frame.padded();
        let (top, left) =
            (self.frame.around() - align(padded_h, h), self.frame.around() - align(padded_w, w));
        Ok(crate::raster::crop(&picture, w, c, top..top + to_h, left..left + to_w))
    }

    fn go_on(&self, device: &mut Device, changes: &[(&[f32], &[f32])]) -> Result<Vec<f32>> {
        assert_eq!(changes.len(), self.taps.len(), "a matrix for each layer");
        for (tap, (matrix, offset)) in self.taps.iter().zip(changes) {
            device.write(tap.matrix, matrix);
            device.write(tap.offset, offset);
        }
        device.run(
            self.then.as_ref().expect("the extractor was made for more than moments"),
            &StepParams::default(),
        )?;
        device.read(self.result.expect("likewise"))
    }
}
