//! Mutations of files, for tests with damaged input.

use csae::internals::rng::Stream;

/// Makes one to four small changes: bits, bytes, numbers at limits, cuts, repeats.
pub fn mutate(bytes: &mut Vec<u8>, draw: &mut Stream) {
    const LIMITS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];
    for _ in 0..=draw.below(4) {
        if bytes.is_empty() {
            bytes.push(draw.word() as u8);
        }
        // Headers, which are read closely, are at the start.
        let reach = if draw.below(2) == 0 { bytes.len() } else { bytes.len().min(64) };
        let at = draw.below(reach);
        match draw.below(8) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = draw.word() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, draw.word() as u8),
            4 => drop(bytes.remove(at)),
            5 => {
                let width = [1, 2, 4, 8][draw.below(4)];
                let number = LIMITS[draw.below(LIMITS.len())];
                let number =
                    if draw.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(&number[..width])
                    .for_each(|(byte, new)| *byte = *new);
            }
            6 => {
                let end = (at + 1 + draw.below(32)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = draw.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => {
                // Another digit makes another number in a text.
                if let Some(digit) = bytes.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()) {
                    *digit = b"0123456789-.e"[draw.below(13)];
                }
            }
        }
    }
    bytes.truncate(1 << 16);
}
