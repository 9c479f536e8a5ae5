//! Tests of a set of images.

use super::*;

fn sample() -> Images {
    let mut images = Images::new(1);
    for i in 0..5usize {
        let size = Size::new(2 + i, 3);
        let pixels: Vec<u8> = (0..size.area()).map(|p| (10 * i + p) as u8).collect();
        images.push(format!("{i}.png"), size, &pixels).unwrap();
    }
    images.labels = Some(Labels { classes: vec!["a".into(), "b".into()], of: vec![0, 1, 0, 1, 1] });
    images
}

#[test]
fn a_subset_has_the_names_and_labels_of_its_images() {
    let subset = sample().subset(&[3, 1]).unwrap();
    assert_eq!(subset.names, ["3.png", "1.png"]);
    assert_eq!(
        subset.table,
        [Entry { offset: 0, size: Size::new(5, 3) }, Entry { offset: 15, size: Size::new(3, 3) }]
    );
    assert_eq!(subset.image(1), sample().image(1));
    assert_eq!(subset.labels.unwrap().of, [1, 1]);
}

#[test]
fn classes_are_the_numbers_that_occur() {
    let labels = Labels::of_numbers(&[3000, 0, 1000, 0]);
    assert_eq!(labels.classes, ["0", "1000", "3000"]);
    assert_eq!(labels.of, [2, 0, 1, 0]);
    let said = |numbers: &[u32]| gaps(&Labels::of_numbers(numbers).classes);
    assert_eq!(said(&[3000, 0, 1000]).unwrap(), " (0, 1000, 3000)");
    let many: Vec<u32> = (0..20).filter(|n| *n != 7).collect();
    assert!(said(&many).unwrap().contains("from 0 to 19, some without"));
    assert_eq!((said(&[0, 2, 1]), said(&[1, 2, 3])), (None, None));
    let named =
        |names: &[&str]| gaps(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(named(&["ant", "bee"]), None);
    // In the order of letters, as folders are.
    assert_eq!(named(&["1", "10", "2", "3", "4", "5", "6", "7", "8", "9"]), None);
    assert_eq!(named(&["10", "4294967295", "7"]).unwrap(), " (10, 4294967295, 7)");
}

#[test]
fn a_description_has_number_sizes_channels_and_classes() {
    assert_eq!(sample().describe(), "5 images of 3x2 to 3x6, gray, 2 classes");
}

#[test]
fn a_split_is_complete_ordered_and_repeatable() {
    let (train, validation) = sample().split(0.4, 1).unwrap();
    assert_eq!((train.len(), validation.len()), (3, 2));
    assert_eq!(sample().split(0.4, 1).unwrap(), (train.clone(), validation.clone()));
    assert!(train.names.is_sorted() && validation.names.is_sorted());
    let mut all = [train.names, validation.names.clone()].concat();
    all.sort();
    assert_eq!(all, sample().names);
    assert!((0..20).any(|seed| sample().split(0.4, seed).unwrap().1 != validation));
}

#[test]
fn both_sides_of_a_split_get_an_image() {
    for (fraction, sizes) in [(0.001, (4, 1)), (0.999, (1, 4)), (0.0, (5, 0)), (f64::NAN, (5, 0))] {
        let (train, validation) = sample().split(fraction, 1).unwrap();
        assert_eq!((train.len(), validation.len()), sizes);
    }
    let one = sample().subset(&[0]).unwrap();
    let (train, validation) = one.split(0.5, 1).unwrap();
    assert_eq!((train.len(), validation.len()), (1, 0));
}

#[test]
fn words_are_little_endian_and_padded() {
    let mut images = Images::new(1);
    images.push("a".into(), Size::new(1, 5), &[1, 2, 3, 4, 5]).unwrap();
    images.push("b".into(), Size::new(2, 1), &[6, 7]).unwrap();
    assert_eq!(Images::words_of(&images.bytes), [0x0403_0201, 0x0007_0605]);
    assert_eq!(images.table_words(), [0, 1, 5, 5, 2, 1]);
}

#[test]
fn small_images_are_enlarged_and_keep_their_aspect_ratio() {
    for channels in 1..=4 {
        let mut images = Images::new(channels);
        images.push("small".into(), Size::new(4, 8), &vec![77; 32 * channels]).unwrap();
        images.push("large".into(), Size::new(20, 16), &vec![9; 320 * channels]).unwrap();
        assert_eq!(images.ensure_at_least(Size::new(16, 16)).unwrap(), 1);
        assert_eq!(images.table[0], Entry { offset: 0, size: Size::new(16, 32) });
        assert_eq!(images.table[1], Entry { offset: 512 * channels, size: Size::new(20, 16) });
        assert!(
            images.image(0).iter().all(|&v| v == 77) && images.image(1).iter().all(|&v| v == 9)
        );
        images.resize_all(Size::new(7, 5)).unwrap();
        assert_eq!(images.common_size(), Some(Size::new(7, 5)));
        assert!(images.image(1).iter().all(|&v| v == 9));
    }
}

#[test]
fn extreme_resizes_are_refused() {
    let mut thread = Images::new(1);
    thread.push("thread".into(), Size::new(1, 200_000), &vec![0; 200_000]).unwrap();
    assert!(
        thread
            .ensure_at_least(Size::new(64, 64))
            .unwrap_err()
            .to_string()
            .starts_with("thread: 200000x1 pixels cannot")
    );
    assert!(thread.resize_all(Size::new(0, 5)).is_err());
}

#[test]
fn gray_and_rgb_are_converted_into_each_other() {
    let mut images = sample();
    images.convert_channels(3).unwrap();
    assert_eq!(images.image(2).len(), 36);
    assert_eq!(images.image(2)[..6], [20, 20, 20, 21, 21, 21]);
    images.convert_channels(1).unwrap();
    assert_eq!(images, sample());
    assert!(images.convert_channels(2).is_err());
}

#[test]
fn luma_has_the_weights_of_bt_601() {
    let gray = |rgb: &[u8]| Encoding::default().convert_channels(rgb.to_vec(), 3, 1).unwrap();
    assert_eq!(
        gray(&[255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0]),
        [76, 150, 29, 255, 0]
    );
    assert!((0..=255).all(|v| gray(&[v; 3]) == [v]));
}
