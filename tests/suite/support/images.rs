//! Images, bundled and made.

use std::fmt::Write as _;
use std::path::Path;

use csae::internals::annotations::label_image::write_labels;
use csae::internals::report::picture::save_png;
use csae::internals::rng::Stream;
use csae::internals::shape::{Dims, Size};
use serde_json::json;

use super::TempFolder;

/// A bundled texture.
pub const BRICK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/textures/brick.png");
/// Photographs in colour.
pub const PHOTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/photos");
/// A photograph that no bundled model was trained on.
pub const CAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/images/photos/chelsea.webp");

/// The path of a bundled texture.
pub fn texture(name: &str) -> String {
    format!("{}/assets/images/textures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Writes a gray picture of one value.
pub fn plain(path: &str, side: u32, value: u8) {
    std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    image::GrayImage::from_pixel(side, side, image::Luma([value])).save(path).unwrap();
}

/// Writes a picture in colour, about 130x128, that differs for every `i`.
pub fn pattern(path: &str, i: u32) {
    let image = image::RgbImage::from_fn(130 + i % 9, 128 + i % 4, |x, y| {
        image::Rgb([(x * 11 + i * 3) as u8, (y * 13) as u8, (x * y + i) as u8])
    });
    std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// A folder of 40 patterns, `00.png` to `39.png`.
pub fn patterns(folder: &TempFolder) -> String {
    (0..40).for_each(|i| pattern(&folder.path(&format!("photos/{i:02}.png")), i));
    folder.path("photos")
}

/// Sides of the images of [`Shapes`].
pub const SHAPES: [usize; 2] = [48, 64];

/// Images with a bright disc and a dark square each.
#[derive(Debug)]
pub struct Shapes {
    /// A folder in Pascal VOC's layout, with the lists `train` and `test`.
    pub root: String,
    /// Its folder of images.
    pub images: String,
    /// The same annotations in COCO's format.
    pub coco: String,
}

/// An annotation of an image in Pascal VOC's format: names and edges (left, top, right, bottom).
pub fn voc_annotation(objects: &[(&str, [usize; 4])]) -> String {
    let object = |(name, [left, top, right, bottom]): &(&str, [usize; 4])| {
        format!(
            "<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left}</xmin>\
             <ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        )
    };
    format!("<annotation>{}</annotation>", objects.iter().map(object).collect::<String>())
}

/// Makes `count` images of a disc and a square in a folder `name`. Every fourth one is for testing.
pub fn shapes(folder: &TempFolder, name: &str, count: usize) -> Shapes {
    let [h, w] = SHAPES;
    let root = folder.path(name);
    for part in ["JPEGImages", "Annotations", "ImageSets/Main"] {
        folder.create(&format!("{name}/{part}"));
    }
    let (mut images, mut boxes, mut lists) =
        (Vec::new(), Vec::new(), [String::new(), String::new()]);
    for image in 0..count {
        let mut stream = Stream::new(image as u64, "shapes");
        // The disc is in the left half and the square in the right one, or the other way round.
        let swapped = stream.below(2);
        let mut place = |half: usize| {
            [32 * half + 4 + stream.below(10), 4 + stream.below(22), 12 + stream.below(5)]
        };
        let [disc, square] = [place(swapped), place(1 - swapped)];
        let mut pixels = Vec::new();
        for at in 0..h * w {
            let (y, x) = (at / w, at % w);
            let [left, top, side] = disc;
            let r = side as f32 / 2.0;
            let round =
                (y as f32 + 0.5 - top as f32 - r).hypot(x as f32 + 0.5 - left as f32 - r) < r;
            let [left, top, side] = square;
            let inside = (left..left + side).contains(&x) && (top..top + side).contains(&y);
            let value = if round {
                0.9
            } else if inside {
                0.1
            } else {
                0.5
            };
            pixels.push((value + 0.04 * stream.normal()).clamp(0.0, 1.0));
        }
        let path = format!("{root}/JPEGImages/{image:02}.png");
        save_png(Path::new(&path), &pixels, Dims::new(1, h, w)).unwrap();
        let corners = |[left, top, side]: [usize; 3]| [left + 1, top + 1, left + side, top + side];
        let text = voc_annotation(&[("disc", corners(disc)), ("square", corners(square))]);
        folder.write(&format!("{name}/Annotations/{image:02}.xml"), text);
        images.push(json!({"id": image + 7, "file_name": format!("{image:02}.png")}));
        for (category, [left, top, side]) in [(3, disc), (5, square)] {
            boxes.push(json!({
                "image_id": image + 7,
                "category_id": category,
                "bbox": [left, top, side, side],
                "iscrowd": 0,
            }));
        }
        let _ = writeln!(lists[usize::from(image % 4 == 3)], "{image:02}");
    }
    for (part, list) in ["train", "test"].into_iter().zip(lists) {
        folder.write(&format!("{name}/ImageSets/Main/{part}.txt"), list);
    }
    let categories = json!([{"id": 3, "name": "disc"}, {"id": 5, "name": "square"}]);
    let all = json!({"images": images, "annotations": boxes, "categories": categories});
    let coco = folder.write(&format!("{name}.coco.json"), all.to_string());
    Shapes { images: format!("{root}/JPEGImages"), root, coco }
}

/// Side of the images of [`discs`].
pub const DISCS: usize = 48;

/// Makes images of bright discs on a dim, noisy ground (`images`), and labels that number the discs
/// (`labels`), in a folder `name`. Its last part is the seed.
pub fn discs(folder: &TempFolder, name: &str, count: usize) -> String {
    let root = folder.path(name);
    for part in ["images", "labels"] {
        folder.create(&format!("{name}/{part}"));
    }
    for image in 0..count {
        let seed = name.rsplit('/').next().unwrap();
        let mut stream = Stream::new(image as u64, seed);
        let mut centre =
            || [48.0 * stream.uniform(), 48.0 * stream.uniform(), 4.0 + 5.0 * stream.uniform()];
        let centres: [[f32; 3]; 3] = std::array::from_fn(|_| centre());
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for at in 0..DISCS * DISCS {
            let (y, x) = ((at / DISCS) as f32, (at % DISCS) as f32);
            let disc = centres.iter().position(|[cy, cx, r]| (y - cy).hypot(x - cx) < *r);
            let light = 0.3 + 0.3 * f32::from(u8::from(disc.is_some()));
            pixels.push((light + 0.08 * stream.normal()).clamp(0.0, 1.0));
            labels.push(disc.map_or(0, |disc| disc as u8 + 1));
        }
        let path = |part: &str| format!("{root}/{part}/{image}.png");
        save_png(Path::new(&path("images")), &pixels, Dims::new(1, DISCS, DISCS)).unwrap();
        write_labels(Path::new(&path("labels")), &labels, Size::new(DISCS, DISCS)).unwrap();
    }
    root
}

/// Small gray images of two classes in folders: horizontal bars (`across`) and vertical bars
/// (`down`), anywhere, of any brightness.
pub fn bars(folder: &TempFolder, name: &str, count: usize) -> String {
    let side = 8;
    for i in 0..count {
        let class = folder.create(&format!("{name}/{}", ["across", "down"][i % 2]));
        let (at, light) = (1 + i * 7 % 6, 0.4 + 0.06 * (i * 3 % 10) as f32);
        let pixel = |p: usize| {
            if [p / side, p % side][i % 2].abs_diff(at) < 1 + i % 3 / 2 { light } else { 0.0 }
        };
        let pixels: Vec<f32> = (0..side * side).map(pixel).collect();
        let path = format!("{class}/{i:03}.png");
        save_png(Path::new(&path), &pixels, Dims::new(1, side, side)).unwrap();
    }
    folder.path(name)
}
