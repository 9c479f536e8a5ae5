//! The structure of JPEG files (ITU-T T.81, annex B): the end of a file, and the quantization of
//! its luma.

/// Start of frame: size, components and their tables. Baseline, extended and progressive.
const FRAMES: std::ops::RangeInclusive<u8> = 0xc0..=0xc2;
/// Definition of quantization tables.
const TABLES: u8 = 0xdb;
/// Start of scan, after which there is data.
const SCAN: u8 = 0xda;

/// Whether the segments and scans lead to the end-of-image marker.
pub fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Find the next marker: 0xff, possibly repeated, and its code. In the data of a scan, 0xff
        // is followed by a stuffed zero or the code of a restart.
        let Some(found) =
            bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff))
        else {
            return false;
        };
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
        }
    }
}

/// The quantization steps of the 64 frequencies of luma (or of gray), in the order of the file,
/// where samples are from 0 to 255. `None` if the colours are not YCbCr, or the header is damaged.
pub fn luma_steps(bytes: &[u8]) -> Option<[u16; 64]> {
    let (mut tables, mut luma) = ([None; 4], None);
    let mut at = 2;
    loop {
        // Fill bytes can precede a marker.
        while bytes.get(at..at + 2)? == [0xff, 0xff] {
            at += 1;
        }
        let &[0xff, marker, high, low] = bytes.get(at..at + 4)? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = bytes.get(at + 4..at + 2 + length.max(2))?;
        match marker {
            TABLES => read_tables(segment, &mut tables)?,
            marker if FRAMES.contains(&marker) => {
                // Precision, height and width; then the components: id, sampling, table.
                let (count, components) = (*segment.get(5)?, segment.get(6..)?);
                let ids: Vec<u8> = components.chunks_exact(3).map(|one| one[0]).collect();
                let is_luma = count == 1 || (count == 3 && ids != *b"RGB");
                luma = Some(usize::from(*components.get(2)?)).filter(|_| is_luma);
            }
            SCAN => return *tables.get(luma?)?,
            _ => {}
        }
        at += 2 + length.max(2);
    }
}

/// Reads a segment of quantization tables: precision and number of each, and 64 steps of one or two
/// bytes.
fn read_tables(mut segment: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let [head, rest @ ..] = segment {
        let (bytes, number) = (1 + usize::from(head >> 4), usize::from(head & 15));
        let steps = rest.get(..64 * bytes)?;
        let step =
            |i: usize| steps[i * bytes..][..bytes].iter().fold(0, |v, b| v << 8 | u16::from(*b));
        *tables.get_mut(number)? = Some(std::array::from_fn(step));
        segment = &rest[64 * bytes..];
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;

    #[test]
    fn steps_of_luma_are_those_of_the_quality() {
        let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let file = |quality: u8| {
            let mut bytes = Vec::new();
            image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality)).unwrap();
            bytes
        };
        // The first and the last step of annex K for luma, at quality 50, are 16 and 99.
        let steps = luma_steps(&file(50)).unwrap();
        assert_eq!((steps[0], steps[63]), (16, 99));
        assert!(luma_steps(&file(100)).unwrap().iter().all(|step| *step == 1));
        let whole = file(75);
        for end in [0, 1, 2, 5, 20, 40, 100, 160] {
            assert_eq!(luma_steps(&whole[..end]), None, "{end}");
        }
        // Components that are called R, G and B are not luma and chroma.
        let frame = whole.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
        let mut rgb = whole.clone();
        for (i, id) in b"RGB".iter().enumerate() {
            rgb[frame + 10 + 3 * i] = *id;
        }
        assert_eq!(luma_steps(&rgb), None);
        assert_eq!(luma_steps(b"not a JPEG file"), None);
    }
}
