//! Pictures of samples that are neither gray nor RGB images: colours of many channels, colour bars
//! of floats, line plots of signals.

use image::RgbImage;

use crate::support::arrays::npy;
use crate::support::files::{config, exists};
use crate::support::{Command, TempFolder, bytes, text};

/// Samples (N,C,H,W): each channel is a wave in its own direction. Their values are from `low` to
/// `high`.
fn waves([n, c, h, w]: [usize; 4], [low, high]: [f32; 2]) -> Vec<u8> {
    let value = |i: usize| {
        let (x, y) = ((i % w) as f32, (i / w % h) as f32);
        let (channel, sample) = ((i / w / h % c) as f32, (i / w / h / c) as f32);
        let wave = ((0.2 + 0.1 * channel) * x + (0.4 - 0.1 * channel) * y + sample).sin();
        low + (high - low) * (0.5 + 0.5 * wave)
    };
    let data: Vec<u8> = (0..n * c * h * w).map(value).flat_map(f32::to_le_bytes).collect();
    let shape = if h == 1 { format!("{n}, {c}, {w}") } else { format!("{n}, {c}, {h}, {w}") };
    npy("<f4", &shape, &data)
}

/// A short training of a small convolutional model.
fn train(folder: &TempFolder, data: &str, run: &str) -> Command {
    const MODEL: &str = "[model]\ncode = \"code\"\n\
        [[model.layers]]\nname = \"code\"\nop = \"conv2d\"\nfilters = 6\nkernel = 4\nstride = 4\n\
        activation = \"relu\"\n\
        [[model.layers]]\nname = \"out\"\nop = \"conv_transpose2d\"\nfilters = \"input\"\n\
        kernel = 4\nstride = 4\n[optimizer]\nkind = \"adam\"\nlr = 1e-3\n";
    let config = folder.write("model.toml", MODEL);
    Command::train(data).option("--config", config).out(run).steps(6).batch(4).on_cpu().quiet()
}

fn picture(path: String) -> RgbImage {
    image::open(&path).unwrap_or_else(|error| panic!("{path}: {error}")).into_rgb8()
}

/// Number of pixels that are not gray.
fn coloured(picture: &RgbImage) -> usize {
    picture.pixels().filter(|pixel| pixel.0.iter().any(|v| v.abs_diff(pixel.0[0]) > 20)).count()
}

#[test]
fn fields_of_four_channels_are_shown_in_colours_that_can_be_chosen() {
    let folder = TempFolder::new("pictures-fields");
    let data = folder.write("x.npy", waves([24, 4, 16, 16], [-300.0, 100.0]));
    let run = folder.path("run");
    train(&folder, &data, &run).succeed();
    let components = picture(format!("{run}/reconstructions.png"));
    assert!(coloured(&components) > 10_000, "{}", coloured(&components));
    // What each unit adds is shown, too.
    assert!(coloured(&picture(format!("{run}/atoms.png"))) > 1000);
    // Chosen channels are recorded, and shown by an inspection of the run.
    let chosen = folder.path("chosen");
    train(&folder, &data, &chosen).flags("--show-channels 3,0,1").succeed();
    assert!(
        config(&chosen).contains("show_channels = [\n    3,")
            || config(&chosen).contains("show_channels = [3, 0, 1]")
    );
    assert_ne!(picture(format!("{chosen}/reconstructions.png")), components);
    let inspect = |flags: &str, out: &str| {
        let out = folder.path(out);
        let inspect = Command::inspect(&chosen).option("--data", &data).out(&out).flags(flags);
        inspect.on_cpu().quiet().succeed();
        bytes(format!("{out}/units.png"))
    };
    assert_eq!(inspect("", "a"), inspect("--show-channels 3,0,1", "b"));
    assert_ne!(inspect("", "c"), inspect("--show-channels 2", "d"));
    // One channel has a colour bar.
    let reconstruct = |flags: &str, out: &str| {
        let out = folder.path(out);
        let command = Command::reconstruct(&run, &data).out(&out).flags(flags);
        command.on_cpu().quiet().succeed();
        let first = std::fs::read_dir(&out).unwrap().map(|file| file.unwrap().path()).min();
        image::open(first.unwrap()).unwrap().width()
    };
    assert!(reconstruct("--show-channels 1", "one") > reconstruct("--show-channels 1,2", "two"));
    for flags in ["--show-channels 4", "--show-channels 0,1,2,3", "--show-channels x"] {
        train(&folder, &data, &folder.path("bad")).flags(flags).fails(2, &["show"]);
    }
    assert!(!exists(folder.path("bad")));
}

