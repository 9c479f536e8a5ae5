//! The guide: one page for each topic. The program prints the pages with `csae guide TOPIC`.
//!
//! | Page | Content |
//! |---|---|
//! | [Getting started][getting_started] | Install csae, restore a photograph, train a model. |
//! | [Photographs][photographs] | Train on your own images: names, sizes, large sets. |
//! | [Sparsity][sparsity] | Choose a sparsity rule, and keep units alive. |
//! | [Features][features] | Extract and measure features, train classifiers. |
//! | [Restoration][restoration] | Remove noise and JPEG artefacts, fill, enlarge. |
//! | [Segmentation and detection][segmentation_and_detection] | Classify pixels, find objects. |
//! | [Anomalies][anomalies] | Find defects with a model of normal images. |
//! | [Generation][generation] | Generate images, textures and styles. |
//! | [Configuration][configuration] | Presets, keys, run folders, resuming, memory. |
//! | [Runs][runs] | Follow a training, compare runs, try several values. |
//! | [GPUs and speed][gpus_and_speed] | Choose, check and time a device; what was measured. |
//! | [Clusters][clusters] | Batch jobs, several GPUs and machines, signals. |
//! | [File formats][file_formats] | Every file that csae reads and writes. |
//! | [Model file][model_file] | What a model file holds, and how to read it. |
//! | [Python][python] | From Python: numpy arrays, scikit-learn, PyTorch. |
//! | [Models for other programs][export] | ONNX files, and pages for browsers. |
//! | [Questions][faq] | Short answers to frequent questions. |
//! | [Glossary][glossary] | The words of this guide. |

/// A page of the guide.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Its name, such as `getting-started`.
    pub name: &'static str,
    /// Its text, in Markdown.
    pub text: &'static str,
}

impl Page {
    /// The title: the first line.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// One line about the content: the first paragraph.
    pub fn summary(&self) -> String {
        let lines = self.text.lines().skip(1).skip_while(|line| line.is_empty());
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Links between pages. The definitions come before those of a page, so that they replace its own
/// links to Markdown files.
macro_rules! pages {
    ($($module:ident $name:literal,)*) => {
        $(
            #[doc = "[Getting started]: self::getting_started"]
            #[doc = "[Photographs]: self::photographs"]
            #[doc = "[Sparsity]: self::sparsity"]
            #[doc = "[Features]: self::features"]
            #[doc = "[Restoration]: self::restoration"]
            #[doc = "[Segmentation and detection]: self::segmentation_and_detection"]
            #[doc = "[Anomalies]: self::anomalies"]
            #[doc = "[Generation]: self::generation"]
            #[doc = "[Configuration]: self::configuration"]
            #[doc = "[Runs]: self::runs"]
            #[doc = "[GPUs and speed]: self::gpus_and_speed"]
            #[doc = "[Clusters]: self::clusters"]
            #[doc = "[File formats]: self::file_formats"]
            #[doc = "[Model file]: self::model_file"]
            #[doc = "[Python]: self::python"]
            #[doc = "[Models for other programs]: self::export"]
            #[doc = "[Questions]: self::faq"]
            #[doc = "[Glossary]: self::glossary"]
            #[doc = ""]
            #[doc = include_str!(concat!($name, ".md"))]
            pub mod $module {}
        )*

        /// The pages, in reading order.
        pub const PAGES: &[Page] = &[
            $(Page { name: $name, text: include_str!(concat!($name, ".md")) }),*
        ];
    };
}

pages! {
    getting_started "getting-started",
    photographs "photographs",
    sparsity "sparsity",
    features "features",
    restoration "restoration",
    segmentation_and_detection "segmentation-and-detection",
    anomalies "anomalies",
    generation "generation",
    configuration "configuration",
    runs "runs",
    gpus_and_speed "gpus-and-speed",
    clusters "clusters",
    file_formats "file-formats",
    model_file "model-file",
    python "python",
    export "export",
    faq "faq",
    glossary "glossary",
}
