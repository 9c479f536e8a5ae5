//! Detection of the content of a file by its first bytes: an image of a format that is read, an
//! image of a kind that is not, or something else.

use std::path::Path;

use image::ImageFormat;

use crate::files;

/// The file name extensions of image files, in lower case.
pub const EXTENSIONS: [&str; 20] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "gif", "tif", "tiff", "btf", "webp",
    "pbm", "pgm", "ppm", "pnm", "pam", "tga", "ico",
];

/// Number of bytes at the start of a file that [`Content::of`] looks at. An SVG file can have a
/// declaration and comments before its first element.
pub const START: usize = 1024;

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An image of a format that is read.
    Image(ImageFormat),
    /// An image of a kind that is not read.
    Unsupported(&'static Kind),
    /// Anything else.
    Other,
}

/// A kind of image files that is not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name in messages.
    pub name: &'static str,
    /// The extensions of its files, in lower case.
    extensions: &'static [&'static str],
    /// What to do with such a file.
    pub advice: &'static str,
}

impl Kind {
    const fn new(
        name: &'static str,
        extensions: &'static [&'static str],
        advice: &'static str,
    ) -> Self {
        Self { name, extensions, advice }
    }
}

const CONVERT: &str = "convert it to PNG or JPEG";

const AVIF: Kind = Kind::new("AVIF", &["avif", "avifs"], CONVERT);
const HEIC: Kind = Kind::new("HEIC", &["heic", "heif", "hif"], CONVERT);
const JPEG_XL: Kind = Kind::new("JPEG XL", &["jxl"], CONVERT);
const JPEG_2000: Kind = Kind::new("JPEG 2000", &["jp2", "j2k", "jpx", "jpf", "j2c"], CONVERT);
/// Most raw files are TIFF files whose first image is a small preview.
const RAW: Kind = Kind::new(
    "camera raw",
    &[
        "raw", "cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "dng", "raf", "orf", "rw2",
        "pef", "srw", "3fr", "iiq", "x3f", "kdc", "dcr", "mrw", "erf",
    ],
    "develop it to 16-bit TIFF or PNG",
);
const PSD: Kind = Kind::new("Photoshop", &["psd", "psb"], "export it as PNG or TIFF");
const XCF: Kind = Kind::new("GIMP", &["xcf"], "export it as PNG or TIFF");
const SVG: Kind = Kind::new("SVG", &["svg", "svgz"], "render it to PNG");
const EXR: Kind = Kind::new("OpenEXR", &["exr"], "convert it to PNG or TIFF");
const HDR: Kind = Kind::new("Radiance HDR", &["hdr"], "convert it to PNG or TIFF");
const DDS: Kind = Kind::new("DDS", &["dds"], CONVERT);
const QOI: Kind = Kind::new("QOI", &["qoi"], CONVERT);
const CURSOR: Kind = Kind::new("cursor", &["cur"], CONVERT);
const FARBFELD: Kind = Kind::new("farbfeld", &["ff"], CONVERT);
const DICOM: Kind = Kind::new("DICOM", &["dcm", "dicom"], "convert it to PNG or 16-bit TIFF");
const FITS: Kind = Kind::new("FITS", &["fits", "fit", "fts"], "convert it to PNG or float TIFF");

const KINDS: [&Kind; 16] = [
    &AVIF, &HEIC, &JPEG_XL, &JPEG_2000, &RAW, &PSD, &XCF, &SVG, &EXR, &HDR, &DDS, &QOI, &CURSOR,
    &FARBFELD, &DICOM, &FITS,
];

/// Extensions of files that are never opened to look for images: data and documents that folders of
/// images often contain in large numbers.
const OTHER_EXTENSIONS: [&str; 34] = [
    "txt",
    "csv",
    "tsv",
    "json",
    "jsonl",
    "xml",
    "yaml",
    "yml",
    "toml",
    "md",
    "html",
    "htm",
    "log",
    "ini",
    "db",
    "npy",
    "npz",
    "pkl",
    "mat",
    "h5",
    "hdf5",
    "pt",
    "pth",
    "onnx",
    "safetensors",
    "py",
    "ipynb",
    "sh",
    "zip",
    "gz",
    "tar",
    "pdf",
    "mp4",
    "mov",
];

impl Content {
    /// The content of a file that begins with the bytes `start`. `path` is consulted for kinds that
    /// are built on another format or have no signature.
    pub fn of(start: &[u8], path: &Path) -> Self {
        let named = Self::kind_named(path);
        if let Some(kind) = unsupported(start) {
            return Self::Unsupported(kind);
        }
        match (image_format(start, path), named) {
            // A raw file is also a valid TIFF file, of its preview.
            (Some(ImageFormat::Tiff), Some(kind)) if *kind == RAW => Self::Unsupported(kind),
            (Some(format), _) => Self::Image(format),
            (None, Some(kind)) => Self::Unsupported(kind),
            (None, None) => Self::Other,
        }
    }

