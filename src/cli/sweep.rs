//! `csae sweep`: reconstruction quality against sparsity.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::interrupt;
use super::members::{self, EachRun, Training};
use super::{CommandArgs, Common};
use crate::error::Error;
use crate::files;
use crate::model::Graph;
use crate::report::chart;
use crate::spec::{Config, Precision, SparsityRule};
use crate::tasks::sweep::{Member, Sweep};
use crate::train::RunFolder;
use crate::train::data::{self, Prepared};

/// Compare sparsity rules: train a model with several rules at several strengths, and compare
/// reconstructions at the same L0.
///
/// Each rule replaces the one on the configuration's code. All models share seed, data and number
/// of steps; each is a run in its own folder. Finished runs are not trained again, and interrupted
/// ones continue. Writes sweep.png (explained variance over L0), sweep.tsv and sweep.jsonl, and the
/// files of `csae compare`: index.html, compare.png and compare.tsv.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae sweep train-images-idx3-ubyte.gz --preset sparse --steps 2000 -o sweeps/fashion
  csae sweep photos/ --rules l1,top_k --lambda 0.1,0.3,1 --k 8,16,32 -o sweeps/photos")]
pub struct SweepArgs {
    /// Images to train on
    data: String,
    /// Folder for the runs and the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Rules, comma-separated: l1, kl, top_k, batch_top_k, spatial_wta, lifetime_wta
    #[arg(
        long,
        value_name = "RULE,…",
        value_delimiter = ',',
        default_value = "l1,top_k,batch_top_k,lifetime_wta"
    )]
    rules: Vec<String>,
    /// Strengths of l1: weight of the penalty, comma-separated [default: 0.1,0.3,1,3]
    #[arg(long, value_name = "L,…", value_delimiter = ',')]
    lambda: Option<Vec<f64>>,
    /// Strengths of top_k and batch_top_k: elements kept per image, comma-separated [default:
    /// 8,16,32,64]
    #[arg(long, value_name = "K,…", value_delimiter = ',')]
    k: Option<Vec<f64>>,
    /// Strengths of lifetime_wta: share of a batch that a unit keeps, comma-separated [default:
    /// 0.05,0.1,0.2,0.4]
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    rate: Option<Vec<f64>>,
    /// Strengths of kl: weight of the penalty, comma-separated [default: 0.03,0.1,0.3,1]
    #[arg(long, value_name = "B,…", value_delimiter = ',')]
    beta: Option<Vec<f64>>,
    /// Configuration to start from
    #[arg(long, value_name = "NAME", default_value = "sparse", conflicts_with = "config")]
    preset: String,
    /// Override a value of the configuration
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    each: EachRun,
    #[command(flatten)]
    common: Common,
}

/// A model to train.
struct Planned {
    rule: SparsityRule,
    strength: f64,
    member: members::Member,
}

impl SweepArgs {
    fn base(&self) -> crate::error::Result<Config> {
        self.each.base(&self.data, &self.preset, &self.set)
    }

    /// The models to train, on the prepared data.
    fn planned(&self, base: &Config, prepared: &Prepared) -> crate::error::Result<Vec<Planned>> {
        let of = [
            ("lambda", &self.lambda, "l1"),
            ("k", &self.k, "top_k"),
            ("rate", &self.rate, "lifetime_wta"),
            ("beta", &self.beta, "kl"),
        ];
        for (flag, _, rule) in of.iter().filter(|(_, strengths, _)| strengths.is_some()) {
            // `ends_with`, because batch_top_k uses --k too
            if !self.rules.iter().any(|name| name.ends_with(rule)) {
                return Err(Error::usage(format!(
                    "--{flag} sets strengths of {rule}, which --rules {} does not contain",
                    self.rules.join(",")
                )));
            }
        }
        let mut all = Vec::new();
        for name in &self.rules {
            let rule: SparsityRule = name.parse().map_err(|error: Error| error.at("--rules"))?;
            let (given, defaults) = match rule {
                SparsityRule::L1 => (&self.lambda, [0.1, 0.3, 1.0, 3.0].as_slice()),
                SparsityRule::Kl => (&self.beta, [0.03, 0.1, 0.3, 1.0].as_slice()),
                SparsityRule::TopK | SparsityRule::BatchTopK => {
                    (&self.k, [8.0, 16.0, 32.0, 64.0].as_slice())
                }
                SparsityRule::LifetimeWta => (&self.rate, [0.05, 0.1, 0.2, 0.4].as_slice()),
                SparsityRule::SpatialWta => (&None, [1.0].as_slice()),
            };
            for &strength in given.as_deref().unwrap_or(defaults) {
                let mut config = rule.apply(base, strength).map_err(|error| error.at("--rules"))?;
                let graph = Graph::new(&config.model, prepared.dims)
                    .map_err(|error| error.at(format!("--rules: {name} {strength}")))?;
                graph.check_autoencoder()?;
                if rule == SparsityRule::SpatialWta && graph.nodes[graph.code].dims.area() == 1 {
                    return Err(Error::usage(
                        "--rules: spatial_wta needs a code of maps, but this code is a vector; \
                         omit it",
                    ));
                }
                config.model = graph.spec;
                let folder = RunFolder::at(&self.out.join(format!("{name}-{strength}")));
                let member = members::Member { config, folder };
                all.push(Planned { rule, strength, member });
            }
        }
        Ok(all)
    }
}

