//! Cases of operations that only this program has. Their answers come from the CPU path in f64.

use super::Direct;
use crate::error::{Error, Result};
use crate::ops::{
    Augment, BicubicDownUp, CountNonzero, Dropout, FillMissing, FiringUpdate, GatherBatch,
    GaussianNoise, IdleOnly, IdleUpdate, KeepKnown, KnownValues, MaxNorm, MissingPixels,
    ProjectGrad, Revive, SCALAR_PARTIALS,
};
use crate::sample_type::SampleType;
use crate::shape::Dims;
use crate::verify::case::{Case, Values};
use crate::verify::prepare::{Prepared, Unpack, batch_of};

/// Operations specific to this program, whose answers come from the CPU path in f64.
pub(super) fn internal(mut d: Direct, case: &Case) -> Result<Prepared> {
    case.check_attributes(&[
        "p", "outer", "atoms", "inner", "max_norm", "patience", "strength", "seed", "step", "dims",
        "crop", "flip_x", "flip_y", "turn", "sample", "low", "high", "kinds", "scales", "exact",
        "missing", "fill",
    ])?;
    if case.op == "gather_batch" {
        return gather(d, case);
    }
    if case.op == "max_norm" {
        let x = case.input("x")?.reals();
        let w = d.output("y", x.len(), Unpack::Plain)?;
        d.prepared.first.push((w, Values::Real(x)));
        let (outer, atoms, inner) =
            (case.count("outer")?, case.count("atoms")?, case.count("inner")?);
        let exact = case.attrs["exact"].as_bool().unwrap_or(false);
        d.push(MaxNorm { outer, atoms, inner, max_norm: case.number("max_norm")?, exact, w });
        return Ok(d.prepared);
    }
    if case.op == "project_grad" {
        let (x, w) = (case.input("x")?.reals(), case.input("w")?.reals());
        let dw = d.output("y", x.len(), Unpack::Plain)?;
        d.prepared.first.push((dw, Values::Real(x)));
        let len = w.len();
        let w = {
            let view = d.real(len)?;
            d.prepared.first.push((view, Values::Real(w)));
            view
        };
        let (outer, atoms, inner) =
            (case.count("outer")?, case.count("atoms")?, case.count("inner")?);
        d.push(ProjectGrad { outer, atoms, inner, w, dw });
        return Ok(d.prepared);
    }
    let (n, dims) = batch_of(case, case.input("x")?)?;
    let x = d.maps(case.input("x")?, dims)?;
    match case.op.as_str() {
        "dropout" => {
            let mask = d.output("mask", n * dims.len(), Unpack::Maps(dims))?;
            let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            d.push(Dropout { p: case.number("p")?, n, dims, layer: 5, x, mask, y });
        }
        "gaussian_noise" => {
            let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            let level = d.output("level", n, Unpack::Plain)?;
            d.push(GaussianNoise {
                n,
                dims,
                low: case.number("low")?,
                high: case.number("high")?,
                x,
                y,
                level,
            });
        }
        "missing_pixels" => {
            let known = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            let shapes = d.words(n * MissingPixels::WORDS)?;
            let kinds = case.count("kinds")? as u32;
            d.push(MissingPixels {
                n,
                dims,
                kinds,
                low: case.number("low")?,
                high: case.number("high")?,
                known,
                shapes,
            });
        }
        "fill_missing" => {
            let known = d.maps(case.input("known")?, dims)?;
            let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            let pyramid = d.real(FillMissing::work(n, dims))?;
            d.push(FillMissing { n, dims, x, known, y, pyramid });
        }
        "known_values" => {
            let known = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            d.push(KnownValues { n, dims, x, known });
        }
        "keep_known" => {
            let known = d.maps(case.input("known")?, dims)?;
            let target = d.maps(case.input("target")?, dims)?;
            let goal = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            d.push(KeepKnown { n, dims, known, target, y: x, goal });
        }
        "bicubic_down_up" => {
            let scales = serde_json::from_value(case.attrs["scales"].clone());
            let scales =
                scales.map_err(|error| Error::usage(format!("{}: scales: {error}", case.id())))?;
            let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
            let level = d.output("level", n, Unpack::Plain)?;
            let half = d.map(y.len)?;
            d.push(BicubicDownUp { n, dims, scales, x, y, level, half });
        }
        "count_nonzero" => {
            let scalars = d.output("y", 1, Unpack::Plain)?;
            let partials = d.real(SCALAR_PARTIALS)?;
            d.push(CountNonzero {
                scale: 1.0 / n as f64,
                width: 1,
                index: 0,
                x,
                scalars,
                partials,
            });
        }
        _ => {
            let idle = d.output("idle", dims.c, Unpack::Plain)?;
            d.prepared.first.push((idle, Values::Real(case.sized("idle", dims.c)?.reals())));
            if case.op == "idle_update" {
                let unseen = d.output("unseen", dims.c, Unpack::Plain)?;
                d.prepared.first.push((unseen, Values::Real(vec![0.0; dims.c])));
                // Two equal parts: a unit that fires in one fires in both.
                for _ in 0..2 {
                    d.push(FiringUpdate { n, dims, z: x, idle: unseen });
                }
                d.push(IdleUpdate { parts: 2, unseen, idle });
            } else if case.op == "idle_only" {
                let y = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
                d.push(IdleOnly {
                    n,
                    dims,
                    patience: case.count("patience")?,
                    fill: case.number("fill")?,
                    x,
                    idle,
                    y,
                });
            } else if case.op == "firing_update" {
                d.push(FiringUpdate { n, dims, z: x, idle });
            } else {
                d.prepared.last.push(("grad_x".to_owned(), x, Unpack::Maps(dims)));
                let (patience, strength) = (case.count("patience")?, case.number("strength")?);
                d.push(Revive { n, dims, patience, strength, idle, dx: x });
            }
        }
    }
    Ok(d.prepared)
}

/// Gathering a batch from stored samples.
fn gather(mut d: Direct, case: &Case) -> Result<Prepared> {
    let flag = |key: &str| case.attrs[key].as_bool().unwrap_or(false);
    let side = |i: usize| case.attrs["dims"][i].as_u64().unwrap_or(1) as usize;
    let dims = Dims::new(side(0), side(1), side(2));
    let types = [SampleType::U8, SampleType::U16, SampleType::F16, SampleType::F32];
    let sample = types[case.count("sample")?];
    let bytes = d.indices(case.input("bytes")?.words())?;
    let scales = d.indices(case.input("scales")?.words())?;
    let table = d.indices(case.input("table")?.words())?;
    let order = case.input("order")?.words();
    let n = order.len();
    let order = d.indices(order)?;
    let x = d.output("y", n * dims.len(), Unpack::Maps(dims))?;
    let augment = Augment {
        crop: flag("crop"),
        flip_x: flag("flip_x"),
        flip_y: flag("flip_y"),
        turn: flag("turn"),
    };
    d.push(GatherBatch { n, dims, augment, sample, bytes, table, order, scales, x });
    Ok(d.prepared)
}
