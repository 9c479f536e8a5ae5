//! Checkpoints: everything needed to resume training, in one safetensors file.
//!
//! A checkpoint holds the parameters, both moments, persistent states and idle counters in memory
//! order, the losses not yet logged, and a header. Random numbers and the order of the data follow
//! from seed and step, so they are not stored.

use std::borrow::Cow;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, Partial};
use crate::hash::Hash;
use crate::tensor_file::{self, Tensor};

const KEY: &str = "csae.checkpoint";
const FORMAT: u32 = 1;

/// Names of the tensors, in the order in which they are hashed.
pub const TENSORS: [&str; 6] =
    ["parameters", "first moment", "second moment", "states", "idle counters", "losses"];

/// Index in [`TENSORS`] of the losses not yet logged.
pub const LOSSES: usize = 5;

/// Header of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of this format.
    pub format: u32,
    /// Steps done.
    pub step: u64,
    /// Number of steps of the run when the checkpoint was written.
    pub total: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// The last step in the log; `losses` has a row for each later step.
    pub logged: u64,
    /// Hash of the configuration without its length ([`config_hash`]).
    pub config: u64,
    /// Hash of the training and validation images.
    pub data: u64,
    /// Identity of the device that wrote the checkpoint.
    pub device: String,
    /// Bits of the negated score of the best validation: ‖x − x̂‖², or −PSNR on whole images for
    /// restoration models.
    pub best: Option<u64>,
    /// Step of the best validation.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub best_step: u64,
    /// Number of validations since the best one.
    #[serde(default, skip_serializing_if = "crate::spec::is_zero")]
    pub stale: u32,
    /// Whether training stopped before its last step because validations stopped improving.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_early: bool,
    /// Number of times that training was rolled back with a lower learning rate.
    #[serde(default, skip_serializing_if = "crate::spec::is_zero")]
    pub retried: u32,
    /// Hash of this header with 0 in this field, then of every tensor.
    pub hash: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_zero(step: &u64) -> bool {
    *step == 0
}

/// A checkpoint in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The header.
    pub header: Header,
    /// The values, in the order of [`TENSORS`].
    pub tensors: [Vec<f32>; 6],
}

/// Configuration lines that earlier builds did not write, with the values those builds used. The
/// hash leaves them out, so that runs started by an earlier build can be resumed.
const LATER: [&str; 2] = ["precision = \"f32\"", "loss_scale = 0.0"];

/// Hash of everything that must not change within a run: the configuration without its length and
/// checkpoint intervals.
pub fn config_hash(config: &crate::spec::Config) -> u64 {
    let mut config = config.clone();
    let train = &mut config.train;
    (train.epochs, train.steps, train.checkpoint_every, train.checkpoint_minutes, train.keep) =
        (0.0, 0, 0, 0.0, 1);
    // Training sets `undoes` to a copy of `corruption`, so hashing both would be redundant.
    config.model.undoes = crate::spec::CorruptionSpec::default();
    let text = config.to_toml();
    let kept: String =
        text.lines().filter(|line| !LATER.contains(line)).flat_map(|line| [line, "\n"]).collect();
    Hash::default().with(kept.as_bytes()).value()
}

impl Header {
    fn json(&self) -> String {
        serde_json::to_value(self)
            .and_then(|value| serde_json::to_string(&value))
            .expect("a header is JSON")
    }

    fn hash_with<'a>(&self, tensors: impl Iterator<Item = Cow<'a, [u8]>>) -> u64 {
        let own = Hash::default().with(Self { hash: 0, ..self.clone() }.json().as_bytes());
        tensors.fold(own, |hash, bytes| hash.with(&bytes)).value()
    }
}

/// Writes a checkpoint to a temporary file, which gets the name `path` by [`Partial::finish`].
pub fn stage(path: &Path, checkpoint: &Checkpoint) -> Result<Partial> {
    let mut header = Header { format: FORMAT, ..checkpoint.header.clone() };
    header.hash =
        header.hash_with(checkpoint.tensors.iter().map(|values| tensor_file::bytes(values)));
    let tensors = TENSORS.iter().zip(&checkpoint.tensors);
    let tensors = tensors.map(|(name, values)| Tensor { name, shape: vec![values.len()], values });
    tensor_file::stage(path, tensors.collect(), KEY, header.json())
}

/// Writes a checkpoint to a temporary file and renames that into place.
pub fn save(path: &Path, checkpoint: &Checkpoint) -> Result<()> {
    stage(path, checkpoint)?.finish()
}

/// Reads a checkpoint and verifies its hash.
pub fn load(path: &Path) -> Result<Checkpoint> {
    load_bytes(&files::read(path)?, &path.display().to_string())
}

