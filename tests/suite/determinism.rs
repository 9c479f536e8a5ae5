//! The same bytes from the same seed on the CPU path, whatever the number of threads, and the same
//! bytes from saving, loading and saving again.

use std::path::PathBuf;

use csae::internals::device::Device;
use csae::internals::model::{self, Purpose};
use csae::internals::spec::Config;

use crate::support::training::{SMALL, Training, small};
use crate::support::{TempFolder, bytes};

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
fn the_number_of_threads_makes_no_difference() {
    assert!(trained(&small(), 1) == trained(&small(), 3));
}

#[test]
fn the_same_seed_gives_the_same_finite_weights_and_another_seed_others() {
    let one = trained(&small(), 1);
    assert!(one == trained(&small(), 1));
    assert!(one.iter().all(|bits| f32::from_bits(*bits).is_finite()));
    assert!(one != trained(&Config { seed: 6, ..small() }, 1));
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
        let config = Config::parse(SMALL, "the small model", &[change.to_owned()]).unwrap();
        assert!(all != trained(&config, 1), "{change} makes no difference");
    }
}

/// A short training and the file that its model is saved to.
fn saved(folder: &TempFolder) -> (Training, PathBuf) {
    let path = PathBuf::from(folder.path("first.safetensors"));
    let mut training = Training::new(Device::cpu(), &small(), 6).unwrap();
    training.run(3);
    model::save(&path, &mut training.device, &training.graph, &training.store).unwrap();
    (training, path)
}

#[test]
fn a_loaded_model_has_all_values_and_is_saved_to_the_same_bytes() {
    let folder = TempFolder::new("model");
    let (mut training, first) = saved(&folder);
    let second = PathBuf::from(folder.path("second.safetensors"));
    let loaded = model::load(&first).unwrap();
    let mut device = Device::cpu();
    let store = loaded.place(&mut device, &loaded.graph, Purpose::Infer).unwrap();
    model::save(&second, &mut device, &loaded.graph, &store).unwrap();
    assert!(bytes(&first) == bytes(&second));
    let values = store.read_all(&mut device, &loaded.graph).unwrap();
    let values: Vec<f32> = values.into_iter().flat_map(|(_, values)| values).collect();
    assert_eq!(values, training.weights());
}

#[test]
fn a_damaged_model_is_refused() {
    let folder = TempFolder::new("model-damaged");
    let (_, path) = saved(&folder);
    let whole = bytes(&path);
    std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
    assert!(model::load(&path).is_err());
}
