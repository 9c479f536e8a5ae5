//! What a restorer is conditioned on, as inputs of the graph or as constants.

use super::colour::{self, Colour};
use super::graph::Name;
use super::layers::{Layers, Level};
use super::proto::{Axis, Port};
use super::{BATCH, Options, Sigma, fill, sizes};
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::infer::conditions::{Strength, WEAK_NOISE};
use crate::infer::planes::Planes;
use crate::model::{CorruptionSpec, Graph, LayerOp, Task};

/// What a part of a model is conditioned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The corruption level.
    pub level: bool,
    /// The mask of missing pixels.
    pub mask: bool,
    /// What the level is: the scale of an enlarged image, or else the noise.
    pub is_scale: bool,
    /// Whether the level is that of JPEG compression.
    pub is_jpeg: bool,
    /// Whether the result is a restored image.
    pub restores: bool,
}

impl Conditions {
    /// The conditions of the layers in `nodes`. `restores` says whether they are a whole restorer.
    ///
    /// # Errors
    /// When an option sets a condition that these layers do not have.
    pub fn of(graph: &Graph, nodes: &[usize], restores: bool, options: &Options) -> Result<Self> {
        let task = graph.spec.undoes.task();
        let is_known = |node: &usize| matches!(graph.nodes[*node].op, Some(LayerOp::Known(_)));
        let found = Self {
            level: nodes.iter().any(|node| graph.nodes[*node].slope.is_some()),
            mask: nodes.iter().any(is_known) || restores && task == Some(Task::Inpaint),
            is_scale: task == Some(Task::Upscale),
            is_jpeg: task == Some(Task::Dejpeg),
            restores,
        };
        if options.sigma.is_some() && (!found.level || found.is_scale || found.is_jpeg) {
            return Err(Error::usage(format!(
                "sigma = {}: this part of the model is not conditioned on a noise level; leave \
                 sigma out",
                options.sigma.map_or_else(String::new, |sigma| sigma.to_string())
            )));
        }
        let channels = graph.nodes[0].dims.c;
        if options.rgb && (!restores || channels != 1) {
            return Err(Error::usage(
                "rgb: only a whole model that restores gray images can take colour images; leave \
                 it out",
            ));
        }
        if let Some(scale) = options.scale {
            if !restores || !found.is_scale {
                return Err(Error::usage(format!(
                    "scale = {scale}: only a whole model that enlarges images takes a scale; \
                     leave it out, or {} {}",
                    Advice::TrainForTask,
                    Task::Upscale
                )));
            }
            let scales = &graph.spec.undoes.scales;
            if !scales.contains(&scale) {
                let known: Vec<String> = scales.iter().map(usize::to_string).collect();
                return Err(Error::usage(format!(
                    "scale = {scale}: the model was trained for {}; use one of these scales",
                    known.join(", ")
                )));
            }
        }
        Ok(found)
    }
}

/// The input of the graph as the layers see it, and what is left to do with their output.
#[derive(Debug)]
pub struct Restoration {
    /// The images of the model's channels, of the size of the result.
    pub images: Name,
    /// The same with a guess for missing pixels.
    pub filled: Name,
    colour: Colour,
    /// Share of the noisy image in the result of a denoiser, if it is not always 0.
    kept: Option<Name>,
    /// Whether a pixel is missing, for a model that fills missing pixels.
    missing: Option<Name>,
}

impl Restoration {
    /// Adds the inputs for the conditions of the layers. `input` is that of the graph.
    pub fn begin(
        layers: &mut Layers,
        input: &str,
        conditions: Conditions,
        options: &Options,
        [height, width]: [Axis; 2],
    ) -> Self {
        layers.out.enter("condition");
        let graph = layers.graph;
        let planes =
            Planes::of(&graph.spec, graph.nodes[0].dims.c, images_channels(graph, options))
                .expect("`Conditions::of` checks the channels");
        let mut all = Self {
            images: input.to_owned(),
            filled: String::new(),
            colour: Colour::new(planes),
            kept: None,
            missing: None,
        };
        if conditions.level {
            all.level(layers, conditions, options);
        }
        if let Some(scale) = options.scale {
            layers.level = Level::Fixed(CorruptionSpec::level_of_scale(scale));
            all.images = sizes::enlarge(&mut layers.out, input, scale);
        }
        all.images = all.colour.begin(&mut layers.out, &all.images);
        all.filled.clone_from(&all.images);
        if conditions.mask {
            let mask = layers.out.input(Port {
                name: "mask",
                shape: vec![Axis::Named(BATCH), Axis::Fixed(1), height, width],
                about: "1 at missing pixels, 0 at known ones".to_owned(),
            });
            let mask = all.colour.for_samples(&mut layers.out, mask);
            let half = layers.out.scalar(0.5);
            let missing = layers.out.add("Greater", &[&mask, &half], Vec::new());
            let known = layers.out.add("Not", &[&missing], Vec::new());
            layers.known = Some(fill::numbers(&mut layers.out, &known));
            all.filled = fill::fill(&mut layers.out, &all.images, &missing);
            all.missing = conditions.restores.then_some(missing);
        }
        all
    }

