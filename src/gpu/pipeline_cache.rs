//! A pipeline cache on disk: keeps what the driver has compiled between runs, where wgpu supports
//! it (only Vulkan so far). Many drivers have a cache of their own as well.

use std::path::{Path, PathBuf};

use crate::files;
use crate::hash::Hash;

/// Maximum size of the file in bytes. Drivers only ever add entries, so a larger file is discarded
/// and rebuilt. The limit trades disk space for compile time.
const MAX_SIZE: usize = 64 << 20;
/// Bytes of the hash in front of the driver's data.
const HEAD: usize = 8;

/// A driver's cache and its file.
#[derive(Debug)]
pub(super) struct PipelineCache {
    pub(super) handle: wgpu::PipelineCache,
    path: PathBuf,
    /// Hash of the data in the file.
    stored_hash: Option<u64>,
}

impl PipelineCache {
    /// Opens the cache with the file's data; a broken or too large file is ignored. None if the
    /// device has no pipeline cache.
    pub(super) fn open(device: &wgpu::Device, path: PathBuf) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let content = read(&path);
        let data = content.as_deref().map(|content| &content[HEAD..]);
        let stored_hash = data.map(hash);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
        // SAFETY: the data is what `get_data` returned on this adapter with this driver, byte for
        // byte: the file's name and hash ensure it. wgpu and the driver also check their headers.
        #[allow(unsafe_code, reason = "wgpu has no safe way to restore a pipeline cache")]
        let handle = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { handle, path, stored_hash })
    }

    /// Writes the driver's data if it differs from the file. Failures are ignored: they only cost
    /// the next run compile time.
    pub(super) fn store(&mut self) {
        let Some(data) = self.handle.get_data() else { return };
        let new_hash = hash(&data);
        if self.stored_hash == Some(new_hash) || data.len() > MAX_SIZE {
            return;
        }
        let content = [&new_hash.to_le_bytes()[..], &data].concat();
        let folder = self.path.parent().map_or(Ok(()), files::make_folder);
        if folder.and_then(|()| files::write_atomically(&self.path, &content)).is_ok() {
            self.stored_hash = Some(new_hash);
        }
    }
}

/// The file's content, if it is complete and not too large.
fn read(path: &Path) -> Option<Vec<u8>> {
    let content = std::fs::read(path).ok()?;
    let (head, data) = content.split_first_chunk::<HEAD>()?;
    (data.len() <= MAX_SIZE && u64::from_le_bytes(*head) == hash(data)).then_some(content)
}

/// Hash of the driver's data.
fn hash(data: &[u8]) -> u64 {
    Hash::default().with(data).value()
}
