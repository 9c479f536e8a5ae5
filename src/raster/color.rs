//! Conversion between RGB and YCbCr by ITU-R BT.601 with studio swing (limited range), like
//! MATLAB's `rgb2ycbcr` and `ycbcr2rgb` on floats: RGB is 0…1, Y is 16/255…235/255, Cb and Cr are
//! 16/255…240/255.
//!
//! Published super-resolution results are measured on this Y. It differs from the full-range luma
//! of gray images (`data::images`).

/// Weights of red, green and blue in luma (BT.601).
pub(crate) const LUMA: [f64; 3] = [0.299, 0.587, 0.114];
/// Y: the value of black, and the distance from black to white.
pub(crate) const Y: [f64; 2] = [16.0 / 255.0, 219.0 / 255.0];
/// Cb and Cr: the value of zero, and the distance from minimum to maximum.
const C: [f64; 2] = [128.0 / 255.0, 224.0 / 255.0];

/// Rows of an orthonormal transform of red, green and blue: luma and two chroma planes, as in
/// CBM3D (Dabov et al., "Color Image Denoising via Sparse 3D Collaborative Filtering", ICIP 2007),
/// with rows of length 1. White noise keeps its standard deviation.
pub const OPPONENT: [[f64; 3]; 3] = {
    // 1/√3, 1/√2 and 1/√6.
    let [third, half, sixth] =
        [0.577_350_269_189_625_8, std::f64::consts::FRAC_1_SQRT_2, 0.408_248_290_463_863];
    [[third, third, third], [half, 0.0, -half], [sixth, -2.0 * sixth, sixth]]
};

/// The value of plane `plane` for a sum of 0, so that the middle gray is 0.5 in all planes: models
/// know values from 0 to 1.
pub const fn opponent_zero(plane: usize) -> f64 {
    let [red, green, blue] = OPPONENT[plane];
    0.5 * (1.0 - red - green - blue)
}

/// Converts RGB (…,3) to luma and chroma planes (…,3) by [`OPPONENT`] and [`opponent_zero`].
pub fn to_opponent(rgb: &[f32]) -> Vec<f32> {
    let convert = |p: &[f32]| {
        [0, 1, 2].map(|plane| {
            let products = OPPONENT[plane].iter().zip(p).map(|(row, v)| row * f64::from(*v));
            (opponent_zero(plane) + products.sum::<f64>()) as f32
        })
    };
    rgb.chunks_exact(3).flat_map(convert).collect()
}

/// Converts luma and chroma planes (…,3) to RGB (…,3): the inverse of [`to_opponent`].
pub fn from_opponent(planes: &[f32]) -> Vec<f32> {
    let convert = |p: &[f32]| {
        [0, 1, 2].map(|channel| {
            let product = |plane: usize| {
                OPPONENT[plane][channel] * (f64::from(p[plane]) - opponent_zero(plane))
            };
            (0..3).map(product).sum::<f64>() as f32
        })
    };
    planes.chunks_exact(3).flat_map(convert).collect()
}

/// Converts RGB (…,3) to the YCbCr of JPEG files (…,3; JFIF): the full range, zero chroma at 0.5.
pub fn to_jpeg(rgb: &[f32]) -> Vec<f32> {
    let convert = |p: &[f32]| {
        let luma = full_range_luma(p);
        let chroma = |v: f32, weight: f64| 0.5 + 0.5 * (f64::from(v) - luma) / (1.0 - weight);
        [luma, chroma(p[2], LUMA[2]), chroma(p[0], LUMA[0])].map(|v| v as f32)
    };
    rgb.chunks_exact(3).flat_map(convert).collect()
}

/// Converts the YCbCr of JPEG files (…,3) to RGB (…,3): the inverse of [`to_jpeg`].
pub fn from_jpeg(ycbcr: &[f32]) -> Vec<f32> {
    let convert = |p: &[f32]| {
        let luma = f64::from(p[0]);
        let difference = |v: f32, weight: f64| (f64::from(v) - 0.5) * 2.0 * (1.0 - weight);
        let (blue, red) = (luma + difference(p[1], LUMA[2]), luma + difference(p[2], LUMA[0]));
        let green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1];
        [red, green, blue].map(|v| v as f32)
    };
    ycbcr.chunks_exact(3).flat_map(convert).collect()
}

fn full_range_luma(rgb: &[f32]) -> f64 {
    LUMA.iter().zip(rgb).map(|(weight, &v)| weight * f64::from(v)).sum()
}

