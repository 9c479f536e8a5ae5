//! Average precision of object detection, as COCO's evaluation computes it:
//! <https://github.com/cocodataset/cocoapi>, `pycocotools/cocoeval.py`.

use serde::Serialize;

use crate::annotations::box_files::Object;
use crate::annotations::boxes::{Bounds, Detection};

/// Thresholds on the intersection over union (IoU) from which a detection counts as correct.
pub const THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
/// Number of recalls at which precision is sampled: 0, 0.01, …, 1.
const RECALLS: usize = 101;
/// Maximum number of detections per class and image, as in COCO. Those with the highest scores
/// count.
const MAX_DETECTIONS: usize = 100;

/// Detections matched with the ground truth, over all images so far.
#[derive(Clone, Debug)]
pub struct Tally {
    classes: Vec<ClassTally>,
}

/// The matches of one class.
#[derive(Clone, Debug, Default)]
struct ClassTally {
    /// Number of objects that must be found.
    objects: usize,
    /// The score of each detection, and for each threshold whether the detection is correct. `None`
    /// if it does not count because it matches an ignored object.
    detections: Vec<(f64, [Option<bool>; THRESHOLDS.len()])>,
}

/// The average precision of a detector. A class without objects has `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AveragePrecision {
    /// Average precision of each class at an IoU of 0.5.
    pub ap50: Vec<Option<f64>>,
    /// Average precision of each class, averaged over IoUs of 0.5, 0.55, …, 0.95.
    pub ap: Vec<Option<f64>>,
    /// Mean of `ap50` over the classes with objects. `None` if no class has any.
    pub map50: Option<f64>,
    /// Mean of `ap` over the classes with objects. `None` if no class has any.
    pub map: Option<f64>,
}

impl Tally {
    /// A tally of no image, for a number of classes.
    pub fn new(classes: usize) -> Self {
        Self { classes: vec![ClassTally::default(); classes] }
    }

    /// Matches the detections in an image with its objects.
    pub fn add(&mut self, detections: &[Detection], objects: &[Object]) {
        for (class, tally) in self.classes.iter_mut().enumerate() {
            let mut detections: Vec<&Detection> =
                detections.iter().filter(|detection| detection.class == class).collect();
            detections.sort_by(|a, b| b.score.total_cmp(&a.score));
            detections.truncate(MAX_DETECTIONS);
            // `is_correct` expects ignored objects last.
            let mut objects: Vec<&Object> =
                objects.iter().filter(|object| object.class == class).collect();
            objects.sort_by_key(|object| object.ignored());
            tally.objects += objects.iter().filter(|object| !object.ignored()).count();
            let mut correct = vec![[None; THRESHOLDS.len()]; detections.len()];
            for (t, threshold) in THRESHOLDS.into_iter().enumerate() {
                let mut matched = vec![false; objects.len()];
                for (detection, correct) in detections.iter().zip(&mut correct) {
                    correct[t] = is_correct(&detection.bounds, &objects, &mut matched, threshold);
                }
            }
            tally
                .detections
                .extend(detections.iter().zip(correct).map(|(one, correct)| (one.score, correct)));
        }
    }

    /// The average precision over all images so far.
    pub fn precision(&self) -> AveragePrecision {
        let classes: Vec<Option<[f64; THRESHOLDS.len()]>> =
            self.classes.iter().map(ClassTally::averages).collect();
        let ap50: Vec<Option<f64>> = classes.iter().map(|class| class.map(|ap| ap[0])).collect();
        let ap: Vec<Option<f64>> = classes
            .iter()
            .map(|class| class.map(|ap| ap.iter().sum::<f64>() / ap.len() as f64))
            .collect();
        let mean = |values: &[Option<f64>]| {
            let count = values.iter().flatten().count();
            (count > 0).then(|| values.iter().flatten().sum::<f64>() / count as f64)
        };
        AveragePrecision { map50: mean(&ap50), map: mean(&ap), ap50, ap }
    }
}

/// Whether a detection is correct. It is matched with the unmatched object that it overlaps most,
/// if the overlap reaches `threshold`. The object is marked in `matched`. Returns `None` if the
/// object is ignored. `objects` has ignored objects last.
fn is_correct(
    bounds: &Bounds,
    objects: &[&Object],
    matched: &mut [bool],
    threshold: f64,
) -> Option<bool> {
    // COCO's `min(t, 1 − 1e-10)`: a threshold of 1 allows for rounding.
    let (mut best, mut found) = (threshold.min(1.0 - 1e-10), None);
    for (i, object) in objects.iter().enumerate() {
        // A crowd can match any number of detections.
        if matched[i] && !object.crowd {
            continue;
        }
        // An ignored object is matched only if no other object is.
        if found.is_some_and(|found: usize| !objects[found].ignored()) && object.ignored() {
            break;
        }
        let overlap = if object.crowd {
            // A crowd is larger than the detection, so the union is replaced by the detection.
            bounds.intersection(&object.bounds).area() / bounds.area().max(f64::MIN_POSITIVE)
        } else {
            bounds.iou(&object.bounds)
        };
        if overlap >= best {
            (best, found) = (overlap, Some(i));
        }
    }
    let Some(found) = found else { return Some(false) };
    matched[found] = true;
    (!objects[found].ignored()).then_some(true)
}

