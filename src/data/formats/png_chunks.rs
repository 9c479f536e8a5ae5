//! The chunks of PNG files (PNG specification, third edition, 5.3).

/// Length of the signature and of the header chunk, after which other chunks can be added.
pub const HEADER: usize = 33;

/// The chunks of a file, type and data, until its end or until it is damaged.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, after) = rest.split_at_checked(8)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (data, after) = after.split_at_checked(length)?;
        // A checksum of four bytes is at the end.
        rest = after.get(4..).unwrap_or_default();
        Some(([head[4], head[5], head[6], head[7]], data))
    })
}

/// Appends a chunk.
pub fn push(out: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let mut check = flate2::Crc::new();
    check.update(&kind);
    check.update(data);
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(kind);
    out.extend(data);
    out.extend(check.sum().to_be_bytes());
}
