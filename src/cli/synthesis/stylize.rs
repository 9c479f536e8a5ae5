//! `csae stylize`: style transfer.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    SynthesisArgs, check_distinct, check_files_exist, expand_patterns, read_rgb, result_files, stem,
};
use crate::bail_usage;
use crate::cli::interrupt::{self, Interrupted};
use crate::cli::{CommandArgs, Common};
use crate::data::image_file::{Depth, ImageFile};
use crate::device::Device;
use crate::files;
use crate::model::Store;
use crate::report::picture::Picture;
use crate::shape::{Dims, Size};
use crate::tasks::synthesis::gallery;
use crate::tasks::synthesis::gallery::StyleEntry;
use crate::tasks::synthesis::{Method, Progress};
use crate::tasks::synthesis::{
    StyleOptions, StyledPicture, Synthesizer, brightness, check_style_memory, stylize,
};

/// Give pictures the style of others: the content of one, the colours and strokes of another.
///
/// Each content is combined with each style, as CONTENT.in.STYLE.png; with --mix or --mask, with
/// all of them at once. gallery.html shows all results. By default an autoencoder's codes are
/// whitened and coloured, which is fast. With --optimise, the picture is optimised until its
/// feature statistics match those of the style.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae stylize --content photo.jpg --style wave.jpg
  csae stylize --content a.jpg b.jpg --style wave.jpg night.jpg -o gallery/ --optimise
  csae stylize --content photo.jpg --style wave.jpg night.jpg --mix 0.7,0.3 --keep-color
  csae stylize --content photo.jpg --style wave.jpg night.jpg --mask sky.png ground.png")]
pub struct StylizeArgs {
    /// Pictures that give the content
    #[arg(long, value_name = "IMAGE", required = true, num_args = 1..)]
    content: Vec<PathBuf>,
    /// Pictures that give the style
    #[arg(long, value_name = "IMAGE", required = true, num_args = 1..)]
    style: Vec<PathBuf>,
    /// Mix all styles in each result, with these weights, comma-separated
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', conflicts_with = "mask")]
    mix: Vec<f64>,
    /// One gray image per style: white where the style applies, black where it does not, stretched
    /// to the content's size; elsewhere the content stays
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    mask: Vec<PathBuf>,
    /// Amount of style, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    strength: f64,
    /// Keep the colours of the content
    #[arg(long)]
    keep_color: bool,
    /// Longer side of the result in pixels [default: the content's]
    #[arg(long, value_name = "SIDE")]
    size: Option<usize>,
    /// Size of the style relative to the content; larger values give larger strokes
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    style_scale: f64,
    /// Optimise the picture instead of passing it through autoencoders: slower, but with more of
    /// the style's strokes
    #[arg(long)]
    optimise: bool,
    /// Number of optimisation steps [default: 100]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Folder for the results, or the PNG file of a single result, without gallery.html
    #[arg(short, long, value_name = "PATH", default_value = "styled")]
    out: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) synthesis: SynthesisArgs,
}

/// Default number of optimisation steps.
const STEPS: usize = 100;

/// One result: a content, and the styles of its regions.
struct Job {
    content: usize,
    /// For each region, the weights and indices of its styles. One region without masks, else one
    /// per mask.
    parts: Vec<Vec<(f64, usize)>>,
    name: String,
}

impl StylizeArgs {
    fn method(&self) -> crate::error::Result<Method> {
        if !(0.0..=1.0).contains(&self.strength) {
            bail_usage!("--strength {}: give a number from 0 to 1", self.strength);
        }
        if !(0.1..=10.0).contains(&self.style_scale) {
            bail_usage!("--style-scale {}: give a number from 0.1 to 10", self.style_scale);
        }
        if let Some(size) = self.size.filter(|size| !(32..=1 << 14).contains(size)) {
            bail_usage!("--size {size}: give a side from 32 to {} pixels", 1 << 14);
        }
        Ok(match (self.optimise, self.steps) {
            (_, Some(0)) => bail_usage!("--steps 0: give at least 1"),
            (true, given) => Method::Optimise { steps: given.unwrap_or(STEPS) },
            (false, Some(_)) => bail_usage!("--steps needs --optimise"),
            (false, None) => Method::Quick,
        })
    }