    /// Whether it is a JPEG image.
    pub const fn is_jpeg(self) -> bool {
        matches!(self, Self::Image(ImageFormat::Jpeg))
    }

    /// The kind of image files, among those that are not read, that have the extension of `path`.
    pub fn kind_named(path: &Path) -> Option<&'static Kind> {
        let extension = extension(path);
        KINDS.into_iter().find(|kind| kind.extensions.contains(&extension.as_str()))
    }

    /// Whether a file with this name can be something other than an image without a look at its
    /// content.
    pub fn is_other_by_name(path: &Path) -> bool {
        let extension = extension(path);
        // An image that a process has not written to its end, also if it was killed.
        extension == files::PARTIAL || OTHER_EXTENSIONS.contains(&extension.as_str())
    }
}

/// The extension of a path in lower case, or an empty string.
pub fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The format of an image that is read, by the first bytes of its file. `path` is consulted for
/// formats without a signature.
pub fn image_format(start: &[u8], path: &Path) -> Option<ImageFormat> {
    if start.starts_with(b"II+\0") || start.starts_with(b"MM\0+") {
        // BigTIFF: 64-bit offsets.
        return Some(ImageFormat::Tiff);
    }
    let Ok(format) = image::guess_format(start) else {
        return is_tga(start, path).then_some(ImageFormat::Tga);
    };
    let is_read = match format {
        ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif => true,
        ImageFormat::Tiff | ImageFormat::WebP => true,
        // The signatures of the next two are two letters, with which a text can begin. The size of
        // the header of a bitmap is below 256, so that the bytes after it are zeros.
        ImageFormat::Bmp => start.get(15..18) == Some(&[0, 0, 0]),
        ImageFormat::Pnm => start.get(2).is_some_and(u8::is_ascii_whitespace),
        // The signature is four bytes of small numbers. The number of images and a reserved byte
        // follow.
        ImageFormat::Ico => start.get(4) != Some(&0) && start.get(9) == Some(&0),
        _ => false,
    };
    is_read.then_some(format)
}

/// Whether a file is a TGA image. It has no signature: its header must be valid (Truevision TGA
/// file format specification 2.0), and its name must have that ending or none.
fn is_tga(start: &[u8], path: &Path) -> bool {
    let [_, palettes, kind, .., w, wide, h, high, depth, descriptor] =
        start.get(..18).unwrap_or_default()
    else {
        return false;
    };
    let is_kind = match kind {
        1 | 9 => *palettes == 1,
        2 | 3 | 10 | 11 => *palettes <= 1,
        _ => false,
    };
    let has_pixels = (w | wide) > 0 && (h | high) > 0;
    ["tga", ""].contains(&extension(path).as_str())
        && is_kind
        && has_pixels
        && [8, 15, 16, 24, 32].contains(depth)
        && *descriptor < 64
}

