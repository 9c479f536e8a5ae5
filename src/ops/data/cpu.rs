//! CPU twin of `ops/data.rs`.

use rayon::prelude::*;

use crate::linalg::real::Real;
use crate::ops::GatherBatch;
use crate::reference::{Memory, Reference};
use crate::sample_type::{MISSING, SampleType};

impl Reference for GatherBatch {
    fn run<T: Real>(&self, memory: &mut Memory<T>) {
        let mut x = memory.take(self.x);
        let (bytes, table, order) =
            (memory.words(self.bytes), memory.words(self.table), memory.words(self.order));
        let scales: Vec<[f64; 2]> = memory
            .words(self.scales)
            .chunks_exact(2)
            .map(|pair| [0, 1].map(|i| f64::from(f32::from_bits(pair[i]))))
            .collect();
        let stored: &[u8] = bytemuck::cast_slice(bytes);
        let (sample, each) = (self.sample, self.sample.size());
        let (step, seed) = (memory.step, memory.seed());
        // Division is slow, and bytes have 256 values.
        let of_bytes: Vec<Vec<T>> = match sample {
            SampleType::U8 => scales
                .iter()
                .map(|[offset, divisor]| {
                    (0..256).map(|byte| T::of((f64::from(byte) - offset) / divisor)).collect()
                })
                .collect(),
            SampleType::U16 | SampleType::F16 | SampleType::F32 => Vec::new(),
        };
        let (dims, augment) = (self.dims, self.augment);
        x.par_chunks_exact_mut(dims.len()).enumerate().for_each(|(i, x)| {
            let entry = step.cursor.wrapping_add(i as u32);
            let image = 3 * order[entry as usize] as usize;
            let [offset, height, width] = [0, 1, 2].map(|field| table[image + field] as usize);
            assert!(
                !augment.turn || dims.h == dims.w,
                "a sample of {dims} is not square and cannot be transposed"
            );
            assert!(
                height >= dims.h && width >= dims.w,
                "image {height}x{width} is smaller than the sample {dims}"
            );
            let draw = augment.draw(entry, step.step, seed, height - dims.h, width - dims.w);
            for (h, row) in x.chunks_exact_mut(dims.w * dims.c).enumerate() {
                for (w, pixel) in row.chunks_exact_mut(dims.c).enumerate() {
                    let [from_h, from_w] = draw.from([h, w], dims.size());
                    let at = offset + ((draw.top + from_h) * width + draw.left + from_w) * dims.c;
                    for (c, x) in pixel.iter_mut().enumerate() {
                        let raw = &stored[(at + c) * each..];
                        *x = match of_bytes.get(c) {
                            Some(values) => values[usize::from(raw[0])],
                            None => {
                                let ([offset, divisor], value) = (scales[c], sample.value(raw));
                                if value.is_finite() && value != MISSING {
                                    T::of((f64::from(value) - offset) / divisor)
                                } else {
                                    T::of(f64::from(MISSING))
                                }
                            }
                        };
                    }
                }
            }
        });
        memory.put(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Augment;
    use crate::reference::testing::Setup;
    use crate::rng;
    use crate::shape::Dims;

    fn gather(augment: Augment, step: u32) -> Vec<f64> {
        // image 0: 2×3 of one channel, bytes 0…5; image 1: 4×5, bytes 100…119; at an odd offset
        let mut bytes: Vec<u8> = (0..6).collect();
        bytes.extend([255; 1]);
        bytes.extend(100..120);
        bytes.resize(28, 0);
        let words: Vec<u32> =
            bytes.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut s = Setup::<f64>::new();
        let (bytes, table) = (s.words(&words), s.words(&[0, 2, 3, 7, 4, 5]));
        let order = s.words(&[9, 1, 0]);
        let scales = s.words(&[0.5_f32.to_bits(); 2]);
        let x = s.out(2 * 2 * 3);
        (s.memory.step.cursor, s.memory.step.step, s.memory.step.seed_lo) = (1, step, 42);
        s.run(
            &GatherBatch {
                n: 2,
                dims: Dims::new(1, 2, 3),
                augment,
                sample: SampleType::U8,
                scales,
                bytes,
                table,
                order,
                x,
            },
            x,
        )
    }

    #[test]
    fn centred_crops() {
        let expected: Vec<f64> = [106, 107, 108, 111, 112, 113, 0, 1, 2, 3, 4, 5]
            .iter()
            .map(|&b| f64::from(b) * 2.0 - 1.0)
            .collect();
        assert_eq!(gather(Augment::default(), 0), expected);
    }

    #[test]
    fn all_eight_dihedral_transforms_occur() {
        let (bytes, order) = ([0x0201_0403_u32], [0; 64]);
        let mut s = Setup::<f64>::new();
        let (bytes, table, order) = (s.words(&bytes), s.words(&[0, 2, 2]), s.words(&order));
        let scales = s.words(&[0.0_f32, 1.0].map(f32::to_bits));
        let augment = Augment { crop: false, flip_x: true, flip_y: true, turn: true };
        let x = s.out(64 * 4);
        let gather = GatherBatch {
            n: 64,
            dims: Dims::new(1, 2, 2),
            augment,
            sample: SampleType::U8,
            scales,
            bytes,
            table,
            order,
            x,
        };
        let seen: std::collections::BTreeSet<Vec<u8>> = s
            .run(&gather, x)
            .chunks(4)
            .map(|square| square.iter().map(|v| *v as u8).collect())
            .collect();
        assert_eq!(seen.len(), 8, "{seen:?}");
        // Every dihedral transform keeps 3 and 2, and 4 and 1, at opposite corners.
        assert!(seen.iter().all(|square| square[0] + square[3] == 5), "{seen:?}");
    }

    #[test]
    fn augmentation_uses_the_documented_random_words() {
        let augment = Augment { crop: true, flip_x: true, flip_y: true, turn: false };
        let mut seen = std::collections::HashSet::new();
        for step in 0..64 {
            let got = gather(augment, step);
            let word = |entry: u32, j: u32| rng::word(entry, step, 0x6a7468 + j, 42);
            for (i, [height, width, base]) in [[4, 5, 100], [2, 3, 0]].into_iter().enumerate() {
                let entry = 1 + i as u32;
                let (top, left) = (word(entry, 0) % (height - 1), word(entry, 1) % (width - 2));
                for h in 0..2 {
                    for w in 0..3 {
                        let from_w = if word(entry, 2) >= 1 << 31 { 2 - w } else { w };
                        let from_h = if word(entry, 3) >= 1 << 31 { 1 - h } else { h };
                        let byte = base + (top + from_h) * width + left + from_w;
                        assert_eq!(got[i * 6 + (h * 3 + w) as usize], f64::from(byte) * 2.0 - 1.0);
                    }
                }
            }
            seen.insert(got[0] as i64);
        }
        assert!(seen.len() > 10, "{seen:?}");
    }
}