    /// A progress display named `what`: a bar on a terminal, lines in a log.
    fn progress_display(&self, what: String) -> ProgressDisplay {
        let silent = self.synthesis.common.quiet || self.synthesis.common.json;
        let bar = if silent || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let style =
                ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {msg}  {eta} left");
            ProgressBar::new(0)
                .with_style(style.expect("the template is valid"))
                .with_prefix(what.clone())
        };
        let lines = !silent && bar.is_hidden();
        ProgressDisplay { bar, lines, what }
    }

    /// Every content with every style, or with all of them at once.
    fn jobs(&self) -> crate::error::Result<Vec<Job>> {
        let name =
            |content: usize, style: &str| format!("{}.in.{style}", stem(&self.content[content]));
        let mut named = Vec::new();
        let sum: f64 = self.mix.iter().sum();
        if !self.mix.is_empty() {
            if self.mix.len() != self.style.len()
                || self.mix.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
                || sum <= 0.0
            {
                bail_usage!(
                    "--mix needs one weight for each of the {} styles: none negative, at least one \
                     positive",
                    self.style.len()
                );
            }
            let styles: Vec<String> = self.style.iter().map(|style| stem(style)).collect();
            let mix: Vec<(f64, usize)> =
                self.mix.iter().enumerate().map(|(i, weight)| (weight / sum, i)).collect();
            named.extend(
                (0..self.content.len())
                    .map(|content| (content, vec![mix.clone()], name(content, &styles.join("+")))),
            );
        } else if !self.mask.is_empty() {
            if self.mask.len() != self.style.len() {
                bail_usage!(
                    "--mask: {} masks for {} styles; give one mask per style",
                    self.mask.len(),
                    self.style.len()
                );
            }
            let styles: Vec<String> = self.style.iter().map(|style| stem(style)).collect();
            let parts: Vec<_> = (0..self.style.len()).map(|style| vec![(1.0, style)]).collect();
            named.extend(
                (0..self.content.len())
                    .map(|content| (content, parts.clone(), name(content, &styles.join("+")))),
            );
        } else {
            for content in 0..self.content.len() {
                named.extend(self.style.iter().enumerate().map(|(i, style)| {
                    (content, vec![vec![(1.0, i)]], name(content, &stem(style)))
                }));
            }
        }
        check_distinct(&named.iter().map(|(.., name)| name.clone()).collect::<Vec<_>>())?;
        let job = |(content, parts, name): (usize, _, String)| Job { content, parts, name };
        Ok(named.into_iter().map(job).collect())
    }

    /// Checks that there is enough memory for every job, before the first one takes time.
    fn check_memory(
        &self,
        device: &Device,
        synthesizers: &[(Synthesizer, Store)],
        jobs: &[Job],
        styles: &[Picture],
    ) -> crate::error::Result<()> {
        let sizes = (0..self.content.len()).map(|content| self.content_size(content));
        let sizes = sizes.collect::<crate::error::Result<Vec<Size>>>()?;
        // The page of results holds every picture once. The styles are held three times: as read,
        // for the page, and for the job.
        let bytes = |area: usize| (area * 3 * size_of::<f32>()) as u64;
        let page: usize = jobs.iter().map(|job| 2 * sizes[job.content].area()).sum();
        let read: usize = styles.iter().map(|style| 3 * style.dims.size().area()).sum();
        for job in jobs {
            // The results of the regions exist at once.
            let held = bytes(page + read + (job.parts.len() - 1) * sizes[job.content].area());
            for part in &job.parts {
                let of: Vec<Size> =
                    part.iter().map(|(_, style)| styles[*style].dims.size()).collect();
                check_style_memory(
                    device,
                    synthesizers,
                    (sizes[job.content], &of),
                    self.style_scale,
                    self.method()?,
                    held,
                )
                .map_err(|error| error.at(self.content[job.content].display()))?;
            }
        }
        Ok(())
    }

    /// The size of a content in the result.
    fn content_size(&self, content: usize) -> crate::error::Result<Size> {
        let own = ImageFile::read(&self.content[content])?.size();
        Ok(self.size.map_or(own, |longer| scaled(own, longer)))
    }

    /// A content at the requested size, and its transparency.
    fn read_content(&self, content: usize) -> crate::error::Result<(Picture, Option<Vec<f32>>)> {
        let (picture, file) = read_rgb(&self.synthesis.common, &self.content[content])?;
        let alpha = file.alpha();
        let Some(size) = self.size else { return Ok((picture, alpha)) };
        let own = picture.dims.size();
        let to = scaled(own, size);
        let resize = |values: &[f32], c: usize| resized(values, Dims::of(own, c), to);
        Ok((
            Picture { dims: Dims::of(to, 3), pixels: resize(&picture.pixels, 3) },
            alpha.map(|alpha| resize(&alpha, 1)),
        ))
    }
}

/// Shows the progress of one picture.
struct ProgressDisplay {
    bar: ProgressBar,
    lines: bool,
    what: String,
}

impl ProgressDisplay {
    /// Shows the progress. Returns whether to continue.
    fn update(&self, progress: Progress) -> bool {
        let Progress { done, total, loss } = progress;
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if loss.is_finite() {
            self.bar.set_message(format!("loss {loss:.5}"));
            // At most ten lines per picture.
            if self.lines && (10 * done / total > 10 * (done - 1) / total) {
                errln!("{}  step {done}/{total}  loss {loss:.5}", self.what);
            }
        }
        !interrupt::requested()
    }
}

/// A size whose longer side is `longer`.
fn scaled(own: Size, longer: usize) -> Size {
    let by = longer as f64 / own.h.max(own.w) as f64;
    own.map(|side| ((by * side as f64).round() as usize).max(1))
}

/// Resizes values (H,W,C) on the 0–1 scale, with clipping.
fn resized(values: &[f32], from: Dims, to: Size) -> Vec<f32> {
    let mut values = crate::raster::resample::imresize_to(values, from, to);
    values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
    values
}

