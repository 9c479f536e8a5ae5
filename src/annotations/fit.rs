//! Boxes for another size or orientation of an image.

use image::metadata::Orientation;

use super::boxes::Bounds;
use crate::shape::Size;

/// How boxes are brought to the pixels of their image: they are turned, then scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The size that the boxes are for.
    from: Size,
    /// The orientation by which the image was turned when it was read.
    pub turn: Option<Orientation>,
    /// The ratio of the image's size to the size that the boxes are for.
    pub scale: f64,
}

/// Whether an orientation exchanges width and height.
fn exchanges_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

impl Fit {
    /// How boxes for an image of size `from` fit an image of size `to`, which has the EXIF
    /// orientation `orientation` and was turned by it. `None` if the shapes differ: width and
    /// height have other ratios.
    pub fn new(
        from: Size,
        to: Size,
        orientation: impl FnOnce() -> Option<Orientation>,
    ) -> Option<Self> {
        let is_shape = |w: usize, h: usize| w * to.h == h * to.w;
        if is_shape(from.w, from.h) {
            return Some(Self { from, turn: None, scale: to.w as f64 / from.w as f64 });
        }
        if !is_shape(from.h, from.w) {
            return None;
        }
        let turn = orientation().filter(|orientation| exchanges_sides(*orientation))?;
        Some(Self { from, turn: Some(turn), scale: to.w as f64 / from.h as f64 })
    }

    /// A box in the pixels of the image.
    pub fn apply(&self, bounds: Bounds) -> Bounds {
        let Bounds { left, top, right, bottom } = self.turned(bounds);
        let [left, top, right, bottom] = [left, top, right, bottom].map(|value| value * self.scale);
        Bounds { left, top, right, bottom }
    }

    fn turned(&self, bounds: Bounds) -> Bounds {
        let Bounds { left, top, right, bottom } = bounds;
        let (w, h) = (self.from.w as f64, self.from.h as f64);
        let sides = match self.turn {
            // Clockwise: the lower edge becomes the left one.
            Some(Orientation::Rotate90) => [h - bottom, left, h - top, right],
            Some(Orientation::Rotate270) => [top, w - right, bottom, w - left],
            Some(Orientation::Rotate90FlipH) => [top, left, bottom, right],
            Some(Orientation::Rotate270FlipH) => [h - bottom, w - right, h - top, w - left],
            _ => return bounds,
        };
        let [left, top, right, bottom] = sides;
        Bounds { left, top, right, bottom }
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayImage, Luma};

    use super::*;

    #[test]
    fn boxes_are_turned_with_the_pixels() {
        let (from, to) = (Size::new(6, 10), Size::new(10, 6));
        let bounds = Bounds { left: 1.0, top: 2.0, right: 4.0, bottom: 3.0 };
        for exif in 5..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let inside = |x: u32, y: u32| (1..4).contains(&x) && y == 2;
            let mut image = DynamicImage::from(GrayImage::from_fn(10, 6, |x, y| {
                Luma([u8::from(inside(x, y))])
            }));
            image.apply_orientation(orientation);
            let fit = Fit::new(from, to, || Some(orientation)).unwrap();
            let Bounds { left, top, right, bottom } = fit.apply(bounds);
            let turned = GrayImage::from_fn(6, 10, |x, y| {
                let is_inside = (left..right).contains(&(f64::from(x) + 0.5))
                    && (top..bottom).contains(&(f64::from(y) + 0.5));
                Luma([u8::from(is_inside)])
            });
            assert_eq!(image.to_luma8(), turned, "orientation {exif}");
        }
    }

    #[test]
    fn only_equal_shapes_fit() {
        let fit = |w, h, exif: u8| {
            Fit::new(Size::new(h, w), Size::new(48, 64), || Orientation::from_exif(exif))
        };
        assert_eq!(fit(32, 24, 1).map(|fit| (fit.turn, fit.scale)), Some((None, 2.0)));
        assert_eq!([fit(32, 25, 6), fit(48, 64, 1), fit(48, 64, 3)], [None; 3]);
        let turned = Some(Orientation::Rotate90);
        assert_eq!(fit(24, 32, 6).map(|fit| (fit.turn, fit.scale)), Some((turned, 2.0)));
    }
}
