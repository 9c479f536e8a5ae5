//! Films on standard input: the frames of YUV4MPEG2, as `ffmpeg -f yuv4mpegpipe -` writes them, as
//! samples.

use std::io::BufRead;

use super::images::Images;
use super::layout::Layout;
use super::number_set::sample_type;
use super::numbers::y4m::Stream;
use super::{LoadOptions, Opened, Pixels};
use crate::error::{Error, Result};
use crate::sample_type::SampleType;
use crate::shape::Size;

/// The first bytes of a film.
pub const START: &[u8] = b"YUV4MPEG2";

/// Reads all frames of a film into memory: a pipe cannot be read again.
///
/// # Errors
/// If it cannot be read, ends inside a frame, has no frame, takes more than `limit` bytes, or its
/// channels cannot be converted.
pub fn open(film: impl BufRead, source: &str, want: &LoadOptions, limit: u64) -> Result<Opened> {
    read(film, source, want, limit).map_err(|e| e.at(source))
}

fn read(film: impl BufRead, source: &str, want: &LoadOptions, limit: u64) -> Result<Opened> {
    let decoding = want.memory.unwrap_or(limit).max(limit);
    let mut film = Stream::new(film, false, decoding)?;
    let frames = film.frames();
    let (sample, notes) = (sample_type(frames.element()), frames.notes());
    let shape: Vec<usize> = frames.shape().iter().map(|side| *side as usize).collect();
    let (&[h, w] | &[h, w, _]) = &shape[..] else {
        return Err(Error::usage("has frames that are not images"));
    };
    let channels = shape.get(2).copied().unwrap_or(1);
    let layout: Layout = if channels == 1 { "THW" } else { "THWC" }.parse()?;
    if let Some(other) = want.layout.filter(|other| !other.means_the_same(&layout)) {
        return Err(Error::usage(format!(
            "the axes of a film are {layout}, not {other}; leave the layout out"
        )));
    }
    if want.eight_bits && sample != SampleType::U8 {
        return Err(Error::usage(
            "the film has 16-bit samples, and this command takes 8-bit samples; convert it with \
             ffmpeg -pix_fmt yuv420p or gray",
        ));
    }
    let mut images = Images::of_type(channels, sample);
    let larger = (want.channels.unwrap_or(channels).max(channels) / channels) as u64;
    let mut frame = Vec::new();
    while film.next(&mut frame)? {
        if (images.bytes.len() + frame.len()) as u64 * larger > limit {
            return Err(Error::usage(format!(
                "more than {} frames of {w}x{h} do not fit into the memory for data, and a pipe \
                 cannot be read again; write the film to a file and name it instead",
                images.len()
            )));
        }
        images.push(String::new(), Size { h, w }, &frame)?;
        frame.clear();
    }
    if images.is_empty() {
        return Err(Error::usage("the film has no frame"));
    }
    let digits = (images.len() - 1).max(1).ilog10() as usize + 1;
    images.names = (0..images.len()).map(|frame| format!("{frame:0digits$}")).collect();
    if let Some(wanted) = want.channels {
        images.convert_channels(wanted)?;
    }
    let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
    Ok(Opened::new(source, Pixels::Resident(images), &format!("; a film, its frames{notes}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gray film of two frames of 3×2 pixels.
    const FILM: &[u8] = b"YUV4MPEG2 W3 H2 F25:1 Cmono\nFRAME\nabcdefFRAME\nghijkl";

    fn message(film: &[u8], want: &LoadOptions, limit: u64) -> String {
        open(film, "standard input", want, limit).unwrap_err().to_string()
    }

    #[test]
    fn frames_are_samples() {
        let opened = open(FILM, "standard input", &LoadOptions::default(), 12).unwrap();
        assert!(opened.description.contains("a film, its frames"), "{}", opened.description);
        let Pixels::Resident(images) = opened.pixels else { panic!("a film is in memory") };
        assert_eq!((images.image(1), images.len()), (&b"ghijkl"[..], 2));
        assert_eq!(images.names, ["0", "1"]);
        assert_eq!(images.sizes().next(), Some(Size::new(2, 3)));
        let rgb = LoadOptions { channels: Some(3), ..LoadOptions::default() };
        let opened = open(FILM, "standard input", &rgb, 36).unwrap();
        assert_eq!(opened.pixels.channels(), 3);
    }

    #[test]
    fn films_that_do_not_fit_or_are_cut_off_are_refused() {
        let want = LoadOptions { memory: Some(100), ..LoadOptions::default() };
        let large = message(FILM, &want, 11);
        assert!(large.contains("more than 1 frames of 3x2 do not fit"), "{large}");
        let cut = message(&FILM[..FILM.len() - 1], &want, 100);
        assert!(cut.contains("standard input: ") && cut.contains("ends inside frame 2"), "{cut}");
        let none = message(&FILM[..28], &want, 100);
        assert!(none.contains("has no frame"), "{none}");
        let layout = "NCHW".parse().unwrap();
        let other = LoadOptions { layout: Some(&layout), ..want };
        let axes = message(FILM, &other, 100);
        assert!(axes.contains("the axes of a film are THW, not NCHW"), "{axes}");
        let same = "NHW".parse().unwrap();
        assert!(open(FILM, "-", &LoadOptions { layout: Some(&same), ..want }, 100).is_ok());
    }
}
