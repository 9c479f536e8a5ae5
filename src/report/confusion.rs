//! Results of a classifier: the error rate with its confidence interval, and the confusion matrix.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

use crate::report::chart::{DRAWN, INK, TEXT, TITLE, fine, page, text};
use crate::report::picture::Picture;
use crate::shape::Size;

/// Approximate side of the drawn matrix in pixels.
const SIDE: usize = 520;
/// Maximum number of characters of a class name in the picture; the margins have room for as many.
const MAX_NAME: usize = 14;
/// Maximum number of classes for which cells have numbers and rows have names. With more, the cells
/// are too small for text.
const MAX_NUMBERED: usize = 30;

/// A confusion matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Number of images, by true class (rows) and predicted class (columns).
    pub counts: Vec<Vec<u64>>,
}

/// An error rate with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Number of errors.
    pub wrong: u64,
    /// Number of trials.
    pub of: u64,
    /// The error rate, `wrong` / `of`.
    pub error: f64,
    /// The 95 % confidence interval of the error rate.
    pub interval: [f64; 2],
}

impl Rate {
    /// The rate of `wrong` errors in `of` trials, with the Wilson score interval (Wilson, "Probable
    /// Inference, the Law of Succession, and Statistical Inference", 1927).
    pub fn new(wrong: u64, of: u64) -> Self {
        // The 97.5 % quantile of the standard normal distribution.
        const Z: f64 = 1.959_963_984_540_054;
        let n = of.max(1) as f64;
        let error = wrong as f64 / n;
        let centre = (error + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half =
            Z / (1.0 + Z * Z / n) * (error * (1.0 - error) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self { wrong, of, error, interval: [(centre - half).max(0.0), (centre + half).min(1.0)] }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval;
        write!(f, "{:.2} % ({:.2}–{:.2})", 100.0 * self.error, 100.0 * low, 100.0 * high)
    }
}

impl Confusion {
    /// Counts the images by true class and predicted class.
    ///
    /// # Panics
    /// If `truth` and `predicted` have different lengths, or a class is out of range.
    pub fn new(classes: &[String], truth: &[u32], predicted: &[u32]) -> Self {
        assert_eq!(truth.len(), predicted.len(), "a prediction for each image");
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        truth
            .iter()
            .zip(predicted)
            .for_each(|(truth, predicted)| counts[*truth as usize][*predicted as usize] += 1);
        Self { classes: classes.to_vec(), counts }
    }

    /// The error rate over all images.
    pub fn rate(&self) -> Rate {
        let all: u64 = self.counts.iter().flatten().sum();
        let correct: u64 = self.counts.iter().enumerate().map(|(class, row)| row[class]).sum();
        Rate::new(all - correct, all)
    }

    /// Draws the matrix: true classes from top to bottom, predicted classes from left to right. A
    /// darker cell is a larger fraction of its row.
    pub fn picture(&self, title: &str) -> Picture {
        const LEFT: usize = 150;
        const TOP: usize = 56;
        let count = self.classes.len().max(1);
        let cell = (SIDE / count).clamp(2, 64);
        let side = cell * count;
        let names = count <= MAX_NUMBERED;
        let bottom = if names { 130 } else { 40 };
        let width = (LEFT + side + 24).max(title.chars().count() * TITLE as usize * 6 / 10 + 24);
        page(Size::new(TOP + side + bottom, width), |area| {
            area.draw_text(title, &text(TITLE, INK), (fine(12), fine(12))).expect(DRAWN);
            for (row, counts) in self.counts.iter().enumerate() {
                let all = counts.iter().sum::<u64>().max(1);
                for (column, number) in counts.iter().enumerate() {
                    let share = *number as f64 / all as f64;
                    // The square root makes rare errors visible.
                    let base =
                        if row == column { RGBColor(0, 114, 178) } else { RGBColor(213, 94, 0) };
                    let depth = share.sqrt();
                    let mix = |of: u8| (255.0 - (255.0 - f64::from(of)) * depth).round() as u8;
                    let colour = RGBColor(mix(base.0), mix(base.1), mix(base.2));
                    let (left, top) = (LEFT + column * cell, TOP + row * cell);
                    let corners =
                        [(fine(left), fine(top)), (fine(left + cell) - 1, fine(top + cell) - 1)];
                    area.draw(&Rectangle::new(corners, colour.filled())).expect(DRAWN);
                    if names && *number > 0 {
                        let ink = if depth > 0.7 { WHITE } else { INK };
                        let small = (cell as u32 * 2 / 5).clamp(8, TEXT);
                        let style = text(small, ink).pos(Pos::new(HPos::Center, VPos::Center));
                        area.draw_text(
                            &number.to_string(),
                            &style,
                            (fine(left + cell / 2), fine(top + cell / 2)),
                        )
                        .expect(DRAWN);
                    }
                }
            }
            let size = TEXT.min(cell as u32).max(9);
            for (class, name) in self.classes.iter().enumerate().filter(|_| names) {
                let short: String = if name.chars().count() > MAX_NAME {
                    name.chars().take(MAX_NAME - 1).chain(['…']).collect()
                } else {
                    name.clone()
                };
                let middle = class * cell + cell / 2;
                let beside = text(size, INK).pos(Pos::new(HPos::Right, VPos::Center));
                area.draw_text(&short, &beside, (fine(LEFT - 6), fine(TOP + middle))).expect(DRAWN);
                let below = text(size, INK)
                    .transform(FontTransform::Rotate90)
                    .pos(Pos::new(HPos::Left, VPos::Center));
                area.draw_text(&short, &below, (fine(LEFT + middle), fine(TOP + side + 6)))
                    .expect(DRAWN);
            }
            let axis = text(TEXT, RGBColor(110, 110, 110));
            let up = axis
                .clone()
                .transform(FontTransform::Rotate270)
                .pos(Pos::new(HPos::Center, VPos::Center));
            area.draw_text("true class", &up, (fine(14), fine(TOP + side / 2))).expect(DRAWN);
            let below = axis.pos(Pos::new(HPos::Center, VPos::Bottom));
            area.draw_text(
                "predicted class",
                &below,
                (fine(LEFT + side / 2), fine(TOP + side + bottom - 8)),
            )
            .expect(DRAWN);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_wilson_interval() {
        // 10 of 100: 5.52 % to 17.44 %.
        let rate = Rate::new(10, 100);
        assert!(
            (rate.interval[0] - 0.0552).abs() < 1e-4 && (rate.interval[1] - 0.1744).abs() < 1e-4,
            "{rate:?}"
        );
        assert_eq!(rate.to_string(), "10.00 % (5.52–17.44)");
        assert_eq!(Rate::new(0, 50).interval[0], 0.0);
        assert_eq!((Rate::new(50, 50).interval[1], Rate::new(0, 0).error), (1.0, 0.0));
    }

    #[test]
    fn images_are_counted_by_true_and_predicted_class() {
        let classes: Vec<String> =
            ["cat", "dog", "a very long name of a class"].map(String::from).to_vec();
        let confusion = Confusion::new(&classes, &[0, 0, 1, 2, 2, 2], &[0, 1, 1, 2, 2, 0]);
        assert_eq!(confusion.counts, [[1, 1, 0], [0, 1, 0], [1, 0, 2]]);
        assert_eq!((confusion.rate().wrong, confusion.rate().of), (2, 6));
    }

    #[test]
    fn the_picture_depends_on_the_counts() {
        let classes: Vec<String> =
            ["cat", "a very long name of a class"].map(String::from).to_vec();
        let picture = Confusion::new(&classes, &[0, 1], &[0, 1]).picture("two classes");
        assert!(picture.dims.w > 200 && picture.dims.h > 200);
        assert_ne!(picture, Confusion::new(&classes, &[0], &[1]).picture("two classes"));
    }

    #[test]
    fn many_classes_are_drawn_without_names() {
        let many: Vec<String> = (0..300).map(|i| i.to_string()).collect();
        assert!(Confusion::new(&many, &[1], &[2]).picture("many").dims.h > 600);
    }
}
