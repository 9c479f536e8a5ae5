//! The same bytes from the same seed on the CPU path, whatever the number of threads, and the same
//! bytes from saving, loading and saving again.

use csae::internals::device::Device;
use csae::internals::model::{self, Purpose};
use csae::internals::spec::Config;

use crate::training::{Training, small};

/// Bits of all parameters after a short training on `threads` threads.
fn trained(config: &Config, threads: usize) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut training = Training::new(Device::cpu(), config, 6).unwrap();
        training.run(10);
        training.weights().into_iter().map(f32::to_bits).collect()
    })
}

#[test]
fn threads_make_no_difference() {
    let one = trained(&small(), 1);
    assert!(one == trained(&small(), 3), "1 and 3 threads give other weights");
    assert!(one == trained(&small(), 1), "two runs differ");
    assert!(one.iter().all(|bits| f32::from_bits(*bits).is_finite()));
    assert!(one != trained(&Config { seed: 6, ..small() }, 1), "another seed makes no difference");
}

#[test]
fn every_part_of_the_small_model_matters() {
    let all = trained(&small(), 1);
    for change in [
        "sparsity.lambda=0",
        "sparsity.revive_strength=0",
        "optimizer.clip_norm=0",
        "model.layers.dropout.p=0",
    ] {
        let config =
            Config::parse(crate::training::SMALL, "the small model", &[change.to_owned()]).unwrap();
        assert!(all != trained(&config, 1), "{change} makes no difference");
    }
}

#[test]
fn a_model_is_saved_and_loaded_whole() {
    let folder = std::env::temp_dir().join(format!("csae-model-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [first, second] =
        ["first", "second"].map(|name| folder.join(format!("{name}.safetensors")));
    let mut training = Training::new(Device::cpu(), &small(), 6).unwrap();
    training.run(3);
    model::save(&first, &mut training.device, &training.graph, &training.store).unwrap();
    let loaded = model::load(&first).unwrap();
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    model::save(&second, &mut device, &loaded.graph, &store).unwrap();
    let [a, b] = [&first, &second].map(|path| std::fs::read(path).unwrap());
    assert!(a == b, "saving again gives other bytes");
    let values = store.read_all(&mut device, &loaded.graph).unwrap();
    let values: Vec<f32> = values.into_iter().flat_map(|(_, values)| values).collect();
    assert_eq!(values, training.weights());
    // A damaged file is refused.
    std::fs::write(&second, &a[..a.len() - 4]).unwrap();
    assert!(model::load(&second).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}
