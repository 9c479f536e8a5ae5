//! LZ4's block format (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).

/// A length whose four bits in the token are full continues in further bytes.
fn length(data: &mut &[u8], bits: u8) -> Option<usize> {
    let mut length = usize::from(bits);
    if bits == 15 {
        loop {
            let (byte, rest) = data.split_first()?;
            *data = rest;
            length = length.checked_add(usize::from(*byte))?;
            if *byte < 255 {
                break;
            }
        }
    }
    Some(length)
}

/// Decodes a block of `len` bytes. Returns `None` if it is damaged or has another length.
pub(super) fn decode(mut data: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    while let Some((token, rest)) = data.split_first() {
        data = rest;
        let run = length(&mut data, token >> 4)?;
        let (literals, rest) = data.split_at_checked(run)?;
        out.extend_from_slice(literals);
        data = rest;
        // The last sequence has literals alone.
        let Some((offset, rest)) = data.split_first_chunk::<2>() else { break };
        data = rest;
        let run = length(&mut data, token & 15)?.checked_add(4)?;
        let back = usize::from(u16::from_le_bytes(*offset));
        let from = out.len().checked_sub(back).filter(|_| back > 0)?;
        if run > len.checked_sub(out.len())? {
            return None;
        }
        // The reference can overlap what it writes.
        for i in from..from + run {
            out.push(out[i]);
        }
    }
    (data.is_empty() && out.len() == len).then_some(out)
}

/// Decodes blocks with their lengths in front, as Hadoop writes them: decompressed and compressed,
/// big-endian. Some writers left them out.
pub(super) fn decode_framed(data: &[u8], len: usize) -> Option<Vec<u8>> {
    let framed = || {
        let (mut rest, mut out) = (data, Vec::new());
        while !rest.is_empty() {
            let (decoded, tail) = rest.split_first_chunk()?;
            let (stored, tail) = tail.split_first_chunk()?;
            let (decoded, stored) =
                (u32::from_be_bytes(*decoded) as usize, u32::from_be_bytes(*stored) as usize);
            let (block, tail) = tail.split_at_checked(stored)?;
            if decoded > len - out.len() {
                return None;
            }
            out.extend(decode(block, decoded)?);
            rest = tail;
        }
        (out.len() == len).then_some(out)
    };
    framed().or_else(|| decode(data, len))
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_framed};

    /// The literal "abcd", a copy of 7 bytes from 4 back, and the literal "e".
    const BLOCK: [u8; 9] = [0x43, b'a', b'b', b'c', b'd', 4, 0, 0x10, b'e'];

    #[test]
    fn literals_and_references() {
        assert_eq!(decode(&BLOCK, 12).unwrap(), b"abcdabcdabce");
        assert_eq!(decode(&BLOCK, 13), None);
        assert_eq!(decode(&BLOCK, 11), None);
        assert_eq!(decode(&BLOCK[..8], 12), None);
        // A reference to before the start.
        assert_eq!(decode(&[0x13, b'a', 2, 0, 0x10, b'e'], 9), None);
        // A length of more than four bits.
        let long = [&[0xf0, 5][..], &[7; 20]].concat();
        assert_eq!(decode(&long, 20).unwrap(), [7; 20]);
    }

    #[test]
    fn blocks_with_their_lengths() {
        let block = [&[0, 0, 0, 12, 0, 0, 0, 9][..], &BLOCK].concat();
        let two = [&block[..], &block].concat();
        assert_eq!(decode_framed(&two, 24).unwrap(), b"abcdabcdabceabcdabcdabce");
        assert_eq!(decode_framed(&two, 23), None);
        assert_eq!(decode_framed(&BLOCK, 12).unwrap(), b"abcdabcdabce");
    }
}
