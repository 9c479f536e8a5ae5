//! Files of samples as users have them, through the program: films from a pipe, archives with
//! labels, stacks in folders.

use std::io::Write;

use serde_json::Value;

use crate::{detect, segment};

use crate::support::arrays::npy;
use crate::support::files::{config, exists, list};
use crate::support::images::BRICK;
use crate::support::{Command, TempFolder, bytes, model_bytes};

/// A small model for images of any size and number of channels.
const MODEL: &str = "[model]\ncode = \"code\"\n\
    [[model.layers]]\nname = \"code\"\nop = \"conv2d\"\nfilters = 4\nkernel = 4\nstride = 4\n\
    activation = \"relu\"\n\
    [[model.layers]]\nname = \"out\"\nop = \"conv_transpose2d\"\nfilters = \"input\"\nkernel = 4\n\
    stride = 4\n";

/// Trains the model for a few steps on the CPU path.
fn train(folder: &TempFolder, data: &str) -> Command {
    let config = folder.write("model.toml", MODEL);
    Command::train(data).option("--config", config).steps(4).batch(4).on_cpu()
}

/// Runs a command with a file as its standard input.
fn from_pipe(command: Command, file: &str) -> Command {
    command.through(&format!("cat '{file}' | exec \"$0\" \"$@\""))
}

/// A gray film of 16×16 pixels.
fn film(frames: usize) -> Vec<u8> {
    let mut film = b"YUV4MPEG2 W16 H16 F25:1 Cmono\n".to_vec();
    for frame in 0..frames {
        film.extend(b"FRAME\n");
        film.extend((0..256).map(|i| (i * (frame + 3) % 251) as u8));
    }
    film
}

#[test]
fn a_film_from_a_pipe_is_that_of_a_file() {
    let folder = TempFolder::new("formats-film");
    let file = folder.write("film.y4m", film(12));
    let (by_file, by_pipe) = (folder.path("file"), folder.path("pipe"));
    train(&folder, &file).out(&by_file).quiet().succeed();
    let piped = from_pipe(train(&folder, "-").out(&by_pipe), &file);
    piped.warns(&["standard input: 12 images of 16x16, gray; a film, its frames"]);
    assert_eq!(model_bytes(&by_pipe), model_bytes(&by_file));
    // The same for commands that use the model.
    let results = |source: &str, name: &str| {
        let out = folder.path(name);
        let features = Command::new("features").arg(&by_file).arg(source).out(&out).on_cpu();
        if source == "-" { from_pipe(features, &file) } else { features }.quiet().succeed();
        bytes(&out)
    };
    assert_eq!(results("-", "a.npy"), results(&file, "b.npy"));
    let (out, array) = (folder.path("results"), folder.path("results.npy"));
    let reconstruct = |out: &str| Command::reconstruct(&by_file, "-").out(out).on_cpu().quiet();
    from_pipe(reconstruct(&out), &file).succeed();
    assert_eq!(list(&out).len(), 12);
    assert!(exists(format!("{out}/07.png")));
    from_pipe(reconstruct(&array), &file).succeed();
    assert!(bytes(&array).len() > 12 * 256);
    // Negative controls: a film that is cut off, and one that does not fit.
    let cut = folder.write("cut.y4m", &film(3)[..600]);
    let refused = train(&folder, "-").out(folder.path("cut"));
    from_pipe(refused, &cut).fails(2, &["standard input", "ends inside frame 3"]);
    let refused = train(&folder, "-").out(folder.path("large")).max_memory("4KiB");
    from_pipe(refused, &file).fails(2, &["do not fit", "write the film to a file"]);
}

