//! Log-mel spectrograms against librosa 0.11, in 64-bit floats: `power_to_db(melspectrogram(y=…,
//! n_fft=…, hop_length=…, n_mels=…, fmin=…, fmax=…), top_db=None)`.

use std::f64::consts::PI;

use super::*;

/// Two tones, one of which rises and one of which stops and starts, as samples of 16 bits.
fn recording(len: usize, rate: u32) -> Vec<f32> {
    let sample = |i: usize| {
        let t = i as f64 / f64::from(rate);
        let rising = 0.5 * (2.0 * PI * (200.0 + 1500.0 * t) * t).sin();
        let pulsed = 0.25 * (2.0 * PI * 3100.0 * t).sin() * (i / 400 % 2) as f64;
        ((rising + pulsed) * 32767.0).round_ties_even() as f32 / 32768.0
    };
    (0..len).map(sample).collect()
}

/// The largest difference from values of librosa: band, frame, decibels.
fn difference(settings: &LogMel, len: usize, values: &[(usize, usize, f32)]) -> f32 {
    let frames = settings.frames_of(len);
    let found = Analysis::new(settings).spectrogram(&recording(len, settings.rate));
    assert_eq!(found.len(), settings.mels * frames);
    let each = values.iter().map(|(band, frame, db)| (found[band * frames + frame] - db).abs());
    each.fold(0.0, f32::max)
}

const WIDE: LogMel =
    LogMel { rate: 16_000, window: 512, hop: 200, mels: 20, range: [0.0, 8000.0], frames: 0 };

/// Of [`WIDE`], for 4000 samples.
#[rustfmt::skip] // many values in a line
const OF_WIDE: &[(usize, usize, f32)] = &[
        (0, 0, 10.47602), (0, 17, -45.69232), (1, 13, -45.96656), (2, 9, 10.48941),
        (3, 5, -9.28634), (4, 1, -38.40036), (4, 18, 1.11238), (5, 14, 5.22918),
        (6, 10, -28.73087), (7, 6, -28.354), (8, 2, -27.76729), (8, 19, -28.19985),
        (9, 15, -42.68726), (10, 11, -41.57812), (11, 7, -39.53426), (12, 3, -35.55848),
        (12, 20, -18.44204), (13, 16, -1.24428), (14, 12, -0.50103), (15, 8, -20.86017),
        (16, 4, -27.37752), (17, 0, -52.15876), (17, 17, -47.08765), (18, 13, -49.7129),
        (19, 9, -51.35693),
];

/// A window whose length is not a power of two, and few bands of a part of the frequencies.
const NARROW: LogMel =
    LogMel { rate: 8000, window: 300, hop: 100, mels: 7, range: [60.0, 3500.0], frames: 0 };

/// Of [`NARROW`], for 1500 samples.
#[rustfmt::skip] // many values in a line
const OF_NARROW: &[(usize, usize, f32)] = &[
        (0, 0, 3.22166), (0, 4, 8.49107), (0, 8, 4.57814), (0, 12, -22.72881), (1, 0, -19.67519),
        (1, 4, -1.74389), (1, 8, 6.95616), (1, 12, 7.99784), (2, 0, -28.15543), (2, 4, -39.75402),
        (2, 8, -37.15721), (2, 12, 1.6192), (3, 0, -33.61855), (3, 4, -38.66668),
        (3, 8, -38.67139), (3, 12, -38.66109), (4, 0, -38.16955), (4, 4, -36.66334),
        (4, 8, -36.65978), (4, 12, -36.66307), (5, 0, -42.29494), (5, 4, -32.11211),
        (5, 8, -32.11226), (5, 12, -32.11221), (6, 0, -45.74024), (6, 4, -7.85732),
        (6, 8, -7.85723), (6, 12, -7.85733),
];

#[test]
fn spectrograms_are_those_of_librosa() {
    assert_eq!(WIDE.frames_of(4000), 21);
    assert!(difference(&WIDE, 4000, OF_WIDE) < 1e-4);
    assert!(difference(&NARROW, 1500, OF_NARROW) < 1e-4);
    // The comparison can fail: by the hop, the range, the number of samples.
    for other in [
        LogMel { hop: 201, ..WIDE },
        LogMel { range: [0.0, 7900.0], ..WIDE },
        LogMel { window: 510, ..WIDE },
    ] {
        assert!(difference(&other, 4201, OF_WIDE) > 0.01, "{other:?}");
    }
}

#[test]
fn silence_is_minus_100_decibels() {
    let silent = Analysis::new(&WIDE).spectrogram(&[0.0; 1000]);
    assert!(silent.len() == 20 * 6 && silent.iter().all(|db| *db == -100.0));
}

#[test]
fn bands_without_a_bin_are_counted() {
    assert_eq!(Analysis::new(&WIDE).empty_bands(), 0);
    let many = LogMel { mels: 400, ..WIDE };
    assert!(Analysis::new(&many).empty_bands() > 50);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let message = |settings: LogMel| settings.check().unwrap_err().to_string();
    let above = message(LogMel { range: [0.0, 9000.0], ..WIDE });
    assert!(above.contains("data.spectrogram_range") && above.contains("8000 Hz"), "{above}");
    let hop = message(LogMel { hop: 600, ..WIDE });
    assert!(hop.contains("data.spectrogram_hop = 600"), "{hop}");
    assert!(WIDE.check().is_ok());
}