/// A mask resized to a picture: the share of the style at each pixel.
fn read_mask(common: &Common, path: &std::path::Path, to: Size) -> crate::error::Result<Vec<f32>> {
    let (mask, _) = read_rgb(common, path)?;
    Ok(resized(&brightness(&mask.pixels), Dims { c: 1, ..mask.dims }, to))
}

impl CommandArgs for StylizeArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.synthesis.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(mut args: StylizeArgs) -> anyhow::Result<()> {
    [&mut args.content, &mut args.style, &mut args.mask]
        .into_iter()
        .try_for_each(expand_patterns)?;
    let method = args.method()?;
    let jobs = args.jobs()?;
    [&args.content, &args.style, &args.mask]
        .into_iter()
        .try_for_each(|paths| check_files_exist(paths))?;
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    let (targets, page) = result_files(&args.out, &names, args.synthesis.force)?;
    let styles = args
        .style
        .iter()
        .map(|path| Ok(read_rgb(&args.synthesis.common, path)?.0))
        .collect::<crate::error::Result<Vec<_>>>()?;
    let options = StyleOptions { method, strength: args.strength, keep_color: args.keep_color };
    let (mut device, synthesizers) = args.synthesis.open()?;
    args.check_memory(&device, &synthesizers, &jobs, &styles)?;
    interrupt::watch();
    let named_styles: Vec<(String, Picture)> =
        args.style.iter().map(|path| stem(path)).zip(styles.iter().cloned()).collect();
    let (mut contents, mut shown): (Vec<(String, Picture)>, Vec<StyleEntry>) =
        (Vec::new(), Vec::new());
    for (job, target) in jobs.iter().zip(&targets) {
        let (content, alpha) = args.read_content(job.content)?;
        let size = content.dims.size();
        let start = Instant::now();
        let mut made: Vec<StyledPicture> = Vec::new();
        for part in &job.parts {
            let mix: Vec<(f64, Picture)> =
                part.iter().map(|(weight, style)| (*weight, styles[*style].clone())).collect();
            let display = args.progress_display(job.name.clone());
            let report = |progress| display.update(progress);
            let styled = stylize(
                &mut device,
                &synthesizers,
                &content,
                &mix,
                args.style_scale,
                &options,
                report,
            );
            display.bar.finish_and_clear();
            made.push(match styled {
                Err(_) if interrupt::requested() => {
                    return Err(Interrupted(format!(
                        "stopped; {} was not written",
                        target.display()
                    ))
                    .into());
                }
                styled => styled.map_err(|error| error.at(args.content[job.content].display()))?,
            });
        }
        let mut pixels = if args.mask.is_empty() {
            made[0].picture.pixels.clone()
        } else {
            content.pixels.clone()
        };
        for (mask, styled) in args.mask.iter().zip(&made) {
            let shares = read_mask(&args.synthesis.common, mask, size)?;
            pixels.iter_mut().enumerate().for_each(|(at, v)| {
                *v += shares[at / 3] * (styled.picture.pixels[at] - content.pixels[at])
            });
        }
        let seconds = start.elapsed().as_secs_f64();
        let mut file = ImageFile::from_pixels(&pixels, content.dims, Depth::Eight);
        file.set_alpha(alpha.as_deref());
        files::make_folder(target.parent().unwrap_or(&args.out))?;
        file.save(target)?;
        let mean =
            |of: fn(&StyledPicture) -> f64| made.iter().map(of).sum::<f64>() / made.len() as f64;
        let (distance, before, ssim) =
            (mean(|made| made.distance), mean(|made| made.before), mean(|made| made.ssim));
        let caption = format!(
            "distance to the style {before:.3} → {distance:.3} ({:.0} %), SSIM to the content \
             {ssim:.3}",
            100.0 * distance / before
        );
        if args.synthesis.common.json {
            outln!(
                "{}",
                json!({
                    "kind": "stylize", "file": target.display().to_string(),
                    "width": size.w, "height": size.h, "distance": distance, "before": before,
                    "ssim": ssim, "seconds": seconds
                })
            );
        } else {
            args.synthesis.common.report_written(format_args!(
                "{}  {size}  {caption}  {seconds:.1} s",
                target.display()
            ));
        }
        let name = stem(&args.content[job.content]);
        let style =
            job.name.split_once(".in.").map_or_else(String::new, |(_, style)| style.to_owned());
        shown.push(StyleEntry {
            names: [name.clone(), style],
            picture: Picture { dims: content.dims, pixels },
            caption,
        });
        if contents.iter().all(|(known, _)| *known != name) {
            contents.push((name, content));
        }
        if let Some(page) = &page {
            let mut facts = args.synthesis.facts(&device);
            let method = if args.optimise { "optimisation" } else { "one pass" };
            facts.insert(1, ("method", method.to_owned()));
            let text = gallery::styles(&contents, &named_styles, &shown, &facts)?;
            files::write_atomically(page, text.as_bytes())?;
        }
        if interrupt::requested() {
            return Err(Interrupted(format!("stopped after {}", target.display())).into());
        }
    }
    args.synthesis.common.report_kernels(&mut device);
    Ok(())
}
