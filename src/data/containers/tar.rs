//! The members of a tar archive (POSIX ustar and pax, GNU long names).

use super::Opening;
use crate::data::numbers::damaged;
use crate::error::{Error, Result};

/// Size of a block in bytes.
const BLOCK: u64 = 512;
/// Maximum length of a name or of a pax header in bytes.
const MAX_HEADER: u64 = 1 << 16;

/// A regular file in an archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub name: String,
    /// Offset and length of its bytes.
    pub start: u64,
    pub len: u64,
}

/// Whether a block is the header of a member.
pub(super) fn is_header(block: &[u8]) -> bool {
    block.len() == BLOCK as usize && checksum(block).is_some_and(|sum| sum == sum_of(block))
}

/// The stored checksum of a header.
fn checksum(block: &[u8]) -> Option<u64> {
    octal(&block[148..156])
}

/// The sum of the bytes of a header, with spaces in place of the checksum.
fn sum_of(block: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// An octal number, or a binary one of GNU for large sizes.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len().saturating_sub(8));
        let is_small = head.iter().enumerate().all(|(i, b)| *b == if i == 0 { 0x80 } else { 0 });
        return is_small
            .then(|| tail.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// A text that ends at the first zero.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The value of a key in a pax header: lines `LENGTH KEY=VALUE`.
fn pax(bytes: &[u8], key: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?.1.split_once('=')?;
        (name == key).then(|| value.to_owned())
    };
    text.lines().filter_map(value).next_back()
}

/// Lists the regular files.
///
/// # Errors
/// If the archive is damaged or cut off.
pub(super) fn members(opening: &mut Opening<'_>) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let (mut at, mut long_name, mut long_size) = (0, None, None);
    while at < opening.size {
        let block = opening.bytes(at, BLOCK as usize)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        if !is_header(&block) {
            return Err(damaged(&format!("the header of a member at byte {at} has a wrong sum")));
        }
        let size = octal(&block[124..136]).ok_or_else(|| damaged("a member has no size"))?;
        let kind = block[156];
        let start = at + BLOCK;
        let size = match kind {
            b'0' | 0 | b'7' => long_size.take().unwrap_or(size),
            _ => size,
        };
        let end = start.checked_add(size).filter(|end| *end <= opening.size);
        let end = end.ok_or_else(|| damaged("it ends before its last member does"))?;
        match kind {
            b'L' | b'x' => {
                if size > MAX_HEADER {
                    return Err(damaged(&format!("a name has {size} bytes")));
                }
                let bytes = opening.bytes(start, size as usize)?;
                if kind == b'L' {
                    long_name = Some(text(&bytes));
                } else {
                    long_name = pax(&bytes, "path").or(long_name);
                    long_size = pax(&bytes, "size").and_then(|size| size.parse().ok());
                }
            }
            b'0' | 0 | b'7' => {
                let mut name = text(&block[..100]);
                let prefix = text(&block[345..500]);
                if &block[257..262] == b"ustar" && block[262] == 0 && !prefix.is_empty() {
                    name = format!("{prefix}/{name}");
                }
                let name = long_name.take().unwrap_or(name);
                members.push(Member { name, start, len: size });
            }
            // A sparse file is not its bytes.
            b'S' => return Err(Error::usage("has a sparse member; pack it again without -S")),
            // Folders, links and global headers.
            _ => (long_name, long_size) = (None, None),
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(members)
}
