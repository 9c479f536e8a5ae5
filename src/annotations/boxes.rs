//! Bounding boxes, detections and non-maximum suppression.

use serde::Serialize;

use crate::shape::Size;

/// Non-maximum suppression: of detections of a class with a higher IoU, the one with the highest
/// score remains.
pub const MAX_OVERLAP: f64 = 0.5;
/// Maximum number of detections in an image.
pub const MAX_DETECTIONS: usize = 300;

/// A bounding box in pixels. The coordinates are those of edges: pixel x extends from x to x + 1,
/// and the width of the box is `right - left`.
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

/// A detected object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// The index of its class.
    pub class: usize,
    /// The confidence, 0…1.
    pub score: f64,
    /// The bounding box.
    pub bounds: Bounds,
}

impl Bounds {
    /// The area in pixels; 0 if an edge is beyond the opposite one.
    pub const fn area(&self) -> f64 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// The intersection of two boxes. It has the area 0 if they are disjoint.
    pub const fn intersection(&self, other: &Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }

    /// Intersection over union, 0…1; 0 for two empty boxes.
    pub fn iou(&self, other: &Self) -> f64 {
        let intersection = self.intersection(other).area();
        let union = self.area() + other.area() - intersection;
        if union > 0.0 { intersection / union } else { 0.0 }
    }

    /// The part of the box inside an image of `size`.
    pub const fn clipped(&self, size: Size) -> Self {
        let (right, bottom) = (size.w as f64, size.h as f64);
        self.intersection(&Self { left: 0.0, top: 0.0, right, bottom })
    }
}

/// Non-maximum suppression: a detection is removed if its IoU with a detection of the same class
/// and a higher score exceeds `max_iou`. Returns at most `limit` detections, by decreasing score.
pub fn non_max_suppression(
    mut detections: Vec<Detection>,
    max_iou: f64,
    limit: usize,
) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for one in detections {
        if kept.len() == limit {
            break;
        }
        if kept
            .iter()
            .all(|other| other.class != one.class || other.bounds.iou(&one.bounds) <= max_iou)
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
    fn iou_equals_hand_computations() {
        let a = bounds(0.0, 0.0, 2.0, 2.0);
        assert!((a.iou(&bounds(1.0, 0.0, 3.0, 2.0)) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(
            [a.iou(&a), a.iou(&bounds(2.0, 0.0, 4.0, 2.0)), bounds(1.0, 1.0, 1.0, 5.0).iou(&a)],
            [1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn boxes_are_clipped_to_the_image() {
        assert_eq!(
            bounds(-1.0, -2.0, 9.0, 3.0).clipped(Size::new(2, 5)),
            bounds(0.0, 0.0, 5.0, 2.0)
        );
    }

    #[test]
    fn suppression_keeps_the_highest_score_of_each_class() {
        let one = |class, score, left| Detection {
            class,
            score,
            bounds: bounds(left, 0.0, left + 10.0, 10.0),
        };
        let found = vec![one(0, 0.5, 0.0), one(0, 0.9, 1.0), one(1, 0.4, 0.0), one(0, 0.3, 9.0)];
        let scores = |kept: Vec<Detection>| kept.iter().map(|one| one.score).collect::<Vec<f64>>();
        assert_eq!(scores(non_max_suppression(found.clone(), 0.5, 100)), [0.9, 0.4, 0.3]);
        assert_eq!(scores(non_max_suppression(found.clone(), 0.9, 100)), [0.9, 0.5, 0.4, 0.3]);
        assert_eq!(scores(non_max_suppression(found, 0.5, 1)), [0.9]);
    }
}
