//! `csae export`: a model as a file, for other programs or smaller, or as a page for browsers.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::{Value, json};

use super::{CommandArgs, Common};
use crate::bail_usage;
use crate::data::image_file::ImageFile;
use crate::error::Result;
use crate::export::onnx::{self, Options, Part, Sigma};
use crate::export::web;
use crate::files;
use crate::model::{LoadedModel, bundled};

/// The part of a model to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartChoice {
    /// From the samples to the result
    Model,
    /// From the samples to the code
    Encoder,
    /// From the code to the reconstruction
    Decoder,
}

/// Write a model as an ONNX file for other programs, as a page that runs it in a browser, or as a
/// model file.
///
/// The ONNX file takes arrays N×C×H×W of 32-bit floats: samples as they are, since a normalization
/// is a part of it; without one, values from 0 to 1. Height and width are free if the layers allow
/// it. Results are not clipped. The metadata of the file have the task, the range of the input, the
/// labels of classes and the version.
///
/// An autoencoder returns reconstructions, a restorer restored images, and a classifier or
/// segmenter probabilities. A detector returns its raw grid, or boxes with --score. A model that
/// depends on the noise level has an input sigma. One that fills missing pixels has an input mask:
/// 1 at missing pixels, which can hold any values in the images.
///
/// The page (--web) is one HTML file that needs no network and no server. It shows what the model
/// makes of an image: restored images, the units of an autoencoder with sliders, or the classes of
/// an image or of its pixels. It runs in browsers with WebGPU.
///
/// A model file (.safetensors) is that of the run, or with --half one of half the size.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("file").args(["out", "web"]).required(true).multiple(true))]
#[command(after_help = "Examples:
  csae export runs/001 -o model.onnx
  csae export runs/001 -o encoder.onnx --part encoder
  csae export denoise -o denoise-25.onnx --sigma 25
    csae export upscale -o upscale-2.onnx --scale 2
  csae export runs/001 -o small.safetensors --half
  csae export denoise --web denoise.html")]
pub struct ExportArgs {
    /// Model file, run folder, or bundled model: photographs, denoise, inpaint, upscale, dejpeg,
    /// paint-1, paint-2, paint-3
    model: PathBuf,
    /// File to write: .onnx or .safetensors
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Page to write: .html
    #[arg(long, value_name = "FILE")]
    web: Option<PathBuf>,
    /// Part of the model, for -o
    #[arg(long, value_enum, default_value_t = PartChoice::Model, requires = "out")]
    part: PartChoice,
    /// Export the layers up to this one, for -o; its output is the result
    #[arg(long, value_name = "NAME", conflicts_with = "part", requires = "out")]
    layer: Option<String>,
    /// Noise level of a denoiser: a standard deviation where white is 255; input for a second
    /// input; or channel for one more channel of the images, on their scale [default: input]
    #[arg(long, requires = "out", value_name = "S|input|channel", value_parser = parse_sigma)]
    sigma: Option<Sigma>,
    /// Factor by which a model for super-resolution enlarges images: the file then takes small
    /// images [default: it takes enlarged images, and a second input scale]
    #[arg(
        long,
        requires = "out",
        value_name = "N",
        value_parser = clap::value_parser!(u8).range(2..=8)
    )]
    scale: Option<u8>,
    /// Take colour images (Nx3xHxW) for a model that restores gray ones
    #[arg(long, requires = "out")]
    rgb: bool,
    /// Minimum score of the boxes of a detector: the file then returns boxes instead of the grid,
    /// at most 300 of a class, without those that overlap better ones
    #[arg(long, requires = "out", value_name = "S", value_parser = parse_score)]
    score: Option<f64>,
    /// Store the parameters in 16 bits: the file has half the size. Programs still compute with 32
    #[arg(long, requires = "out")]
    half: bool,
    /// Image that the page shows first [default: a bundled picture]
    #[arg(long, value_name = "IMAGE", requires = "web")]
    example: Option<PathBuf>,
    /// Licence of the model, for the metadata [default: that of a bundled model]
    #[arg(long, value_name = "TEXT")]
    licence: Option<String>,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

fn parse_sigma(text: &str) -> std::result::Result<Sigma, String> {
    match text {
        "input" => return Ok(Sigma::Input),
        "channel" => return Ok(Sigma::Channel),
        _ => {}
    }
    let value = text.parse().ok().filter(|sigma| (0.0..=255.0).contains(sigma));
    let wrong = || "give a standard deviation from 0 to 255, input or channel".to_owned();
    value.map(Sigma::Value).ok_or_else(wrong)
}

fn parse_score(text: &str) -> std::result::Result<f64, String> {
    let value = text.parse().ok().filter(|score| (0.0..1.0).contains(score));
    value.ok_or_else(|| "give a score from 0 to below 1".to_owned())
}

impl CommandArgs for ExportArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        Ok(run(self)?)
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(ending))
}

/// Checks the name of a file that is to be written.
fn check_name(flag: &str, path: &Path, endings: &[&str], force: bool) -> Result<()> {
    if !endings.iter().any(|ending| has_ending(path, ending)) {
        let endings = endings.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>();
        bail_usage!("{flag} {}: use a name that ends in {}", path.display(), endings.join(" or "));
    }
    super::refuse_existing(path, force)
}

