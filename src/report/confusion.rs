//! How a classifier did: errors with their interval, and which classes it took for which.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

use crate::report::chart::{DRAWN, INK, TEXT, TITLE, fine, page, text};
use crate::report::picture::Picture;

/// Side of the matrix in pixels, about.
const SIDE: usize = 520;
/// Most characters of a class's name.
const NAME: usize = 14;
/// Most classes whose cells have numbers and whose lines have names.
const NUMBERED: usize = 30;

/// How often which class was taken for which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// The classes' names.
    pub classes: Vec<String>,
    /// Rows by the true class, columns by the class found.
    pub counts: Vec<Vec<u64>>,
}

/// A share of failures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Failures.
    pub wrong: u64,
    /// Of so many.
    pub of: u64,
    /// Their share.
    pub error: f64,
    /// The 95 % interval of the share.
    pub interval: [f64; 2],
}

impl Rate {
    /// The share of `wrong` in `of`, with Wilson's interval (Wilson, "Probable Inference, the Law
    /// of Succession, and Statistical Inference", 1927).
    pub fn new(wrong: u64, of: u64) -> Self {
        const Z: f64 = 1.959_963_984_540_054;
        let n = of.max(1) as f64;
        let error = wrong as f64 / n;
        let middle = (error + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half =
            Z / (1.0 + Z * Z / n) * (error * (1.0 - error) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self { wrong, of, error, interval: [(middle - half).max(0.0), (middle + half).min(1.0)] }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval;
        write!(f, "{:.2} % ({:.2}–{:.2})", 100.0 * self.error, 100.0 * low, 100.0 * high)
    }
}

impl Confusion {
    /// Counts what was found for what is true.
    pub fn new(classes: &[String], truth: &[u32], found: &[u32]) -> Self {
        assert_eq!(truth.len(), found.len(), "an answer for each image");
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        truth
            .iter()
            .zip(found)
            .for_each(|(truth, found)| counts[*truth as usize][*found as usize] += 1);
        Self { classes: classes.to_vec(), counts }
    }

    /// The share of errors.
    pub fn rate(&self) -> Rate {
        let all: u64 = self.counts.iter().flatten().sum();
        let right: u64 = self.counts.iter().enumerate().map(|(class, row)| row[class]).sum();
        Rate::new(all - right, all)
    }

    /// The matrix as a picture: true classes from top to bottom, found ones from left to right; the
    /// darker, the larger the share of the row.
    pub fn picture(&self, title: &str) -> Picture {
        const LEFT: usize = 150;
        const TOP: usize = 56;
        let count = self.classes.len().max(1);
        let cell = (SIDE / count).clamp(2, 64);
        let side = cell * count;
        let names = count <= NUMBERED;
        let bottom = if names { 130 } else { 40 };
        let width = (LEFT + side + 24).max(title.chars().count() * TITLE as usize * 6 / 10 + 24);
        page((width as u32, (TOP + side + bottom) as u32), |area| {
            area.draw_text(title, &text(TITLE, INK), (fine(12), fine(12))).expect(DRAWN);
            for (row, counts) in self.counts.iter().enumerate() {
                let all = counts.iter().sum::<u64>().max(1);
                for (column, number) in counts.iter().enumerate() {
                    let share = *number as f64 / all as f64;
                    // errors are few: the square root makes them visible
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
                let short: String = if name.chars().count() > NAME {
                    name.chars().take(NAME - 1).chain(['…']).collect()
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
                "found class",
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
    fn rates_have_wilsons_interval() {
        // 10 of 100: 5.52 % to 17.44 %
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
    fn answers_are_counted_where_they_belong() {
        let classes: Vec<String> =
            ["cat", "dog", "a very long name of a class"].map(String::from).to_vec();
        let confusion = Confusion::new(&classes, &[0, 0, 1, 2, 2, 2], &[0, 1, 1, 2, 2, 0]);
        assert_eq!(confusion.counts, [[1, 1, 0], [0, 1, 0], [1, 0, 2]]);
        assert_eq!((confusion.rate().wrong, confusion.rate().of), (2, 6));
        let picture = confusion.picture("three classes");
        assert!(
            picture.w > 200
                && picture.h > 200
                && picture != Confusion::new(&classes, &[0], &[1]).picture("three classes")
        );
        let many: Vec<String> = (0..300).map(|i| i.to_string()).collect();
        assert!(Confusion::new(&many, &[1], &[2]).picture("many").h > 600);
    }
}
