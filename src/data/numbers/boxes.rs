//! Boxes of an array that together are a range of its elements in C order.

/// A box: the first index and the size along each axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub start: Vec<u64>,
    pub size: Vec<u64>,
}

/// The boxes of `count` elements from the flat index `first`, in order. The elements of a box in C
/// order are consecutive. There are at most two boxes for each axis.
pub(super) fn boxes(shape: &[usize], first: u64, count: u64) -> Vec<Block> {
    let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    let (mut at, end) = (first, first + count);
    let mut boxes = Vec::new();
    while at < end {
        let (mut rest, mut start) = (at, vec![0; shape.len()]);
        for axis in (0..shape.len()).rev() {
            start[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        // Along the outermost axis on which a whole row begins here and fits.
        let mut size = vec![1; shape.len()];
        for axis in 0..shape.len() {
            let row: u64 = shape[axis + 1..].iter().product();
            if at % row == 0 && end - at >= row {
                size[axis] = ((end - at) / row).min(shape[axis] - start[axis]);
                size[axis + 1..].copy_from_slice(&shape[axis + 1..]);
                at += size[axis] * row;
                break;
            }
        }
        boxes.push(Block { start, size });
    }
    boxes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flat indices of a box.
    fn indices(shape: &[usize], block: &Block) -> Vec<u64> {
        let count: u64 = block.size.iter().product();
        let index = |i: u64| {
            let (mut rest, mut flat, mut step) = (i, 0, 1);
            for axis in (0..shape.len()).rev() {
                flat += (block.start[axis] + rest % block.size[axis]) * step;
                rest /= block.size[axis];
                step *= shape[axis] as u64;
            }
            flat
        };
        (0..count).map(index).collect()
    }

    #[test]
    fn boxes_cover_every_range_in_order() {
        for shape in [&[5][..], &[3, 4], &[2, 3, 1, 4]] {
            let len: u64 = shape.iter().product::<usize>() as u64;
            for first in 0..len {
                for count in 0..=len - first {
                    let boxes = boxes(shape, first, count);
                    let all: Vec<u64> = boxes.iter().flat_map(|b| indices(shape, b)).collect();
                    assert_eq!(all, (first..first + count).collect::<Vec<_>>());
                    assert!(boxes.len() <= 2 * shape.len());
                }
            }
        }
    }
}
