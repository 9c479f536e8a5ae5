//! Atomic file writes, locks, and file operations whose errors name the path.

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// The configuration in the folder of a run.
pub const RUN_CONFIG: &str = "config.toml";

/// Facts in the folder of a run that its configuration does not have.
pub const RUN_ORIGIN: &str = "run.json";

/// Writes `bytes` to `path` atomically: `path` holds either the old file or the whole new one, even
/// after a crash. The bytes go to a temporary file in the same folder, which is synced and renamed.
///
/// # Errors
/// If the file cannot be written or renamed. The temporary file is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_path(path)?;
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        not_written(path.display(), &error)
    })?;
    sync_folder_of(path);
    Ok(())
}

/// An atomic write in several parts; see [`write_atomically`]. The file appears at its path when
/// [`Partial::finish`] is called. Dropping the value without that removes the temporary file.
#[derive(Debug)]
pub struct Partial {
    file: std::io::BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl Partial {
    /// Starts writing the file that will appear at `path`.
    ///
    /// # Errors
    /// If `path` has no file name or the temporary file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let temporary = temporary_path(path)?;
        let file = File::create(&temporary).map_err(|error| not_written(path.display(), &error))?;
        Ok(Self {
            // 1 MiB instead of the default 8 KiB: fewer system calls for large feature files.
            file: std::io::BufWriter::with_capacity(1 << 20, file),
            temporary,
            path: path.to_owned(),
            finished: false,
        })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| not_written(self.path.display(), &error))
    }

    /// Flushes and syncs the temporary file and renames it to its path.
    ///
    /// # Errors
    /// If any of this fails. The temporary file is removed.
    pub fn finish(mut self) -> Result<()> {
        let publish = |partial: &mut Self| -> std::io::Result<()> {
            partial.file.flush()?;
            partial.file.get_ref().sync_all()?;
            std::fs::rename(&partial.temporary, &partial.path)
        };
        publish(&mut self).map_err(|error| not_written(self.path.display(), &error))?;
        self.finished = true;
        sync_folder_of(&self.path);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Extension of a file that is not complete.
pub const PARTIAL: &str = "partial";

/// The temporary file of a write to `path`: `NAME.partial` in the same folder, because a rename is
/// atomic only within one file system.
fn temporary_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::usage(format!("{}: not the name of a file", path.display())));
    };
    let mut name = name.to_os_string();
    name.push(".");
    name.push(PARTIAL);
    Ok(path.with_file_name(name))
}

/// Checks that [`write_atomically`] can write to `path`, so that a program fails before long work
/// and not after it. A disk that fills up in the meantime is not detected.
///
/// # Errors
/// If a temporary file cannot be created beside `path`.
pub fn ensure_writable(path: &Path) -> Result<()> {
    let temporary = temporary_path(path)?;
    File::create(&temporary)
        .and_then(|_| std::fs::remove_file(&temporary))
        .map_err(|error| not_written(path.display(), &error))
}

/// The error for a file that could not be written.
pub fn not_written(path: impl std::fmt::Display, error: &std::io::Error) -> Error {
    Error::failed(format!(
        "{path} could not be written: {error}; check the folder, its permissions and the free space"
    ))
}

/// Renames a folder and syncs the folder that contains it.
///
/// # Errors
/// If the folder cannot be renamed.
pub fn rename_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| folder_not_created(to, &error))?;
    sync_folder_of(to);
    Ok(())
}

/// Syncs the folder that contains `path`. On Unix a new name survives a crash only after its folder
/// is synced. Errors are ignored: some file systems cannot sync folders, and the contents of the
/// file are already safe.
fn sync_folder_of(path: &Path) {
    if cfg!(unix) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Creates a folder and its missing parents.
///
/// # Errors
/// If a folder cannot be created.
pub fn make_folder(path: &Path) -> Result<()> {
    // The parent of a plain file name.
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|error| folder_not_created(path, &error))
}

fn folder_not_created(path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!(
        "{} could not be created: {error}; name a folder that can be written to",
        path.display()
    ))
}

/// An exclusive lock on a file between processes. The operating system releases it when the process
/// ends, also after a crash.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _held: Option<File>,
}