/// An archive as `numpy.savez_compressed` writes it.
fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, array) in arrays {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(array).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Images of 8×8 pixels, of two kinds, and the label of each.
fn digits(count: usize) -> (Vec<u8>, Vec<u8>) {
    let pixel = |i: usize| (i / 64 % 2 * 200 + i * 7 % 50) as u8;
    let images: Vec<u8> = (0..count * 64).map(pixel).collect();
    let labels: Vec<u8> = (0..count as i64).flat_map(|i| (i % 2).to_le_bytes()).collect();
    let images = npy("|u1", &format!("{count}, 8, 8"), &images);
    (images, npy("<i8", &format!("{count},"), &labels))
}

#[test]
fn labels_inside_an_npz_archive_are_found() {
    let folder = TempFolder::new("formats-npz");
    let ((x, y), (test_x, test_y)) = (digits(40), digits(20));
    let arrays = [("x_train", x), ("y_train", y), ("x_test", test_x), ("y_test", test_y)];
    let file = folder.write("mnist.npz", npz(&arrays));
    let run = folder.path("run");
    train(&folder, &file).out(&run).warns(&[
        "mnist.npz:x_train: 40 images of 8x8, gray, 2 classes",
        "labels of y_train",
        "other arrays are left out: x_test, y_test",
    ]);
    let probe = |test: &str| {
        let probe = Command::new("probe").arg(&run).option("--train", &file);
        probe.option("--test", test).option("--grid", 1).on_cpu().quiet()
    };
    let results = probe(&format!("{file}:x_test")).out(folder.path("probe"));
    results.succeed();
    let report: Value = serde_json::from_slice(&bytes(folder.path("probe/probe.json"))).unwrap();
    assert!(report.to_string().contains("20"), "{report}");
    // An archive without labels cannot be a test.
    let [(_, x), (_, y), ..] = arrays;
    let none = folder.write("none.npz", npz(&[("x", x.clone())]));
    probe(&none).out(folder.path("none")).fails(2, &["the test images have no labels"]);
    // Labels of another number are no labels, and this is said.
    let short = folder.write("short.npz", npz(&[("x", x), ("labels", digits(3).1)]));
    train(&folder, &short)
        .out(folder.path("short"))
        .warns(&["short.npz:x: 40 images of 8x8, gray;", "other arrays are left out: labels"]);
    let two = folder.write("two.npz", npz(&[("a", y.clone()), ("b", y)]));
    train(&folder, &two)
        .out(folder.path("two"))
        .fails(2, &["has several arrays; append : and one of a (64-bit signed 40)"]);
    assert!(config(&run).contains("mnist.npz"));
}

/// A file of `tests/data/numbers`.
fn library_file(name: &str) -> Vec<u8> {
    bytes(format!("{}/tests/data/numbers/{name}", env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn pages_of_a_tiff_file_in_a_folder_are_samples() {
    let folder = TempFolder::new("formats-pages");
    // 3 pages of 5×4 pixels with 16 bits, and pages of two sizes.
    folder.write("one/stack.tif", library_file("pages.tif"));
    folder.write("one/zstd.tif", library_file("zstd_pages.tif"));
    let run = folder.path("run");
    train(&folder, &folder.path("one")).out(&run).warns(&[
        "6 images of",
        "16-bit",
        "the 6 pages of 2 TIFF files are samples",
    ]);
    // The same samples, in order, as those of the file alone.
    let features = |source: &str, name: &str| {
        let out = folder.path(name);
        let features = Command::new("features").arg(&run).arg(source).out(&out);
        features.flags("--size 8").on_cpu().quiet().succeed();
        bytes(&out)
    };
    folder.write("alone/stack.tif", library_file("pages.tif"));
    let alone = features(&folder.path("alone"), "a.npy");
    assert_eq!(alone, features(&folder.path("alone/stack.tif"), "b.npy"));
    let names = String::from_utf8(bytes(folder.path("a.names.txt"))).unwrap();
    assert_eq!(names, "stack_page1.tif\nstack_page2.tif\nstack_page3.tif\n");
    // Pages of several sizes are no samples of one set, and this is said.
    folder.write("mixed/sizes.tif", library_file("sizes.tif"));
    folder.write("mixed/brick.png", bytes(BRICK));
    train(&folder, &folder.path("mixed"))
        .out(folder.path("mixed-run"))
        .warns(&["2 images", "sizes.tif has 3 frames or pages; only the first is read"]);
}

/// A recording of 16 bits and one channel: a tone.
fn wav(samples: usize, rate: u32, hertz: f64) -> Vec<u8> {
    let sample = |i: usize| {
        let angle = std::f64::consts::TAU * hertz * i as f64 / f64::from(rate);
        ((angle.sin() * 20_000.0) as i16).to_le_bytes()
    };
    let data: Vec<u8> = (0..samples).flat_map(sample).collect();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate.to_le_bytes());
    file.extend((2 * rate).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

#[test]
fn recordings_become_log_mel_spectrograms_in_every_command() {
    let folder = TempFolder::new("formats-spectrogram");
    for i in 0..8 {
        let (class, hertz) = if i % 2 == 0 { ("low", 300.0) } else { ("high", 2500.0) };
        folder.write(&format!("wav/{class}/{i}.wav"), wav(8000, 16_000, hertz + f64::from(i)));
    }
    let (data, run) = (folder.path("wav"), folder.path("run"));
    let train = |data: &str, run: &str| {
        train(&folder, data)
            .set("data.spectrogram=log-mel")
            .set("data.spectrogram_mels=32")
            .out(run)
    };
    train(&data, &run).warns(&[
        "8 images of 32x32, gray 32-bit float, 2 classes",
        "32 bands from 0 to 8000 Hz, windows of 1024 samples every 256, 16000 samples per second",
    ]);
    let written = config(&run);
    for line in ["spectrogram = \"log-mel\"", "[model.spectrogram]", "rate = 16000"] {
        assert!(written.contains(line), "{line} is not in {written}");
    }
    let features = folder.path("features.npy");
    Command::new("features").arg(&run).arg(&data).out(&features).on_cpu().quiet().succeed();
    let names = String::from_utf8(bytes(folder.path("features.names.txt"))).unwrap();
    assert!(names.starts_with("high/1.wav\n"), "{names}");
    Command::eval(&run, &data).on_cpu().quiet().succeed();
    let array = folder.path("out.npy");
    Command::reconstruct(&run, &data).out(&array).on_cpu().quiet().succeed();
    assert!(bytes(&array).len() > 8 * 32 * 32 * 4);
    let onnx = folder.path("model.onnx");
    let export = Command::new("export").arg(&run).out(&onnx);
    export.warns(&["takes log-mel spectrograms", "not compute them from recordings"]);
    let exported = String::from_utf8_lossy(&bytes(&onnx)).into_owned();
    assert!(exported.contains("spectrogram") && exported.contains("\"rate\":16000"));
    let fitted = folder.path("fitted");
    let fit = Command::new("anomaly fit").arg(folder.path("wav/low")).out(&fitted);
    fit.option("--like", &run).flags("--steps 2").on_cpu().quiet().succeed();
    // Recordings of another rate would have other bands.
    let other = folder.write("other.wav", wav(8000, 8000, 300.0));
    Command::eval(&run, &other).on_cpu().fails(2, &["8000 samples per second", "have 16000"]);
    Command::eval(&run, BRICK).on_cpu().fails(2, &["is not a WAV file"]);
    // Recordings of different lengths are cut into pieces of data.crop frames.
    folder.write("wav/low/long.wav", wav(20_000, 16_000, 440.0));
    folder.write("wav/low/short.wav", wav(300, 16_000, 440.0));
    let cut = folder.path("cut");
    train(&data, &cut).warns(&[
        "10 images of 32x32",
        "10 recordings cut into pieces of 32 frames, their ends left out",
        "1 of them as a whole: shorter than a piece",
    ]);
    assert!(config(&cut).contains("frames = 32"));
    // A key without effect is said.
    let without = folder.path("without");
    let quiet = Command::train("digits").steps(1).batch(8).on_cpu().out(without);
    quiet.set("data.spectrogram_mels=7").warns(&["data.spectrogram_mels has no effect with"]);
    let refused = train(&data, &folder.path("range")).set("data.spectrogram_range=[0,9000]");
    refused.fails(2, &["data.spectrogram_range", "8000 Hz"]);
    let images = train("photos", &folder.path("photos"));
    images.fails(2, &["photos", "WAV files"]);
    Command::eval(&run, "photos").on_cpu().fails(2, &["photos", "WAV files"]);
    let layout = train(&data, &folder.path("layout")).flags("--layout CL");
    layout.fails(2, &["the layout CL is for arrays"]);
}

#[test]
fn spectrograms_of_any_length_suit_the_default_model() {
    let folder = TempFolder::new("formats-frames");
    for i in 0..4 {
        folder.write(&format!("wav/{i}.wav"), wav(9000, 16_000, 300.0 * f64::from(i + 1)));
    }
    // 36 frames would suit the strides.
    let run = folder.path("run");
    let train = Command::train(folder.path("wav")).steps(1).batch(2).on_cpu().out(&run);
    train.set("data.spectrogram=log-mel").set("data.spectrogram_hop=240").warns(&[
        "4 images of 38x64",
        "as 1x64x36 (cropped: the strides of the model do not divide 38x64)",
        "flips also mirror the spectrograms",
    ]);
}

#[test]
fn recordings_without_spectrograms_are_signals() {
    let folder = TempFolder::new("formats-waveforms");
    for i in 0..6 {
        let class = ["low", "high"][i % 2];
        let file = wav(3000 + 100 * i, 16_000, 300.0 + 2000.0 * (i % 2) as f64);
        folder.write(&format!("wav/{class}/{i}.wav"), file);
    }
    folder.write("wav/low/other.wav", wav(3000, 8000, 300.0));
    let (data, run) = (folder.path("wav"), folder.path("run"));
    let train = || Command::train(&data).option("--preset", "signals").steps(2).batch(2).on_cpu();
    train().out(&run).warns(&[
        "6 signals of length 3000 to 3500, 1 channel",
        "2 classes",
        "16000 samples per second",
        "other.wav: has 8000 samples per second, but the recordings before it have 16000",
    ]);
    train().out(folder.path("strict")).flags("--strict").fails(2, &["other.wav", "has 8000"]);
    // One file needs no --layout.
    let (single, out) = (folder.path("wav/low/0.wav"), folder.path("out.npy"));
    Command::reconstruct(&run, &single).out(&out).on_cpu().quiet().succeed();
    let features = folder.path("features.npy");
    Command::new("features").arg(&run).arg(&data).out(&features).on_cpu().quiet().succeed();
    assert!(bytes(folder.path("features.names.txt")).starts_with(b"high/1.wav\n"));
    let layout = train().out(folder.path("layout")).flags("--layout CL");
    layout.fails(2, &["the layout CL is for arrays"]);
    // A folder without usable files.
    let broken = folder.write("broken/a.wav", b"RIFF");
    let broken = std::path::Path::new(&broken).parent().unwrap().display().to_string();
    let refused = Command::train(broken).on_cpu().out(folder.path("no"));
    refused.fails(2, &["no WAV file can be used", "a.wav"]);
}

/// Annotated images have 8 bits: images with more are reduced, and this is said.
#[test]
fn images_of_16_bits_are_reduced_for_annotations_and_this_is_said() {
    let folder = TempFolder::new("formats-reduced");
    let image =
        image::ImageBuffer::from_fn(64, 64, |x, y| image::Luma([(900 * x + 90 * y) as u16]));
    let mut png = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageLuma16(image).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let deep = folder.write("deep.png", png.into_inner());
    let note = "1 image with 16 bits or floats reduced to 8 bits";
    for (command, model) in
        [("segment predict", segment::model()), ("detect predict", detect::trained().run.as_str())]
    {
        let out = folder.path(command);
        let predict = |images: &str| Command::new(command).arg(model).arg(images).on_cpu().force();
        predict(&deep).out(&out).warns(&[note]);
        let said = predict(BRICK).out(&out).messages();
        assert!(!said.contains("reduced"), "{said}");
    }
}
