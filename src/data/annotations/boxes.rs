//! Boxes, and which of overlapping ones remain.

use serde::Serialize;

/// A box in pixels of an image: edges, not pixels, so that its width is `right - left`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Lower edge.
    pub bottom: f64,
}

/// What was found somewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Which class.
    pub class: usize,
    /// How sure, 0…1.
    pub score: f64,
    /// Where.
    pub bounds: Bounds,
}

impl Bounds {
    /// Its area; 0 where an edge lies beyond the other.
    pub const fn area(&self) -> f64 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// The part that both have.
    pub const fn common(&self, other: &Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }

    /// Intersection over union.
    pub fn iou(&self, other: &Self) -> f64 {
        let both = self.common(other).area();
        let all = self.area() + other.area() - both;
        if all > 0.0 { both / all } else { 0.0 }
    }

    /// The part inside an image of h×w.
    pub const fn clipped(&self, h: usize, w: usize) -> Self {
        self.common(&Self { left: 0.0, top: 0.0, right: w as f64, bottom: h as f64 })
    }
}

/// Non-maximum suppression, each class by itself: of detections that overlap by more than `most`
/// (intersection over union) the surest one remains; `limit` of all at most, the surest first.
pub fn suppressed(mut found: Vec<Detection>, most: f64, limit: usize) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for one in found {
        if kept.len() == limit {
            break;
        }
        if kept
            .iter()
            .all(|other| other.class != one.class || other.bounds.iou(&one.bounds) <= most)
        {
            kept.push(one);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(left: f64, top: f64, right: f64, bottom: f64) -> Bounds {
        Bounds { left, top, right, bottom }
    }

    #[test]
    fn overlaps_by_hand() {
        let a = bounds(0.0, 0.0, 2.0, 2.0);
        assert!((a.iou(&bounds(1.0, 0.0, 3.0, 2.0)) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(
            [a.iou(&a), a.iou(&bounds(2.0, 0.0, 4.0, 2.0)), bounds(1.0, 1.0, 1.0, 5.0).iou(&a)],
            [1.0, 0.0, 0.0]
        );
        assert_eq!(bounds(-1.0, -2.0, 9.0, 3.0).clipped(2, 5), bounds(0.0, 0.0, 5.0, 2.0));
    }

    #[test]
    fn the_surest_of_a_class_remains() {
        let one = |class, score, left| Detection {
            class,
            score,
            bounds: bounds(left, 0.0, left + 10.0, 10.0),
        };
        let found = vec![one(0, 0.5, 0.0), one(0, 0.9, 1.0), one(1, 0.4, 0.0), one(0, 0.3, 9.0)];
        let scores = |kept: Vec<Detection>| kept.iter().map(|one| one.score).collect::<Vec<f64>>();
        assert_eq!(scores(suppressed(found.clone(), 0.5, 100)), [0.9, 0.4, 0.3]);
        assert_eq!(scores(suppressed(found.clone(), 0.9, 100)), [0.9, 0.5, 0.4, 0.3]);
        assert_eq!(scores(suppressed(found, 0.5, 1)), [0.9]);
    }
}
