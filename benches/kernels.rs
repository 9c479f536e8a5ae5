//! `cargo bench`: times every case of the built-in table (`src/verify/table.rs`), forward and
//! backward.
//!
//! Each case is compiled once and run repeatedly. `CSAE_DEVICE` selects the device like `--device`
//! (default `auto`): `CSAE_DEVICE=cpu cargo bench -- conv2d`. The cases are small and have odd
//! sizes, so the times are mostly launch overhead. `csae bench` measures the shapes of real models.

use std::time::Duration;

use criterion::Criterion;
use csae::internals::device::Device;
use csae::internals::error::Result;
use csae::internals::verify::{self, Case};
use csae::internals::view::StepParams;

fn bench(criterion: &mut Criterion, device: &mut Device, case: &Case) -> Result<()> {
    let prepared = verify::prepare(device, case)?;
    // The first run creates the pipelines, which must not be timed.
    prepared.execute(device)?;
    let program = device.compile(prepared.calls.clone())?;
    criterion.bench_function(&case.id(), |bencher| {
        bencher.iter(|| {
            let run = device.run(&program, &StepParams::default());
            run.and_then(|()| device.wait())
                .unwrap_or_else(|error| panic!("{}: {error}", case.id()));
        });
    });
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args();
    let wanted = std::env::var("CSAE_DEVICE").unwrap_or_else(|_| "auto".to_owned());
    let mut device = Device::open(&wanted)?;
    eprintln!("device: {}", device.label());
    for case in verify::built_in() {
        bench(&mut criterion, &mut device, &case)?;
    }
    criterion.final_summary();
    Ok(())
}