impl Lock {
    /// Takes the lock on the file `path`, which is created if it does not exist. Returns `None` if
    /// another process holds the lock.
    ///
    /// If the file is not writable or the file system has no locks, this succeeds without locking:
    /// then either no process can write to the folder, or locking is impossible.
    ///
    /// # Errors
    /// If the file cannot be created for any other reason.
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
        // `is_locked` of another process holds the lock for an instant.
        for attempt in 0..3 {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if attempt < 2 => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => break,
                Ok(()) | Err(TryLockError::Error(_)) => {
                    return Ok(Some(Self { _held: Some(file) }));
                }
            }
        }
        Ok(None)
    }
}

/// Whether a process holds the lock on a file. It is not created if it does not exist. `false` if
/// the file system has no locks.
#[cfg(feature = "cli")]
pub fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Reads a whole file into memory.
///
/// # Errors
/// If the file cannot be read; the message names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(path, &error))
}

/// Reads a text file; see [`decode_text`].
///
/// # Errors
/// If the file cannot be read or is not text; the message names it.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let text = decode_text(&bytes)
        .map_err(|_| Error::usage(format!("{}: not a text file", path.display())))?;
    Ok(text.into_owned())
}

/// Decodes text: UTF-8, or UTF-16 with a byte order mark, as editors and shells on Windows write
/// it. The mark is removed.
///
/// # Errors
/// If the bytes are not text. The message has the position of the first wrong byte.
pub fn decode_text(bytes: &[u8]) -> Result<Cow<'_, str>> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let text = String::from_utf16(&units.iter().map(|two| unit(*two)).collect::<Vec<u16>>());
        text.ok()
            .filter(|_| rest.is_empty())
            .map(Cow::Owned)
            .ok_or_else(|| Error::usage("not valid UTF-16"))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => {
            let text = std::str::from_utf8(bytes).map_err(|error| {
                Error::usage(format!("byte {} is not UTF-8", error.valid_up_to()))
            })?;
            Ok(Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn an_atomic_write_replaces_the_file_and_leaves_no_other() {
        let folder = Folder::new("files-atomic");
        let path = folder.write("a.txt", b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(read_text(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 1);
    }

    #[test]
    fn a_partial_file_appears_when_it_is_finished() {
        let folder = Folder::new("files-partial");
        let path = folder.path.join("a.txt");
        let mut partial = Partial::create(&path).unwrap();
        partial.write(b"ab").unwrap();
        partial.write(b"c").unwrap();
        assert!(!path.exists());
        partial.finish().unwrap();
        assert_eq!(read(&path).unwrap(), b"abc");
    }

    #[test]
    fn a_dropped_partial_file_leaves_nothing() {
        let folder = Folder::new("files-dropped");
        let mut partial = Partial::create(&folder.path.join("a.txt")).unwrap();
        partial.write(b"ab").unwrap();
        drop(partial);
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_is_held_once() {
        let folder = Folder::new("files-lock");
        let path = folder.path.join("lock");
        let first = Lock::take(&path).unwrap();
        assert!(first.is_some() && Lock::take(&path).unwrap().is_none());
        assert!(is_locked(&path));
        drop(first);
        assert!(!is_locked(&path) && !is_locked(&folder.path.join("none")));
        assert!(Lock::take(&path).unwrap().is_some());
    }

    #[test]
    fn byte_order_marks_are_removed() {
        for bytes in [&b"a\xc3\xbc"[..], b"\xef\xbb\xbfa\xc3\xbc", b"\xff\xfea\0\xfc\0"] {
            assert_eq!(decode_text(bytes).unwrap(), "aü");
        }
        assert_eq!(decode_text(b"\xfe\xff\0a\0\xfc").unwrap(), "aü");
        let message = decode_text(b"\xff\xfea").unwrap_err().to_string();
        assert!(message.contains("UTF-16"), "{message}");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = Folder::new("files-errors");
        let path = folder.write("a.txt", b"\xff");
        let message = read_text(&path).unwrap_err().to_string();
        assert!(message.contains("a.txt: not a text file"), "{message}");
        let message = read(&folder.path.join("none")).unwrap_err().to_string();
        assert!(message.contains("none: ") && message.ends_with("check the path"), "{message}");
        let message = write_atomically(Path::new("/"), b"").unwrap_err().to_string();
        assert!(message.contains("not the name of a file"), "{message}");
    }
}
