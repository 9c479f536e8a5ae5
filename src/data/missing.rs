//! Missing values: those that are not finite, if `data.nan` is `mask`.
//!
//! A stored value stays as it is. [`Encoding::decode`](super::Encoding::decode) and `gather_batch`
//! make it [`MISSING`], a mark that devices compare by its bits,
//! because they may assume that no value is NaN.

use crate::raster::fill::pull_push;
use crate::sample_type::MISSING;
use crate::shape::Dims;

/// Replaces the marks in an image (H,W,C) by a smooth interpolation of the other values of their
/// channel, as `FillMissing` does; by 0 if all values of the channel are missing. Returns where
/// they were (H,W,C), or `None` if there are none.
pub fn fill(values: &mut [f32], dims: Dims) -> Option<Vec<bool>> {
    if !values.contains(&MISSING) {
        return None;
    }
    let missing: Vec<bool> = values.iter().map(|value| *value == MISSING).collect();
    let c = dims.c;
    for channel in 0..c {
        let known: Vec<bool> = missing.iter().skip(channel).step_by(c).map(|gap| !gap).collect();
        if known.iter().all(|known| *known) {
            continue;
        }
        let plane: Vec<f32> = values.iter().skip(channel).step_by(c).copied().collect();
        let filled = pull_push(dims.size(), plane, known);
        let places = values.iter_mut().skip(channel).step_by(c);
        places.zip(filled).for_each(|(to, from)| *to = from);
    }
    Some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_is_filled_from_its_own_values() {
        let mut values = [1.0, MISSING, 2.0, MISSING, MISSING, MISSING, 3.0, MISSING];
        let missing = fill(&mut values, Dims::new(2, 2, 2)).unwrap();
        assert_eq!(missing, [false, true, false, true, true, true, false, true]);
        assert_eq!(values, [1.0, 0.0, 2.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
        assert_eq!(fill(&mut values, Dims::new(2, 2, 2)), None);
    }
}