/// Checks that no option asks for what a model file does not hold.
fn check_model_file(args: &ExportArgs) -> Result<()> {
    let given = [
        ("--part", args.part != PartChoice::Model),
        ("--layer", args.layer.is_some()),
        ("--sigma", args.sigma.is_some()),
        ("--scale", args.scale.is_some()),
        ("--rgb", args.rgb),
        ("--score", args.score.is_some()),
        ("--licence", args.licence.is_some() && args.web.is_none()),
    ];
    if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
        bail_usage!("{flag} is for ONNX files; leave it out, or use a name that ends in .onnx");
    }
    Ok(())
}

/// Writes a model file.
fn write_model(args: &ExportArgs, loaded: &LoadedModel, out: &Path) -> Result<()> {
    let bytes = loaded.to_bytes(args.half)?;
    files::write_atomically(out, &bytes)?;
    let (file, parameters) = (out.display(), loaded.graph.parameter_count());
    if args.common.json {
        outln!(
            "{}",
            json!({
                "kind": "export_model", "file": file.to_string(), "parameters": parameters,
                "bits": if args.half { 16 } else { 32 }, "bytes": bytes.len()
            })
        );
        return Ok(());
    }
    args.common.report_written(format_args!(
        "{file}  {parameters} parameters of {} bits, {:.1} MB",
        if args.half { 16 } else { 32 },
        bytes.len() as f64 / 1e6
    ));
    Ok(())
}

fn run(args: ExportArgs) -> Result<()> {
    let endings = ["onnx", "safetensors"];
    args.out.iter().try_for_each(|out| check_name("-o", out, &endings, args.force))?;
    args.web.iter().try_for_each(|page| check_name("--web", page, &["html"], args.force))?;
    let model_file = args.out.as_ref().filter(|out| has_ending(out, "safetensors"));
    if model_file.is_some() {
        check_model_file(&args)?;
    }
    let loaded = args.common.load_model(&args.model)?;
    if args.out.is_some() && model_file.is_none() && loaded.graph.spec.spectrogram.is_some() {
        args.common.status(
            "note: the file takes log-mel spectrograms and does not compute them from recordings; \
             its metadata describe them (spectrogram)",
        );
    }
    // The bundled models have the licences of the program.
    let is_bundled = !args.model.exists() && args.model.to_str().and_then(bundled).is_some();
    let own = || is_bundled.then(|| env!("CARGO_PKG_LICENSE").to_owned());
    let licence = args.licence.clone().or_else(own);
    if let Some(out) = model_file {
        write_model(&args, &loaded, out)?;
    } else if let Some(out) = &args.out {
        write_onnx(&args, &loaded, licence.clone(), out)?;
    }
    args.web.iter().try_for_each(|page| write_page(&args, &loaded, licence.clone(), page))
}

/// Writes a page.
fn write_page(
    args: &ExportArgs,
    loaded: &LoadedModel,
    licence: Option<String>,
    path: &Path,
) -> Result<()> {
    let name = args.model.file_name().unwrap_or(args.model.as_os_str());
    let example = args.example.as_ref().map(|path| ImageFile::read(path)).transpose()?;
    let example = example.map(|image| (image.pixels(), image.dims));
    let options = web::Options { name: name.to_string_lossy().into_owned(), licence, example };
    let page = web::export(loaded, &options).map_err(|error| error.at(args.model.display()))?;
    files::write_atomically(path, page.html.as_bytes())?;
    let (task, bytes) = (page.task.name(), page.html.len());
    if args.common.json {
        let file = path.display().to_string();
        let values = page.values;
        outln!(
            "{}",
            json!({
                "kind": "export_page", "file": file, "task": task, "bytes": bytes, "values": values
            })
        );
        return Ok(());
    }
    args.common.report_written(format_args!(
        "{}  a page to {task}, {:.1} MB; open it in a browser",
        path.display(),
        bytes as f64 / 1e6
    ));
    Ok(())
}

/// Writes an ONNX file.
fn write_onnx(
    args: &ExportArgs,
    loaded: &LoadedModel,
    licence: Option<String>,
    out: &Path,
) -> Result<()> {
    let part = match (&args.layer, args.part) {
        (Some(layer), _) => Part::Layer(layer.clone()),
        (None, PartChoice::Model) => Part::Model,
        (None, PartChoice::Encoder) => Part::Encoder,
        (None, PartChoice::Decoder) => Part::Decoder,
    };
    let options = Options {
        part,
        sigma: args.sigma,
        scale: args.scale.map(usize::from),
        rgb: args.rgb,
        score: args.score,
        half: args.half,
        licence,
    };
    let file = onnx::export(loaded, &options).map_err(|error| error.at(args.model.display()))?;
    files::write_atomically(out, &file.bytes)?;
    if args.common.json {
        let list = |ports: &[[String; 2]]| -> Vec<Value> {
            ports.iter().map(|[name, axes]| json!({"name": name, "axes": axes})).collect()
        };
        outln!(
            "{}",
            json!({
                "kind": "export", "file": out.display().to_string(), "task": file.task,
                "inputs": list(&file.inputs), "outputs": list(&file.outputs),
                "bytes": file.bytes.len()
            })
        );
        return Ok(());
    }
    let list = |ports: &[[String; 2]]| {
        let each = ports.iter().map(|[name, axes]| format!("{name} ({axes})"));
        each.collect::<Vec<_>>().join(", ")
    };
    args.common.report_written(format_args!(
        "{}  {}: {} to {}",
        out.display(),
        file.task,
        list(&file.inputs),
        list(&file.outputs)
    ));
    Ok(())
}
