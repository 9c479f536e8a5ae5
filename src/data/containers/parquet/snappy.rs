//! Snappy's block format (<https://github.com/google/snappy/blob/main/format_description.txt>).

/// Decodes a block of `len` bytes. Returns `None` if it is damaged or has another length.
pub(super) fn decode(data: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut data = data.iter().map(|byte| usize::from(*byte));
    let number = |count: usize, data: &mut dyn Iterator<Item = usize>| {
        (0..count).try_fold(0, |number, i| Some(number | data.next()? << (8 * i)))
    };
    let (mut declared, mut shift) = (0_usize, 0);
    loop {
        let byte = data.next()?;
        declared |= (byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
    if declared != len {
        return None;
    }
    let mut out: Vec<u8> = Vec::new();
    while let Some(tag) = data.next() {
        let upper = tag >> 2;
        let (run, back) = match tag & 3 {
            0 => {
                let run = 1 + match upper {
                    60..=63 => number(upper - 59, &mut data)?,
                    run => run,
                };
                if run > len - out.len() {
                    return None;
                }
                for _ in 0..run {
                    out.push(data.next()? as u8);
                }
                continue;
            }
            1 => (4 + (upper & 7), (upper >> 3) << 8 | data.next()?),
            2 => (1 + upper, number(2, &mut data)?),
            _ => (1 + upper, number(4, &mut data)?),
        };
        let from = out.len().checked_sub(back).filter(|_| back > 0)?;
        if run > len - out.len() {
            return None;
        }
        for i in from..from + run {
            out.push(out[i]);
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