impl ClassTally {
    /// The average precision at each threshold, or `None` without objects.
    fn averages(&self) -> Option<[f64; THRESHOLDS.len()]> {
        if self.objects == 0 {
            return None;
        }
        let mut order: Vec<usize> = (0..self.detections.len()).collect();
        order.sort_by(|a, b| self.detections[*b].0.total_cmp(&self.detections[*a].0));
        Some(std::array::from_fn(|t| {
            let (mut correct, mut all) = (0.0, 0.0);
            // (recall, precision) at each score.
            let mut curve: Vec<(f64, f64)> = Vec::new();
            for is_correct in order.iter().filter_map(|i| self.detections[*i].1[t]) {
                all += 1.0;
                correct += f64::from(u8::from(is_correct));
                curve.push((correct / self.objects as f64, correct / all));
            }
            // Interpolated precision: the maximum at this recall or a higher one.
            for i in (1..curve.len()).rev() {
                curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
            }
            let at = |recall: f64| {
                curve
                    .get(curve.partition_point(|(reached, _)| *reached < recall))
                    .map_or(0.0, |(_, precision)| *precision)
            };
            (0..RECALLS).map(|i| at(i as f64 / (RECALLS - 1) as f64)).sum::<f64>() / RECALLS as f64
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(left: f64, width: f64) -> Object {
        Object {
            class: 0,
            bounds: Bounds { left, top: 0.0, right: left + width, bottom: 10.0 },
            difficult: false,
            crowd: false,
        }
    }

    fn detection(score: f64, left: f64, width: f64) -> Detection {
        Detection { class: 0, score, bounds: object(left, width).bounds }
    }

    fn precision(images: &[(&[Detection], &[Object])]) -> AveragePrecision {
        let mut tally = Tally::new(2);
        images.iter().for_each(|(detections, objects)| tally.add(detections, objects));
        tally.precision()
    }

    #[test]
    fn a_missed_object_limits_recall() {
        let objects = [object(0.0, 10.0), object(50.0, 10.0)];
        // Correct, then wrong: precision 1 up to recall ½, 0 beyond: 51 of 101 recalls.
        let found =
            precision(&[(&[detection(0.9, 0.0, 10.0), detection(0.8, 20.0, 10.0)], &objects)]);
        assert!((found.ap50[0].unwrap() - 51.0 / 101.0).abs() < 1e-12, "{found:?}");
        assert_eq!(found.ap50[1], None);
    }

    #[test]
    fn a_wrong_detection_of_higher_score_lowers_precision() {
        let objects = [object(0.0, 10.0), object(50.0, 10.0)];
        // Wrong, then correct: precision ½ up to recall ½.
        let found =
            precision(&[(&[detection(0.7, 0.0, 10.0), detection(0.8, 20.0, 10.0)], &objects)]);
        assert!((found.map50.unwrap() - 0.5 * 51.0 / 101.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn correct_detections_of_all_objects_give_1() {
        let objects = [object(0.0, 10.0), object(50.0, 10.0)];
        let found =
            precision(&[(&[detection(0.7, 0.0, 10.0), detection(0.8, 50.0, 10.0)], &objects)]);
        assert_eq!(found.map, Some(1.0));
    }

    #[test]
    fn map_averages_over_thresholds() {
        // 10 wide, moved by 2: IoU 8/12 = 0.667, correct at 0.5, 0.55, 0.6 and 0.65.
        let found = precision(&[(&[detection(0.9, 2.0, 10.0)], &[object(0.0, 10.0)])]);
        assert!(found.map50 == Some(1.0) && (found.map.unwrap() - 0.4).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn a_second_detection_of_an_object_is_wrong() {
        let found = precision(&[(
            &[detection(0.9, 0.0, 10.0), detection(0.95, 30.0, 10.0), detection(0.8, 0.0, 10.0)],
            &[object(0.0, 10.0)],
        )]);
        assert!((found.map50.unwrap() - 0.5).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn detections_match_only_objects_of_their_image() {
        let found = precision(&[(&[detection(0.9, 0.0, 10.0)], &[]), (&[], &[object(0.0, 10.0)])]);
        assert_eq!(found.map50, Some(0.0));
    }

    #[test]
    fn ignored_objects_do_not_count() {
        let difficult = Object { difficult: true, ..object(50.0, 10.0) };
        let crowd = Object { crowd: true, ..object(100.0, 100.0) };
        let objects = [difficult, crowd, object(0.0, 10.0)];
        // The difficult object, two in the crowd, and the object that counts.
        let all = [
            detection(0.9, 50.0, 10.0),
            detection(0.8, 100.0, 10.0),
            detection(0.7, 150.0, 10.0),
            detection(0.6, 0.0, 10.0),
        ];
        assert_eq!(precision(&[(&all, &objects)]).map50, Some(1.0));
        assert_eq!(precision(&[(&all[..3], &objects)]).map50, Some(0.0));
    }

    #[test]
    fn without_objects_there_is_no_mean() {
        let difficult = Object { difficult: true, ..object(50.0, 10.0) };
        let found = precision(&[(&[detection(0.9, 50.0, 10.0)], &[difficult])]);
        assert_eq!([found.map50, found.map], [None; 2]);
    }
}