#[test]
fn one_channel_of_floats_has_a_colour_bar() {
    let folder = TempFolder::new("pictures-bar");
    let shown = |name: &str, range: [f32; 2]| {
        let data = folder.write(&format!("{name}.npy"), waves([12, 1, 16, 16], range));
        let run = folder.path(name);
        train(&folder, &data, &run).succeed();
        picture(format!("{run}/reconstructions.png"))
    };
    let (signed, positive) = (shown("signed", [-2.0, 2.0]), shown("positive", [300.0, 310.0]));
    assert_eq!(signed.dimensions(), positive.dimensions());
    assert_ne!(signed, positive);
    // The ends of the bar: red and blue, yellow and violet.
    let has = |picture: &RgbImage, colour: [u8; 3]| {
        picture.pixels().any(|pixel| pixel.0.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 3))
    };
    let [red, yellow] = [[0x67, 0x00, 0x1f], [0xfd, 0xe7, 0x25]];
    assert!(has(&signed, red) && !has(&signed, yellow));
    assert!(has(&positive, yellow) && !has(&positive, red));
}

#[test]
fn signals_are_shown_as_lines() {
    let folder = TempFolder::new("pictures-signals");
    let data = folder.write("x.npy", waves([64, 3, 1, 256], [-20.0, 60.0]));
    let run = folder.path("run");
    let train = Command::new("train").arg(&data).flags("--preset signals --layout NCL");
    train.set("data.crop=256").out(&run).steps(4).batch(8).on_cpu().quiet().succeed();
    let inspect = |flags: &str, out: &str| {
        let out = folder.path(out);
        let inspect = Command::inspect(&run).option("--data", &data).out(&out).flags(flags);
        inspect.flags("--layout NCL --images 40").on_cpu().quiet().succeed();
        out
    };
    let out = inspect("", "look");
    // The lines of three channels: blue, orange and green on white.
    for name in ["atoms.png", "units.png", "filters.png"] {
        let picture = picture(format!("{out}/{name}"));
        for colour in [[0u8, 114, 178], [213, 94, 0], [0, 158, 115]] {
            let near = |pixel: &&image::Rgb<u8>| {
                pixel.0.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 30)
            };
            let count = picture.pixels().filter(near).count();
            assert!(count > 100, "{name}: {count} pixels of {colour:?}");
        }
    }
    let page = text(format!("{out}/inspect.html"));
    assert!(page.contains("0 blue, 1 orange, 2 green") && page.contains("parts of signals"));
    let one = inspect("--show-channels 1", "one");
    assert!(text(format!("{one}/inspect.html")).contains("Channels of 3: 1 blue."));
    // Reconstructions and heat maps are charts with axes.
    let results = folder.path("results");
    let reconstruct = Command::reconstruct(&run, &data).flags("--layout NCL").out(&results);
    reconstruct.on_cpu().quiet().succeed();
    let first = std::fs::read_dir(&results).unwrap().map(|file| file.unwrap().path()).min();
    assert_eq!(image::open(first.unwrap()).unwrap().width(), 3 * 640);
    let detector = folder.path("detector");
    let fit = Command::new("anomaly fit").arg(&data).flags("--layout NCL --bank 64 --steps 2");
    fit.out(&detector).on_cpu().quiet().succeed();
    let heat = folder.path("heat");
    let score = Command::new("anomaly score").arg(&detector).arg(&data).out(&heat);
    score.flags("--layout NCL --show-channels 0").on_cpu().quiet().succeed();
    let first = std::fs::read_dir(&heat).unwrap().map(|file| file.unwrap().path());
    let first = first.filter(|path| !path.to_string_lossy().contains("mask")).min().unwrap();
    assert_eq!(image::open(first).unwrap().to_rgb8().dimensions(), (640, 800));
}
