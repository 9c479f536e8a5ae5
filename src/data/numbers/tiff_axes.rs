//! The axes of the pages of a TIFF file, from the description that OME, ImageJ and tifffile write.

use std::fmt;

use super::Element;

/// The size and type of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub width: u32,
    pub height: u32,
    pub channels: usize,
    /// Bits of a number in the file.
    pub bits: u8,
    pub element: Element,
}

impl Page {
    /// Size of the decoded page in bytes.
    pub fn bytes(&self) -> usize {
        self.width as usize * self.height as usize * self.channels * self.element.size()
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, channels, bits, element } = self;
        write!(f, "{width}x{height} with {channels} channels, {}, {bits} bits", element.name())
    }
}

/// The axes outside of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outer {
    pub shape: Vec<u64>,
    pub axes: Vec<String>,
    pub notes: Vec<String>,
}

impl Outer {
    /// Axes without those of size 1.
    fn new(axes: &[(char, u64)], source: &str) -> Self {
        let kept: Vec<(char, u64)> = axes.iter().copied().filter(|(_, size)| *size > 1).collect();
        let names: Vec<String> = kept.iter().map(|(name, _)| name.to_string()).collect();
        let notes = match &names[..] {
            [] => Vec::new(),
            names => vec![format!("pages are the axes {} ({source})", names.concat())],
        };
        Self { shape: kept.iter().map(|(_, size)| *size).collect(), axes: names, notes }
    }
}

/// The axes of `pages` pages. Without a description they are one axis.
pub(super) fn outer(description: &str, pages: usize, page: &Page) -> Outer {
    let described = ome(description, page)
        .map(|axes| (axes, "OME"))
        .or_else(|| imagej(description).map(|axes| (axes, "ImageJ")));
    let mut notes = Vec::new();
    match described {
        Some((Some(axes), source)) if count(&axes) == Some(pages as u64) => {
            return Outer::new(&axes, source);
        }
        Some((_, source)) => {
            notes.push(format!("the axes of {source} do not describe the pages of this file"));
        }
        None => {}
    }
    if let Some(shape) = tifffile(description, pages, page) {
        let axes = shape.iter().map(|_| String::new()).collect();
        let text = super::shape_text(&shape);
        return Outer { shape, axes, notes: vec![format!("pages are the axes {text} (tifffile)")] };
    }
    let mut outer = match pages {
        1 => Outer::default(),
        _ => Outer {
            shape: vec![pages as u64],
            axes: vec!["I".to_owned()],
            notes: vec![format!("{pages} pages are the first axis")],
        },
    };
    outer.notes.extend(notes);
    outer
}

fn count(axes: &[(char, u64)]) -> Option<u64> {
    axes.iter().try_fold(1_u64, |all, (_, size)| all.checked_mul(*size))
}

/// The value of an attribute of an XML tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let quote = rest.chars().next().filter(|quote| "'\"".contains(*quote))?;
    rest[1..].split(quote).next()
}

/// The tags of a name, each from its name to its end.
fn tags<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let is_end = |c: char| c.is_whitespace() || c == '>' || c == '/';
    let starts: Vec<&str> = xml.split('<').collect();
    let name = name.to_owned();
    starts.into_iter().filter_map(move |tag| {
        // A prefix names the namespace.
        let start = tag.split(is_end).next()?;
        let local = start.rsplit(':').next()?;
        (local == name).then(|| tag.split('>').next().unwrap_or(tag))
    })
}

/// The axes of OME-XML, outermost first. The inner option is `None` if the pages are in another
/// order, or in several files.
fn ome(xml: &str, page: &Page) -> Option<Option<Vec<(char, u64)>>> {
    if !xml.contains("<OME") && !xml.contains(":OME ") {
        return None;
    }
    let mut all = tags(xml, "Pixels");
    let pixels = all.next()?;
    if all.next().is_some() {
        // Several series.
        return Some(None);
    }
    let size = |name: &str| -> Option<u64> { attribute(pixels, name)?.parse().ok() };
    let order = attribute(pixels, "DimensionOrder")?;
    let samples = page.channels as u64;
    let axis = |name: char| -> Option<(char, u64)> {
        Some(match name {
            'T' => ('T', size("SizeT")?),
            'Z' => ('Z', size("SizeZ")?),
            // The channels inside a page are its own axis.
            'C' => ('C', size("SizeC").filter(|c| c.is_multiple_of(samples))? / samples),
            _ => return None,
        })
    };
    // The order begins with XY, the fastest axes.
    let axes: Option<Vec<_>> = order.chars().skip(2).map(axis).collect();
    let Some(mut axes) = axes.filter(|axes| axes.len() == 3 && order.starts_with("XY")) else {
        return Some(None);
    };
    // Which page a plane is in, if the file states it.
    for plane in tags(xml, "TiffData") {
        let number = |name: &str| attribute(plane, name).and_then(|text| text.parse::<u64>().ok());
        let Some(page) = number("IFD") else { continue };
        let mut expected = Some(0_u64);
        for (name, size) in axes.iter().rev() {
            let index = number(&format!("First{name}")).unwrap_or(0);
            let step: Option<u64> = axes
                .iter()
                .rev()
                .take_while(|(other, _)| other != name)
                .try_fold(1_u64, |all, (_, size)| all.checked_mul(*size));
            let part = step.and_then(|step| index.checked_mul(step));
            expected = expected.zip(part).and_then(|(all, part)| all.checked_add(part));
            if index >= *size {
                expected = None;
            }
        }
        if expected != Some(page) {
            return Some(None);
        }
    }
    axes.reverse();
    Some(Some(axes))
}

