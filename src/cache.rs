//! What one machine's adapters have taught, kept between runs in the user's cache folder. Any of it
//! may be deleted: it is made again.

use std::path::PathBuf;

use crate::hash::Hash;

/// The variable that names another folder, or `off` for none.
pub const VARIABLE: &str = "CSAE_CACHE";

/// The folder: `CSAE_CACHE` where it is set, else `csae` in the system's folder for caches
/// (`$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`). None if it is `off` or
/// there is no home. Without the feature `cli`
/// only `CSAE_CACHE` names a folder.
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

/// The file of a kind for one adapter with its driver: `csae/tuned-0123456789abcdef.toml`.
pub fn file(kind: &str, identity: &str, extension: &str) -> Option<PathBuf> {
    Some(folder()?.join(format!(
        "{kind}-{:016x}.{extension}",
        Hash::default().with(identity.as_bytes()).value()
    )))
}
