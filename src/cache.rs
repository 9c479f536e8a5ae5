//! The cache folder of the user: measurements of this machine's adapters that are kept between runs
//! (tuning tables, compiled pipelines). Any file can be deleted; it is created again when needed.

use std::path::PathBuf;

use crate::hash::Hash;

/// The environment variable that sets another cache folder; `off` disables the cache.
pub const VARIABLE: &str = "CSAE_CACHE";

/// The cache folder: `CSAE_CACHE` if it is set, otherwise `csae` inside the system's cache folder
/// (`$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`). Returns `None` if the
/// cache is off or the user has no home folder. Without the feature `cli`, only `CSAE_CACHE` names
/// a folder.
pub fn folder() -> Option<PathBuf> {
    match std::env::var_os(VARIABLE) {
        Some(off) if off == "off" => None,
        Some(folder) if !folder.is_empty() => Some(PathBuf::from(folder)),
        _ => native_folder(),
    }
}

#[cfg(feature = "cli")]
fn native_folder() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    Some(etcetera::base_strategy::choose_native_strategy().ok()?.cache_dir().join("csae"))
}

#[cfg(not(feature = "cli"))]
const fn native_folder() -> Option<PathBuf> {
    None
}

/// The path of a cache file, for example `csae/tuned-0123456789abcdef.toml`. `kind` begins the
/// name; `identity` names the adapter and its driver, and enters as a hash. Returns `None` if there
/// is no cache folder.
pub fn file(kind: &str, identity: &str, extension: &str) -> Option<PathBuf> {
    Some(folder()?.join(format!(
        "{kind}-{:016x}.{extension}",
        Hash::default().with(identity.as_bytes()).value()
    )))
}
