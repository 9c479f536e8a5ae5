//! Temporary folders.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A folder that is removed at the end.
#[derive(Debug)]
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// An empty folder. Two never share a path, even with the same name: tests run at the same
    /// time.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(std::env::temp_dir().join(format!("csae-{name}-{}-{count}", std::process::id())))
    }

    fn at(path: PathBuf) -> Self {
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// The folder of what all tests share and none changes. Only [`super::models`] writes to it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TempFolder> = OnceLock::new();
        SHARED.get_or_init(|| {
            let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared");
            // Nothing runs when the process ends, so what earlier runs left is removed here. A
            // suite takes minutes: a folder from an hour ago belongs to none that is under way.
            for old in super::files::list(&all) {
                let age = old.metadata().and_then(|data| data.modified()).map(|at| at.elapsed());
                if age.is_ok_and(|age| age.is_ok_and(|age| age > Duration::from_secs(3600))) {
                    let _ = std::fs::remove_dir_all(old);
                }
            }
            Self::at(all.join(std::process::id().to_string()))
        })
    }

    /// The path of the folder.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Creates a folder inside and returns its path.
    pub fn create(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file inside, with the folders above it, and returns its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        self.path(name)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
