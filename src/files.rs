//! Files that are never half there.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes beside, syncs and renames: under `path` there is the old file or the new one, never a
/// part.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(path)?;
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        not_written(path.display(), &error)
    })?;
    sync_folder_of(path);
    Ok(())
}

/// A file that is written part by part beside its place, which it takes when it is whole. Dropped
/// before, it leaves nothing.
#[derive(Debug)]
pub struct Partial {
    file: std::io::BufWriter<File>,
    beside: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Partial {
    /// Begins a file.
    pub fn create(path: &Path) -> Result<Self> {
        let beside = beside(path)?;
        let file = File::create(&beside).map_err(|error| not_written(path.display(), &error))?;
        Ok(Self {
            file: std::io::BufWriter::with_capacity(1 << 20, file),
            beside,
            path: path.to_owned(),
            done: false,
        })
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| not_written(self.path.display(), &error))
    }

    /// Puts the file in its place.
    pub fn finish(mut self) -> Result<()> {
        let put = |partial: &mut Self| -> std::io::Result<()> {
            partial.file.flush()?;
            partial.file.get_ref().sync_all()?;
            std::fs::rename(&partial.beside, &partial.path)
        };
        put(&mut self).map_err(|error| not_written(self.path.display(), &error))?;
        self.done = true;
        sync_folder_of(&self.path);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

/// Where a file is written until it is whole.
fn beside(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::usage(format!("{}: not the name of a file", path.display())));
    };
    let mut name = name.to_os_string();
    name.push(".partial");
    Ok(path.with_file_name(name))
}

/// Fails now where [`write_atomically`] would fail after long work, but for a disk that fills up
/// meanwhile.
pub fn ensure_writable(path: &Path) -> Result<()> {
    let beside = beside(path)?;
    File::create(&beside)
        .and_then(|_| std::fs::remove_file(&beside))
        .map_err(|error| not_written(path.display(), &error))
}

/// The error of a file that could not be written.
pub fn not_written(path: impl std::fmt::Display, error: &std::io::Error) -> Error {
    Error::failed(format!(
        "{path} could not be written: {error}; check the folder, its permissions and the free space"
    ))
}

/// Gives a folder another name, and makes sure that the disk knows.
pub fn rename_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| not_made(to, &error))?;
    sync_folder_of(to);
    Ok(())
}

/// A new name is on the disk only when its folder is, where folders are files that can be synced.
/// Not every file system does it, and the contents are safe without.
fn sync_folder_of(path: &Path) {
    if cfg!(unix) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| not_made(path, &error))
}

fn not_made(path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!(
        "{} could not be made: {error}; name a folder that can be written to",
        path.display()
    ))
}

/// A file that one process at a time holds. A process that ends lets go of it, however it ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _held: Option<File>,
}

impl Lock {
    /// Takes the lock, or tells that another process holds it. Where nothing can be written there
    /// is nothing to lock, and some file systems know no locks: that is no error.
    pub fn take(path: &Path) -> Result<Option<Self>> {
        let file = match File::options().create(true).append(true).open(path) {
            Ok(file) => file,
            Err(error)
                if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem]
                    .contains(&error.kind()) =>
            {
                return Ok(Some(Self { _held: None }));
            }
            Err(error) => return Err(not_written(path.display(), &error)),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(Self { _held: Some(file) })),
        }
    }
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(path, &error))
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| Error::usage(format!("{}: not a text file", path.display())))
}
