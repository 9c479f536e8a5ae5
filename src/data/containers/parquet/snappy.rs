//! Snappy's block format (<https://github.com/google/snappy/blob/main/format_description.txt>).

/// Takes `count` bytes from the start.
fn take<'a>(data: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = data.split_at_checked(count)?;
    *data = rest;
    Some(taken)
}

/// A little-endian number of `count` bytes, at most four.
fn number(data: &mut &[u8], count: usize) -> Option<usize> {
    let bytes = take(data, count)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Decodes a block of `len` bytes. Returns `None` if it is damaged or has another length.
pub(super) fn decode(mut data: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut declared = 0;
    for shift in (0..35).step_by(7) {
        let byte = number(&mut data, 1)?;
        declared |= (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if declared != len {
        return None;
    }
    let mut out: Vec<u8> = Vec::new();
    while !data.is_empty() {
        let tag = number(&mut data, 1)?;
        let upper = tag >> 2;
        let (run, back) = match tag & 3 {
            0 => {
                let run = 1 + match upper {
                    60..=63 => number(&mut data, upper - 59)?,
                    run => run,
                };
                out.extend_from_slice(take(&mut data, run)?);
                if out.len() > len {
                    return None;
                }
                continue;
            }
            1 => (4 + (upper & 7), (upper >> 3) << 8 | number(&mut data, 1)?),
            2 => (1 + upper, number(&mut data, 2)?),
            _ => (1 + upper, number(&mut data, 4)?),
        };
        let from = out.len().checked_sub(back).filter(|_| back > 0)?;
        if run > len - out.len() {
            return None;
        }
        if run <= back {
            out.extend_from_within(from..from + run);
        } else {
            // The reference overlaps what it writes.
            for i in from..from + run {
                out.push(out[i]);
            }
        }
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn literals_and_references() {
        // 11 bytes: the literal "abcd", a copy of 7 bytes from 4 back.
        let data = [11, 3 << 2, b'a', b'b', b'c', b'd', 1 | 3 << 2, 4];
        assert_eq!(decode(&data, 11).unwrap(), b"abcdabcdabc");
        assert_eq!(decode(&data, 12), None);
        assert_eq!(decode(&data[..6], 11), None);
        assert_eq!(decode(&[4, 1, 1], 4), None);
    }
}