/// The value of a line `name=value` of ImageJ's description.
fn imagej_number(description: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix('=')?.trim().parse().ok();
    description.lines().find_map(value)
}

/// The number of images in a file of ImageJ.
pub(super) fn imagej_images(description: &str) -> Option<usize> {
    if !description.starts_with("ImageJ=") {
        return None;
    }
    usize::try_from(imagej_number(description, "images")?).ok()
}

/// The axes of ImageJ, outermost first.
fn imagej(description: &str) -> Option<Option<Vec<(char, u64)>>> {
    if !description.starts_with("ImageJ=") {
        return None;
    }
    let images = imagej_number(description, "images");
    let number = |name| imagej_number(description, name).unwrap_or(1);
    let axes = vec![('T', number("frames")), ('Z', number("slices")), ('C', number("channels"))];
    // A plain stack has no sizes.
    match images {
        Some(images) if images > 1 && count(&axes) == Some(1) => Some(Some(vec![('I', images)])),
        _ => Some(Some(axes)),
    }
}

/// The outer axes that tifffile describes in JSON.
fn tifffile(description: &str, pages: usize, page: &Page) -> Option<Vec<u64>> {
    let json: serde_json::Value = serde_json::from_str(description).ok()?;
    let shape = json.get("shape")?.as_array()?;
    let shape: Option<Vec<u64>> = shape.iter().map(serde_json::Value::as_u64).collect();
    let mut inner = vec![u64::from(page.height), u64::from(page.width)];
    if page.channels > 1 {
        inner.push(page.channels as u64);
    }
    let shape = shape?;
    let outer = shape.strip_suffix(&inner[..])?;
    let outer: Vec<u64> = outer.iter().copied().filter(|size| *size > 1).collect();
    let count = outer.iter().try_fold(1_u64, |all, size| all.checked_mul(*size));
    (outer.len() > 1 && count == Some(pages as u64)).then_some(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page { width: 5, height: 4, channels: 1, bits: 16, element: Element::U16 };

    fn xml(order: &str, planes: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><OME xmlns=\"x\"><Image><Pixels DimensionOrder='{order}' \
             SizeX='5' SizeY='4' SizeZ='2' SizeC='3' SizeT='1'>{planes}</Pixels></Image></OME>"
        )
    }

    fn axes(description: &str, pages: usize) -> (Vec<u64>, String, String) {
        let outer = outer(description, pages, &PAGE);
        (outer.shape, outer.axes.concat(), outer.notes.join("; "))
    }

    #[test]
    fn ome_names_the_axes_from_the_outermost() {
        let found = axes(&xml("XYZCT", "<TiffData/>"), 6);
        assert_eq!(found, (vec![3, 2], "CZ".to_owned(), "pages are the axes CZ (OME)".to_owned()));
        let plane = "<TiffData FirstC='2' FirstZ='1' IFD='5'/>";
        assert_eq!(axes(&xml("XYZCT", plane), 6).1, "CZ");
        assert_eq!(axes(&xml("XYCZT", plane), 6).1, "ZC");
    }

    /// Pages in another order, in other files, or of several series are one axis, which is noted.
    #[test]
    fn other_orders_are_one_axis() {
        let swapped = "<TiffData FirstC='2' FirstZ='1' IFD='4'/>";
        let two = xml("XYZCT", "").replace("</Pixels>", "</Pixels><Pixels/>");
        for (xml, pages) in [(xml("XYZCT", swapped), 6), (xml("XYZCT", ""), 4), (two, 6)] {
            let (shape, axes, notes) = axes(&xml, pages);
            assert_eq!((shape, axes.as_str()), (vec![pages as u64], "I"));
            assert!(notes.contains("the axes of OME do not describe the pages"), "{notes}");
        }
    }

    #[test]
    fn imagej_names_axes_of_several_sizes() {
        let text = "ImageJ=1.53\nimages=12\nchannels=2\nslices=3\nframes=2\nhyperstack=true\n";
        assert_eq!(axes(text, 12).0, [2, 3, 2]);
        assert_eq!(axes(text, 12).1, "TZC");
        assert_eq!(axes("ImageJ=1.53\nimages=7\n", 7).0, [7]);
        assert_eq!(axes("a plain text", 7), axes("", 7));
        assert_eq!(axes("", 1), (vec![], String::new(), String::new()));
    }
}