impl CommandArgs for SweepArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        true
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: SweepArgs) -> anyhow::Result<()> {
    super::outputs::check_folder(&args.out)?;
    let mut base = args.base()?;
    let budget = super::budget(args.each.max_memory.as_deref())?;
    let prepared = data::prepare_within(&base, budget)?;
    base.model.normalization.clone_from(&prepared.normalization);
    base.model.spectrogram.clone_from(&prepared.spectrogram);
    let planned = args.planned(&base, &prepared)?;
    for planned in &planned {
        planned.member.check(args.each.force)?;
    }
    args.common.status(&format!("data: {}", prepared.description));
    args.common.report_files(&prepared.report);
    files::make_folder(&args.out)?;
    let half = planned.iter().any(|of| of.member.config.train.precision == Precision::F16);
    let mut device = args.common.open_for(if half { Precision::F16 } else { Precision::F32 })?;
    device.limit_memory(budget.all);
    interrupt::watch();
    let mut sweep = Sweep::default();
    let count = planned.len();
    let training = Training { common: &args.common, budget, force: args.each.force };
    let all: Vec<&members::Member> = planned.iter().map(|planned| &planned.member).collect();
    let title = format!("{count} trainings");
    for (i, planned) in planned.iter().enumerate() {
        let start = Instant::now();
        let report = planned.member.train(&training, &mut device, &prepared);
        let report = report.inspect_err(|_| members::compare_begun(&all, &args.out, &title))?;
        let found = found(planned, &report, start.elapsed().as_secs_f64())?;
        if args.common.json {
            let mut line = serde_json::to_value(&found)?;
            line["kind"] = "member".into();
            outln!("{line}");
        } else {
            outln!("{:>2}/{count}  {}", i + 1, summary_line(&found));
        }
        sweep.members.push(found);
    }
    let lines: String = sweep
        .members
        .iter()
        .map(|member| serde_json::to_string(member).map(|line| line + "\n"))
        .collect::<Result<_, _>>()?;
    files::write_atomically(&args.out.join("sweep.jsonl"), lines.as_bytes())?;
    files::write_atomically(&args.out.join("sweep.tsv"), sweep.table().as_bytes())?;
    chart::charts(&[sweep.chart()], 1).save(&args.out.join("sweep.png"))?;
    print_matched(&args.common, &sweep);
    let (_, page) = members::compare(&all, &args.out, &title)?;
    let written: Vec<&str> =
        ["sweep.png", "sweep.tsv", "sweep.jsonl"].into_iter().chain(page).collect();
    if args.common.json {
        outln!(
            "{}",
            json!({"kind": "files", "folder": args.out.display().to_string(), "files": written})
        );
    } else {
        args.common.report_written(format_args!("{}: {}", args.out.display(), written.join(", ")));
    }
    Ok(())
}

fn found(planned: &Planned, report: &Value, seconds: f64) -> crate::error::Result<Member> {
    let number = |key: &str| {
        let folder = planned.member.folder.path().display();
        report[key].as_f64().ok_or_else(|| {
            Error::failed(format!(
                "{folder}: the log has no {key}; remove the folder to train this model again"
            ))
        })
    };
    Ok(Member {
        rule: planned.rule.name().to_owned(),
        strength: planned.strength,
        l0: number("l0")?,
        sum_squares: number("sum_squares")?,
        psnr: report["psnr"].as_f64(),
        explained_variance: number("explained_variance")?,
        dead_share: number("dead_share")?,
        seconds,
    })
}

fn summary_line(m: &Member) -> String {
    let psnr = m.psnr.map_or(String::new(), |psnr| format!("PSNR {psnr:.2} dB  "));
    format!(
        "{:12} {:>6}  L0 {:7.1}  ‖x − x̂‖² {:8.3}  {psnr}explained variance {:.4}  dead {:.1} %  \
         {:.0} s",
        m.rule,
        m.strength,
        m.l0,
        m.sum_squares,
        m.explained_variance,
        100.0 * m.dead_share,
        m.seconds
    )
}

/// Prints the explained variance of every rule at the L0 values where rules can be compared.
fn print_matched(common: &Common, sweep: &Sweep) {
    let (rules, matched) = (sweep.rules(), sweep.comparable_l0s());
    for l0 in &matched {
        let each: Vec<(&str, Option<f64>)> =
            rules.iter().map(|rule| (*rule, sweep.explained_variance_at(rule, *l0))).collect();
        if common.json {
            let table: serde_json::Map<String, Value> =
                each.iter().map(|(rule, found)| ((*rule).to_owned(), json!(found))).collect();
            outln!("{}", json!({"kind": "matched", "l0": l0, "explained_variance": table}));
        } else {
            if l0 == &matched[0] {
                let heads: Vec<String> = rules.iter().map(|rule| format!("{rule:>12}")).collect();
                outln!("explained variance at the same L0\n{:>8}  {}", "L0", heads.join("  "));
            }
            let cells: Vec<String> = each
                .iter()
                .map(|(_, found)| {
                    found.map_or(format!("{:>12}", "–"), |found| format!("{found:12.4}"))
                })
                .collect();
            outln!("{l0:>8}  {}", cells.join("  "));
        }
    }
}
