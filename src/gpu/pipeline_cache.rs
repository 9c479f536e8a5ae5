//! What a driver has compiled, kept on disk between runs where wgpu can (Vulkan so far). Many
//! drivers have a cache of their own beside it.

use std::path::{Path, PathBuf};

use crate::files;
use crate::hash::Hash;

/// A file that has grown larger is begun anew: drivers only ever add to it.
const LARGEST: usize = 64 << 20;
/// Bytes of the hash in front of the driver's data.
const HEAD: usize = 8;

/// A driver's cache and its file.
#[derive(Debug)]
pub(super) struct PipelineCache {
    pub(super) handle: wgpu::PipelineCache,
    path: PathBuf,
    /// Hash of what the file holds.
    held: Option<u64>,
}

impl PipelineCache {
    /// Opens it with what the file holds; a file that is broken or too large counts as none. None
    /// where the device has no such cache.
    pub(super) fn open(device: &wgpu::Device, path: PathBuf) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let content = read(&path);
        let data = content.as_deref().map(|content| &content[HEAD..]);
        let held = data.map(hash);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
        // SAFETY: the data is what `get_data` gave on this adapter with this driver, byte for byte:
        // the file's name and its hash say so. wgpu checks its own header, the driver its own.
        #[allow(unsafe_code, reason = "the one way to hand a driver what it compiled before")]
        let handle = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { handle, path, held })
    }

    /// Writes what the driver has gathered, if it is more than the file holds. A failure costs the
    /// next run time, no more.
    pub(super) fn store(&mut self) {
        let Some(data) = self.handle.get_data() else { return };
        let now = hash(&data);
        if self.held == Some(now) || data.len() > LARGEST {
            return;
        }
        let content = [&now.to_le_bytes()[..], &data].concat();
        let folder = self.path.parent().map_or(Ok(()), files::make_folder);
        if folder.and_then(|()| files::write_atomically(&self.path, &content)).is_ok() {
            self.held = Some(now);
        }
    }
}

/// A file's content, if it is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let content = std::fs::read(path).ok()?;
    let (head, data) = content.split_first_chunk::<HEAD>()?;
    (data.len() <= LARGEST && u64::from_le_bytes(*head) == hash(data)).then_some(content)
}

/// The hash of what a driver gave.
fn hash(data: &[u8]) -> u64 {
    Hash::default().with(data).value()
}