/// The kind of an image that is not read, by the first bytes of its file.
fn unsupported(start: &[u8]) -> Option<&'static Kind> {
    let begins = |magic: &[u8]| start.starts_with(magic);
    // The ISO base media format: the size of the first box, `ftyp`, its brand.
    if let Some([b'f', b't', b'y', b'p', brand @ ..]) = start.get(4..12) {
        return match brand {
            b"avif" | b"avis" => Some(&AVIF),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                // The general brands are followed by those that the file is compatible with.
                let end = start.len().min(64);
                let is_avif = start[..end].chunks_exact(4).any(|brand| brand == b"avif");
                Some(if is_avif { &AVIF } else { &HEIC })
            }
            b"crx " => Some(&RAW),
            _ => None,
        };
    }
    if begins(b"\xff\x0a") || begins(b"\0\0\0\x0cJXL \r\n\x87\n") {
        return Some(&JPEG_XL);
    }
    if begins(b"\xff\x4f\xff\x51") || begins(b"\0\0\0\x0cjP  \r\n\x87\n") {
        return Some(&JPEG_2000);
    }
    let is_raw = start.get(8..10) == Some(b"CR") && begins(b"II*\0");
    if is_raw
        || [&b"FUJIFILMCCD-RAW"[..], b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb"]
            .iter()
            .any(|magic| begins(magic))
    {
        return Some(&RAW);
    }
    if start.get(128..132) == Some(b"DICM") {
        return Some(&DICOM);
    }
    let signatures: [(&[u8], &'static Kind); 8] = [
        (b"8BPS", &PSD),
        (b"gimp xcf", &XCF),
        (b"\x76\x2f\x31\x01", &EXR),
        (b"#?RADIANCE", &HDR),
        (b"DDS ", &DDS),
        (b"qoif", &QOI),
        (b"farbfeld", &FARBFELD),
        (b"SIMPLE  =", &FITS),
    ];
    if let Some((_, kind)) = signatures.iter().find(|(magic, _)| begins(magic)) {
        return Some(kind);
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let is_markup = [&b"<svg"[..], b"<?xml", b"<!--", b"<!DOCTYPE svg"]
        .iter()
        .any(|magic| text.starts_with(magic));
    (is_markup && text.windows(4).any(|word| word == b"<svg")).then_some(&SVG)
}

/// Describes a file that is not an image, and what to do with it, for files that people try.
pub fn describe_other(start: &[u8], path: &Path) -> Option<&'static str> {
    let begins = |magic: &[u8]| start.starts_with(magic);
    let is_video = start.get(4..8) == Some(b"ftyp") || begins(b"\x1a\x45\xdf\xa3");
    if begins(b"PK\x03\x04") && extension(path) == "npz" {
        return Some("is an archive of NumPy arrays, not an image");
    }
    if begins(b"PK\x03\x04") || begins(b"\x1f\x8b") || begins(b"7z\xbc\xaf") || begins(b"Rar!") {
        return Some("is an archive; unpack it and name the folder");
    }
    if begins(b"%PDF") {
        return Some("is a PDF document; export its pages as PNG");
    }
    if begins(b"\x89HDF") || begins(b"MATLAB") {
        return Some("is a file of arrays (HDF5 or MATLAB), not an image");
    }
    is_video.then_some("is a video; save its frames as PNG")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(start: &[u8], name: &str) -> &'static str {
        match Content::of(start, Path::new(name)) {
            Content::Unsupported(kind) => kind.name,
            Content::Image(_) => "an image",
            Content::Other => "other",
        }
    }

    #[test]
    fn unsupported_kinds_are_named_by_their_content() {
        for (start, expected) in [
            (&b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"[..], "AVIF"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01", "camera raw"),
            (b"II*\0\x10\0\0\0CR\x02\0", "camera raw"),
            (b"\xff\x0a\xfa\x1f", "JPEG XL"),
            (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
            (b"8BPS\0\x01", "Photoshop"),
            (b"<?xml version=\"1.0\"?>\n<!-- a -->\n<svg xmlns", "SVG"),
            (b"<?xml version=\"1.0\"?><annotation>", "other"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "other"),
            (b"nothing", "other"),
        ] {
            assert_eq!(kind(start, "x.png"), expected, "{}", start.escape_ascii());
        }
    }

    #[test]
    fn the_content_decides_and_not_the_name() {
        assert_eq!(kind(b"\xff\xd8\xff\xe0\0", "x.heic"), "an image");
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n", "x"), "an image");
        assert_eq!(kind(b"II+\0\x08\0\0\0", "x.dat"), "an image");
        assert_eq!(kind(b"II*\0\x08\0\0\0", "x.tif"), "an image");
        // The preview in a raw file is no image to work with.
        assert_eq!(kind(b"II*\0\x08\0\0\0", "x.NEF"), "camera raw");
        assert_eq!(kind(b"nothing", "x.tga"), "other");
        assert_eq!(kind(b"nothing", "x.cur"), "cursor");
    }

    #[test]
    fn tga_needs_a_valid_header_and_its_ending_or_none() {
        let header = b"\0\0\x02\0\0\0\0\0\0\0\0\0\x03\0\x02\0\x18\0";
        for (name, expected) in [("x.tga", "an image"), ("x", "an image"), ("x.bin", "other")] {
            assert_eq!(kind(header, name), expected, "{name}");
        }
        // Another kind of image, no width, an impossible depth, interleaved rows.
        for (at, value) in [(2, 5), (12, 0), (16, 7), (17, 0xc0)] {
            let mut bad = *header;
            bad[at] = value;
            assert_eq!(kind(&bad, "x.tga"), "other", "byte {at}");
        }
        assert_eq!(kind(&header[..17], "x.tga"), "other");
        assert_eq!(kind(&[0; 30], "x.tga"), "other");
    }

    #[test]
    fn icons_are_images() {
        let icon = b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0";
        assert_eq!(kind(icon, "x"), "an image");
        assert_eq!(kind(b"\0\0\x01\0\0\0\x10\x10\0\0", "x"), "other");
    }

    #[test]
    fn texts_are_no_images() {
        for text in [&b"BMW, Audi, Volvo and other cars"[..], b"P1: the first paragraph", b"P6"] {
            assert_eq!(kind(text, "notes"), "other", "{}", text.escape_ascii());
        }
        assert_eq!(kind(b"P5\n2 2\n255\n", "x"), "an image");
        let bitmap = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0";
        assert_eq!(kind(bitmap, "x"), "an image");
    }

    #[test]
    fn extensions_are_in_one_list_only() {
        let unsupported = KINDS.iter().flat_map(|kind| kind.extensions);
        let mut all: Vec<&str> =
            unsupported.chain(&EXTENSIONS).chain(&OTHER_EXTENSIONS).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