    /// Sets the corruption level of the layers.
    fn level(&mut self, layers: &mut Layers, conditions: Conditions, options: &Options) {
        let per_sample = |name, about: &str| Port {
            name,
            shape: vec![Axis::Named(BATCH)],
            about: about.to_owned(),
        };
        let out = &mut layers.out;
        if conditions.is_scale {
            // `options.scale` replaces it by a constant.
            if options.scale.is_none() {
                let about = "factor by which the image was enlarged by bicubic interpolation";
                let scale = out.input(per_sample("scale", about));
                // The level is 0 at scale 1, and grows with the scale.
                let slope = out.scalar(CorruptionSpec::level_of_scale(2) as f32);
                let one = out.scalar(1.0);
                let more = out.add("Sub", &[&scale, &one], Vec::new());
                let level = out.add("Mul", &[&more, &slope], Vec::new());
                let level = fitted(layers, &level);
                layers.level = Level::Value(self.colour.for_samples(&mut layers.out, level));
            }
            return;
        }
        if conditions.is_jpeg {
            let about = "the root of the mean square of JPEG's quantization steps of luma, divided \
                         by the root of 12";
            let error = out.input(per_sample("rounding_error", about));
            let white = out.scalar(255.0);
            let level = out.add("Div", &[&error, &white], Vec::new());
            layers.level = Level::Value(fitted(layers, &level));
            return;
        }
        let level = match options.sigma.unwrap_or(Sigma::Input) {
            Sigma::Value(sigma) => {
                let Strength { level, kept } = Strength::noise(sigma);
                layers.level = Level::Fixed(level);
                let keeps = conditions.restores && kept > 0.0;
                self.kept = keeps.then(|| layers.out.scalar(kept as f32));
                return;
            }
            Sigma::Input => {
                let about = "standard deviation of the noise, where white is 255";
                let sigma = out.input(per_sample("sigma", about));
                let white = out.scalar(255.0);
                let level = out.add("Div", &[&sigma, &white], Vec::new());
                fitted(layers, &level)
            }
            Sigma::Channel => {
                let channels = images_channels(layers.graph, options);
                let map = sizes::channels(out, &self.images, channels, channels + 1);
                self.images = sizes::channels(out, &self.images, 0, channels);
                out.add("GlobalAveragePool", &[&map], Vec::new())
            }
        };
        let level = self.colour.for_samples(&mut layers.out, level);
        self.kept = conditions.restores.then(|| kept(layers, &level));
        layers.level = Level::Value(level);
    }

    /// The restored images from the output of the layers.
    pub fn end(&self, layers: &mut Layers, y: Name) -> Name {
        let (out, x) = (&mut layers.out, &self.images);
        let y = match (&self.missing, &self.kept) {
            (Some(missing), _) => out.add("Where", &[missing, &y, x], Vec::new()),
            (None, Some(kept)) => {
                let change = out.add("Sub", &[x, &y], Vec::new());
                let change = out.add("Mul", &[kept, &change], Vec::new());
                out.add("Add", &[&y, &change], Vec::new())
            }
            (None, None) => y,
        };
        self.colour.end(out, y)
    }
}

/// Number of channels of the images that a graph takes, without a channel of the noise level.
pub fn images_channels(graph: &Graph, options: &Options) -> usize {
    if options.rgb { colour::CHANNELS } else { graph.nodes[0].dims.c }
}

/// Values of the samples (N), shaped for maps.
fn fitted(layers: &mut Layers, values: &str) -> Name {
    let axes = layers.out.integers(&[1, 2, 3]);
    layers.out.add("Unsqueeze", &[values, &axes], Vec::new())
}

/// The share of the image that stays, as [`Strength::noise`] defines it, from the noise level.
fn kept(layers: &mut Layers, level: &str) -> Name {
    let [weak, strong] = WEAK_NOISE;
    let out = &mut layers.out;
    let (weak_level, range) =
        (out.scalar((weak / 255.0) as f32), out.scalar(((strong - weak) / 255.0) as f32));
    let (zero, one) = (out.scalar(0.0), out.scalar(1.0));
    let above = out.add("Sub", &[level, &weak_level], Vec::new());
    let removed = out.add("Div", &[&above, &range], Vec::new());
    let removed = out.add("Clip", &[&removed, &zero, &one], Vec::new());
    let square = out.add("Mul", &[&removed, &removed], Vec::new());
    out.add("Sub", &[&one, &square], Vec::new())
}
