//! Average precision as COCO's evaluation computes it: <https://github.com/cocodataset/cocoapi>,
//! `pycocotools/cocoeval.py`.

use serde::Serialize;

use crate::data::annotations::box_files::Object;
use crate::data::annotations::boxes::{Bounds, Detection};

/// Overlaps from which a detection is right.
pub const THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
/// Recalls at which precision is read: 0, 0.01, …, 1.
const RECALLS: usize = 101;
/// Detections of a class in an image that are looked at.
const MOST: usize = 100;

/// Detections matched with what is there, image by image.
#[derive(Clone, Debug)]
pub struct Tally {
    classes: Vec<OfClass>,
}

#[derive(Clone, Debug, Default)]
struct OfClass {
    /// Objects that are to be found.
    objects: usize,
    /// Each detection's score and, at each threshold, whether it is right; None where it does not
    /// count.
    found: Vec<(f64, [Option<bool>; THRESHOLDS.len()])>,
}

/// How precise a detector is; None of a class without objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Precision {
    /// Average precision at an overlap of 0.5, of each class.
    pub ap50: Vec<Option<f64>>,
    /// The mean over overlaps of 0.5, 0.55, …, 0.95, of each class.
    pub ap: Vec<Option<f64>>,
    /// Mean of `ap50` over classes.
    pub map50: f64,
    /// Mean of `ap` over classes.
    pub map: f64,
}

impl Tally {
    /// Nothing matched yet.
    pub fn new(classes: usize) -> Self {
        Self { classes: vec![OfClass::default(); classes] }
    }

    /// Matches an image's detections with its objects.
    pub fn add(&mut self, found: &[Detection], objects: &[Object]) {
        for (class, of) in self.classes.iter_mut().enumerate() {
            let mut mine: Vec<&Detection> = found.iter().filter(|one| one.class == class).collect();
            mine.sort_by(|a, b| b.score.total_cmp(&a.score));
            mine.truncate(MOST);
            // those that need not be found come last
            let mut there: Vec<&Object> =
                objects.iter().filter(|object| object.class == class).collect();
            there.sort_by_key(|object| object.ignored());
            of.objects += there.iter().filter(|object| !object.ignored()).count();
            let mut right = vec![[None; THRESHOLDS.len()]; mine.len()];
            for (t, least) in THRESHOLDS.into_iter().enumerate() {
                let mut taken = vec![false; there.len()];
                for (one, right) in mine.iter().zip(&mut right) {
                    right[t] = matched(&one.bounds, &there, &mut taken, least);
                }
            }
            of.found.extend(mine.iter().zip(right).map(|(one, right)| (one.score, right)));
        }
    }

    /// The averages.
    pub fn precision(&self) -> Precision {
        let of: Vec<Option<[f64; THRESHOLDS.len()]>> =
            self.classes.iter().map(OfClass::averages).collect();
        let ap50: Vec<Option<f64>> = of.iter().map(|of| of.map(|all| all[0])).collect();
        let ap: Vec<Option<f64>> =
            of.iter().map(|of| of.map(|all| all.iter().sum::<f64>() / all.len() as f64)).collect();
        let mean = |of: &[Option<f64>]| {
            of.iter().flatten().sum::<f64>() / of.iter().flatten().count().max(1) as f64
        };
        Precision { map50: mean(&ap50), map: mean(&ap), ap50, ap }
    }
}

/// Whether a detection is right: it takes the free object that it overlaps most, by `least` or
/// more; None where that need not be found.
fn matched(bounds: &Bounds, there: &[&Object], taken: &mut [bool], least: f64) -> Option<bool> {
    let (mut best, mut found) = (least.min(1.0 - 1e-10), None);
    for (i, object) in there.iter().enumerate() {
        if taken[i] && !object.crowd {
            continue;
        }
        // what need not be found is only taken by what finds nothing else
        if found.is_some_and(|found: usize| !there[found].ignored()) && object.ignored() {
            break;
        }
        let overlap = if object.crowd {
            bounds.common(&object.bounds).area() / bounds.area().max(f64::MIN_POSITIVE)
        } else {
            bounds.iou(&object.bounds)
        };
        if overlap >= best {
            (best, found) = (overlap, Some(i));
        }
    }
    let Some(found) = found else { return Some(false) };
    taken[found] = true;
    (!there[found].ignored()).then_some(true)
}

