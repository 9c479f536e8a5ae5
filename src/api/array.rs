use std::ops::{Index, IndexMut};
use std::path::Path;

use crate::data::numbers::npy_header;
use crate::error::{Error, Result};
use crate::files;
use crate::shape::{Dims, Size, to_nchw, to_nhwc};

/// Images, codes or features: `f32` values of shape N×C×H×W in row-major order.
///
/// N is the number of samples, C of channels, H of rows and W of columns; W varies fastest. Pixels
/// of images are on the scale 0 to 1. A flat code or feature vector of D units has the shape
/// N×D×1×1.
///
/// # Examples
///
/// ```
/// use csae::Array;
///
/// // Two gray images of 2 rows and 3 columns.
/// let images = Array::new([2, 1, 2, 3], (0..12).map(|i| i as f32 / 11.0).collect())?;
/// assert_eq!(images.size(), csae::Size::new(2, 3));
/// assert_eq!(images[[1, 0, 0, 2]], 8.0 / 11.0);
/// assert_eq!(images.sample(1).len(), 6);
/// # Ok::<(), csae::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl Array {
    /// An array of a shape (N, C, H, W) from its values in row-major order.
    ///
    /// # Errors
    /// When the number of values is not N·C·H·W, or is 0.
    pub fn new(shape: [usize; 4], values: Vec<f32>) -> Result<Self> {
        check(shape, values.len())?;
        Ok(Self { shape, values })
    }

    /// An array of a shape (N, C, H, W) from values with the channels innermost (N, H, W, C), the
    /// order of most image libraries.
    ///
    /// # Errors
    /// As [`Array::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// let rgb = csae::Array::from_nhwc([1, 3, 1, 2], &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])?;
    /// assert_eq!(rgb.values(), [0.1, 0.4, 0.2, 0.5, 0.3, 0.6]);
    /// # Ok::<(), csae::Error>(())
    /// ```
    pub fn from_nhwc(shape: [usize; 4], values: &[f32]) -> Result<Self> {
        check(shape, values.len())?;
        let [_, c, h, w] = shape;
        Ok(Self { shape, values: to_nchw(values, Dims::new(c, h, w)) })
    }

    /// One array of all samples of several arrays, in order.
    ///
    /// # Errors
    /// When there is no array, or their samples differ in shape.
    pub fn stack<'a>(arrays: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let mut arrays = arrays.into_iter();
        let first = arrays.next();
        let mut all = first.ok_or_else(|| Error::usage("no arrays to stack"))?.clone();
        for array in arrays {
            if array.dims() != all.dims() {
                return Err(Error::usage(format!(
                    "samples of {} cannot be stacked with samples of {}; bring them to one shape",
                    array.dims(),
                    all.dims()
                )));
            }
            all.shape[0] += array.shape[0];
            all.values.extend_from_slice(&array.values);
        }
        Ok(all)
    }

    /// The shape: N, C, H, W.
    pub const fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Number of samples (N), at least 1.
    #[expect(clippy::len_without_is_empty, reason = "an array always has a sample")]
    pub const fn len(&self) -> usize {
        self.shape[0]
    }

    /// Number of channels (C).
    pub const fn channels(&self) -> usize {
        self.shape[1]
    }

    /// Height and width (H, W).
    pub const fn size(&self) -> Size {
        Size { h: self.shape[2], w: self.shape[3] }
    }

    /// All values in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values in row-major order, mutable.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// All values in row-major order, without a copy.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// All values with the channels innermost (N, H, W, C), the order of most image libraries.
    pub fn to_nhwc(&self) -> Vec<f32> {
        to_nhwc(&self.values, self.dims())
    }

    /// The values of sample `i` (C, H, W).
    ///
    /// # Panics
    /// When `i` is not below [`Array::len`].
    pub fn sample(&self, i: usize) -> &[f32] {
        let len = self.dims().len();
        &self.values[i * len..(i + 1) * len]
    }

    /// Writes a NumPy file (`.npy`, `<f4`) of the shape N×C×H×W, or N×C if H and W are 1.
    ///
    /// # Errors
    /// When the file cannot be written; an existing file then stays as it was.
    pub fn save_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let [n, c, h, w] = self.shape;
        let shape = if h * w == 1 { vec![n, c] } else { vec![n, c, h, w] };
        let mut bytes = npy_header::encode("<f4", &shape);
        bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        files::write_atomically(path.as_ref(), &bytes)
    }

    /// The size of one sample.
    pub(super) const fn dims(&self) -> Dims {
        let [_, c, h, w] = self.shape;
        Dims::new(c, h, w)
    }

    /// An array of samples of size `dims`, from values with the channels innermost.
    pub(super) fn of_samples(dims: Dims, nhwc: &[f32]) -> Self {
        let shape = [nhwc.len() / dims.len(), dims.c, dims.h, dims.w];
        Self { shape, values: to_nchw(nhwc, dims) }
    }
}

fn check(shape: [usize; 4], values: usize) -> Result<()> {
    let wanted = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
    if values == 0 || wanted != Some(values) {
        return Err(Error::usage(format!(
            "{values} values do not fill an array of shape {shape:?} (N, C, H, W); give exactly \
             N·C·H·W values, at least one"
        )));
    }
    Ok(())
}

/// The value at N, C, H, W.
impl Index<[usize; 4]> for Array {
    type Output = f32;

    fn index(&self, at: [usize; 4]) -> &f32 {
        &self.values[self.place(at)]
    }
}

/// The value at N, C, H, W.
impl IndexMut<[usize; 4]> for Array {
    fn index_mut(&mut self, at: [usize; 4]) -> &mut f32 {
        let place = self.place(at);
        &mut self.values[place]
    }
}

impl Array {
    fn place(&self, at: [usize; 4]) -> usize {
        let inside = at.iter().zip(self.shape).all(|(at, side)| *at < side);
        assert!(inside, "index {at:?} is out of range for an array of shape {:?}", self.shape);
        let [_, c, h, w] = self.shape;
        ((at[0] * c + at[1]) * h + at[2]) * w + at[3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_permutations() {
        let nhwc: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let array = Array::from_nhwc([2, 3, 2, 2], &nhwc).unwrap();
        assert_eq!(array.to_nhwc(), nhwc);
        // Row 1, column 0 of the second image is pixel 6; the value is in channel 2.
        assert_eq!(array[[1, 2, 1, 0]], 20.0);
        assert_eq!(array.sample(1)[2 * 4 + 2], 20.0);
    }

    #[test]
    fn shapes_are_checked() {
        for (shape, values) in
            [([1, 1, 2, 2], 3), ([0, 1, 2, 2], 0), ([usize::MAX, 2, 1, 1], usize::MAX - 1)]
        {
            assert!(check(shape, values).is_err(), "{shape:?} {values}");
        }
        let one = Array::new([1, 1, 2, 2], vec![0.0; 4]).unwrap();
        let other = Array::new([1, 2, 2, 1], vec![0.0; 4]).unwrap();
        assert_eq!(Array::stack([&one, &one]).unwrap().shape(), [2, 1, 2, 2]);
        assert!(Array::stack([&one, &other]).is_err() && Array::stack([]).is_err());
    }
}