/// Returns the Y plane (H,W) of RGB pixels (H,W,3) or gray pixels (H,W,1). Gray is treated as
/// R = G = B.
///
/// # Panics
/// If `c` is neither 1 nor 3.
pub fn luma(pixels: &[f32], c: usize) -> Vec<f32> {
    assert!(c == 1 || c == 3, "gray or RGB");
    let luma = |pixel: &[f32]| if c == 1 { f64::from(pixel[0]) } else { full_range_luma(pixel) };
    pixels.chunks_exact(c).map(|pixel| (Y[0] + Y[1] * luma(pixel)) as f32).collect()
}

/// Converts RGB (…,3) to YCbCr (…,3).
pub fn rgb_to_ycbcr(rgb: &[f32]) -> Vec<f32> {
    let convert = |p: &[f32]| {
        let luma = full_range_luma(p);
        // Blue − luma has the range ±(1 − 0.114), red − luma the range ±(1 − 0.299).
        let chroma =
            |v: f32, weight: f64| C[0] + C[1] * 0.5 * (f64::from(v) - luma) / (1.0 - weight);
        [Y[0] + Y[1] * luma, chroma(p[2], LUMA[2]), chroma(p[0], LUMA[0])].map(|v| v as f32)
    };
    rgb.chunks_exact(3).flat_map(convert).collect()
}

/// Converts YCbCr (…,3) to RGB (…,3): the inverse of [`rgb_to_ycbcr`]. Values are not clipped.
pub fn ycbcr_to_rgb(ycbcr: &[f32]) -> Vec<f32> {
    let convert = |p: &[f32]| {
        let luma = (f64::from(p[0]) - Y[0]) / Y[1];
        let difference = |v: f32, weight: f64| (f64::from(v) - C[0]) / C[1] * 2.0 * (1.0 - weight);
        let (blue, red) = (luma + difference(p[1], LUMA[2]), luma + difference(p[2], LUMA[0]));
        let green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1];
        [red, green, blue].map(|v| v as f32)
    };
    ycbcr.chunks_exact(3).flat_map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix of MATLAB's `rgb2ycbcr`, on the scale 0–255: offset, red, green, blue.
    const MATLAB: [[f64; 4]; 3] = [
        [16.0, 65.481, 128.553, 24.966],
        [128.0, -37.797, -74.203, 112.0],
        [128.0, 112.0, -93.786, -18.214],
    ];

    #[test]
    fn ycbcr_equals_matlabs_matrix_and_is_invertible() {
        let rgb: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 / 100.0).collect();
        let ycbcr = rgb_to_ycbcr(&rgb);
        for (p, q) in rgb.chunks(3).zip(ycbcr.chunks(3)) {
            for (row, got) in MATLAB.iter().zip(q) {
                let expected = row[0] + (0..3).map(|i| row[1 + i] * f64::from(p[i])).sum::<f64>();
                // MATLAB's coefficients are rounded to three decimals.
                assert!((f64::from(*got) * 255.0 - expected).abs() < 2e-3, "{got} {expected}");
            }
        }
        let full = to_jpeg(&rgb);
        assert!(from_jpeg(&full).iter().zip(&rgb).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(to_jpeg(&[1.0, 1.0, 1.0]), [1.0, 0.5, 0.5]);
        assert!(ycbcr_to_rgb(&ycbcr).iter().zip(&rgb).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(luma(&rgb, 3), ycbcr.iter().step_by(3).copied().collect::<Vec<_>>());
    }

    #[test]
    fn opponent_planes_keep_lengths_and_are_invertible() {
        for (i, a) in OPPONENT.iter().enumerate() {
            for (j, b) in OPPONENT.iter().enumerate() {
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-15, "{i} {j}");
            }
        }
        let rgb: Vec<f32> = (0..300).map(|i| ((i * 37) % 101) as f32 / 100.0).collect();
        let planes = to_opponent(&rgb);
        assert!(from_opponent(&planes).iter().zip(&rgb).all(|(a, b)| (a - b).abs() < 1e-6));
        // Gray has no chroma.
        assert_eq!(to_opponent(&[0.5; 3]), [0.5; 3]);
        let [luma, first, second] = to_opponent(&[1.0; 3])[..] else { unreachable!("a pixel") };
        assert!((luma - 0.5 - 0.5 * 3.0_f32.sqrt()).abs() < 1e-6, "{luma}");
        assert!((first - 0.5).abs() < 1e-6 && (second - 0.5).abs() < 1e-6);
    }

    #[test]
    fn gray_is_treated_as_equal_channels() {
        assert_eq!(
            luma(&[0.0, 0.25, 1.0], 1),
            luma(&[0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0], 3)
        );
        let ends: Vec<f32> = luma(&[0.0, 1.0], 1).iter().map(|v| v * 255.0).collect();
        assert!((ends[0] - 16.0).abs() < 1e-4 && (ends[1] - 235.0).abs() < 1e-4, "{ends:?}");
    }
}