/// Reads a checkpoint from a file's bytes; `place` names the file in errors.
///
/// # Errors
/// If the checkpoint is damaged or has an unknown format.
pub fn load_bytes(bytes: &[u8], place: &str) -> Result<Checkpoint> {
    let damaged = |what: String| {
        Error::failed(format!(
            "{place}: the checkpoint is damaged ({what}); delete it to resume from the previous \
             checkpoint, or from the start"
        ))
    };
    let header = header_of(place, bytes, damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
    let mut views = Vec::new();
    for name in TENSORS {
        let view = file.tensor(name).map_err(|error| damaged(error.to_string()))?;
        if view.dtype() != Dtype::F32 {
            return Err(damaged(format!("{name} is not in F32")));
        }
        views.push(view);
    }
    if header.hash != header.hash_with(views.iter().map(|view| Cow::Borrowed(view.data()))) {
        return Err(damaged("its hash does not match its contents".to_owned()));
    }
    let values = |i: usize| {
        views[i]
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    Ok(Checkpoint { header, tensors: std::array::from_fn(values) })
}

/// Reads the header from a file's metadata.
fn header_of(place: &str, bytes: &[u8], damaged: impl Fn(String) -> Error) -> Result<Header> {
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| damaged(error.to_string()))?;
    let json = metadata
        .metadata()
        .as_ref()
        .and_then(|map| map.get(KEY))
        .ok_or_else(|| damaged("the header is missing".to_owned()))?;
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
    if value["format"] != FORMAT {
        return Err(Error::failed(format!(
            "{place}: checkpoint format {} is unknown, this version reads format {FORMAT}; \
             resume with the version that wrote the checkpoint",
            value["format"]
        )));
    }
    serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begun_before_a_key_was_there_go_on() {
        let config = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|one| (*one).to_owned()).collect();
            crate::spec::Config::parse(crate::spec::preset_text("sparse").unwrap(), "sparse", &set)
                .unwrap()
        };
        let text = config(&[]).to_toml();
        assert!(LATER.iter().all(|line| text.lines().any(|other| other == *line)), "{text}");
        assert!(!text.contains("corruption"), "{text}");
        let hash = config_hash(&config(&[]));
        // The text that a build without these keys hashed.
        let mut before = config(&[]);
        let train = &mut before.train;
        (train.epochs, train.checkpoint_minutes, train.keep) = (0.0, 0.0, 1);
        let old = |line: &&str| !line.starts_with("precision") && !line.starts_with("loss_scale");
        let text: String =
            before.to_toml().lines().filter(old).map(|line| format!("{line}\n")).collect();
        assert_eq!(hash, Hash::default().with(text.as_bytes()).value());
        assert_eq!(hash, config_hash(&config(&["train.steps=7"])));
        for set in [
            "train.precision=f16",
            "train.loss_scale=2.0",
            "train.batch=7",
            "corruption.sigma=[0,9]",
        ] {
            assert_ne!(hash, config_hash(&config(&[set])), "{set}");
        }
    }

    fn sample() -> Checkpoint {
        let header = Header {
            format: FORMAT,
            step: 7,
            total: 20,
            logged: 5,
            best: Some(0.3_f64.to_bits()),
            ..Header::default()
        };
        let tensors = std::array::from_fn(|i| (0..5 * i).map(|x| x as f32 * 0.3 - 1.0).collect());
        Checkpoint { header, tensors }
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let path = std::env::temp_dir()
            .join(format!("csae-checkpoint-{}.safetensors", std::process::id()));
        save(&path, &sample()).unwrap();
        let read = load(&path).unwrap();
        assert_eq!(
            Checkpoint { header: Header { hash: 0, ..read.header.clone() }, ..read.clone() },
            sample()
        );
        let bytes = std::fs::read(&path).unwrap();
        for i in 0..bytes.len() {
            let mut other = bytes.clone();
            other[i] ^= 1 << (i % 8);
            std::fs::write(&path, &other).unwrap();
            // JSON parsing ignores which white space separates values.
            assert!(load(&path).is_err() || bytes[i] == b' ', "byte {i}");
            if i % 16 == 0 {
                std::fs::write(&path, &bytes[..i]).unwrap();
                assert!(
                    load(&path).unwrap_err().to_string().contains("damaged"),
                    "first {i} bytes"
                );
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_hash_tells_lengths_and_places() {
        let of = |parts: &[&[u8]]| {
            parts.iter().fold(Hash::default(), |hash, part| hash.with(part)).value()
        };
        let all = [
            of(&[]),
            of(&[b""]),
            of(&[b"\0"]),
            of(&[b"\0\0"]),
            of(&[b"ab", b"c"]),
            of(&[b"a", b"bc"]),
            of(&[b"12345678"]),
            of(&[b"12345679"]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b), "{i}");
        }
        // Flips the highest bit of two adjacent words; a hash by plain multiplication misses that
        // change.
        let (mut one, mut two) = ([0_u8; 16], [0_u8; 16]);
        (one[7], two[15]) = (0x80, 0x80);
        assert!(of(&[&one]) != of(&[&two]) && of(&[&one]) != of(&[&[0; 16]]));
    }
}