impl OfClass {
    fn averages(&self) -> Option<[f64; THRESHOLDS.len()]> {
        if self.objects == 0 {
            return None;
        }
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by(|a, b| self.found[*b].0.total_cmp(&self.found[*a].0));
        Some(std::array::from_fn(|t| {
            let (mut right, mut all) = (0.0, 0.0);
            let mut curve: Vec<(f64, f64)> = Vec::new();
            for verdict in order.iter().filter_map(|i| self.found[*i].1[t]) {
                all += 1.0;
                right += f64::from(u8::from(verdict));
                curve.push((right / self.objects as f64, right / all));
            }
            // the best precision at this recall or beyond
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

    fn found(score: f64, left: f64, width: f64) -> Detection {
        Detection { class: 0, score, bounds: object(left, width).bounds }
    }

    fn precision(images: &[(&[Detection], &[Object])]) -> Precision {
        let mut tally = Tally::new(2);
        images.iter().for_each(|(found, objects)| tally.add(found, objects));
        tally.precision()
    }

    #[test]
    fn one_right_one_wrong_one_missed() {
        let objects = [object(0.0, 10.0), object(50.0, 10.0)];
        // right, wrong: recall ½ at precision 1, nothing beyond: 51 of 101 recalls
        let first = precision(&[(&[found(0.9, 0.0, 10.0), found(0.8, 20.0, 10.0)], &objects)]);
        assert!((first.ap50[0].unwrap() - 51.0 / 101.0).abs() < 1e-12, "{first:?}");
        assert_eq!(first.ap50[1], None);
        // wrong first: precision ½ up to recall ½
        let second = precision(&[(&[found(0.7, 0.0, 10.0), found(0.8, 20.0, 10.0)], &objects)]);
        assert!((second.map50 - 0.5 * 51.0 / 101.0).abs() < 1e-12, "{second:?}");
        // all right
        assert_eq!(
            precision(&[(&[found(0.7, 0.0, 10.0), found(0.8, 50.0, 10.0)], &objects)]).map,
            1.0
        );
    }

    #[test]
    fn overlaps_count_by_how_much_they_are() {
        // 10 wide, moved by 2: overlap 8/12 = 0.667: right at 0.5, 0.55, 0.6, 0.65
        let of = precision(&[(&[found(0.9, 2.0, 10.0)], &[object(0.0, 10.0)])]);
        assert!(of.map50 == 1.0 && (of.map - 0.4).abs() < 1e-12, "{of:?}");
        // the second detection of one object is wrong
        let twice = precision(&[(
            &[found(0.9, 0.0, 10.0), found(0.95, 30.0, 10.0), found(0.8, 0.0, 10.0)],
            &[object(0.0, 10.0)],
        )]);
        assert!((twice.map50 - 0.5).abs() < 1e-12, "{twice:?}");
        // images do not mix
        let apart = precision(&[(&[found(0.9, 0.0, 10.0)], &[]), (&[], &[object(0.0, 10.0)])]);
        assert_eq!(apart.map50, 0.0);
    }

    #[test]
    fn what_need_not_be_found_does_not_count() {
        let difficult = Object { difficult: true, ..object(50.0, 10.0) };
        let crowd = Object { crowd: true, ..object(100.0, 100.0) };
        let objects = [difficult, crowd, object(0.0, 10.0)];
        // a difficult one, two in the crowd, and the one that counts
        let all = [
            found(0.9, 50.0, 10.0),
            found(0.8, 100.0, 10.0),
            found(0.7, 150.0, 10.0),
            found(0.6, 0.0, 10.0),
        ];
        assert_eq!(precision(&[(&all, &objects)]).map50, 1.0);
        assert_eq!(precision(&[(&all[..3], &objects)]).map50, 0.0);
    }
}
