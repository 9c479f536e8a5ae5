//! Exported pages: models in them, and what they compute in a browser or in Dawn.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use csae::internals::export::web::{self, File, Options};
use csae::internals::model::LoadedModel;
use csae::internals::shape::{Dims, to_nhwc};
use serde_json::{Value, json};

use super::chromium::Browser;
use super::random_models::images;
use super::{TempFolder, dawn};

/// The largest error of a page, relative to the largest magnitude of the result.
pub const LIMIT: f64 = 1e-5;
/// Drivers of Vulkan that Debian's and Google's packages of the browser contain.
const DRIVERS: [&str; 2] =
    ["/usr/lib/chromium/vk_swiftshader_icd.json", "/opt/google/chrome/vk_swiftshader_icd.json"];

/// An image for a page, and the result that it must compute.
#[derive(Clone, Debug)]
pub struct Case {
    /// The image (H,W,C).
    pub pixels: Vec<f32>,
    /// Its size.
    pub dims: Dims,
    /// Options of the runner besides the size.
    pub options: Value,
    /// The result.
    pub want: Vec<f32>,
}

impl Case {
    fn options(&self) -> Value {
        let mut all = self.options.clone();
        all["width"] = self.dims.w.into();
        all["height"] = self.dims.h.into();
        all["channels"] = self.dims.c.into();
        all
    }

    fn encoded(&self) -> String {
        STANDARD
            .encode(self.pixels.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// The error of a result, relative to the largest magnitude.
    pub fn error(&self, got: &Value) -> f64 {
        let got = got.as_array().expect("the result is an array");
        if got.len() != self.want.len() {
            return f64::INFINITY;
        }
        let largest =
            self.want.iter().fold(0.0, |most, value| f64::max(most, f64::from(value.abs())));
        let pairs = got.iter().zip(&self.want);
        // JSON has no NaN: it becomes null.
        let error = pairs.map(|(got, want)| {
            got.as_f64().map_or(f64::INFINITY, |got| (got - f64::from(*want)).abs())
        });
        error.fold(0.0, f64::max) / largest
    }
}

/// A page of a model, written to a file.
pub fn page(folder: &TempFolder, name: &str, loaded: &LoadedModel) -> (File, String) {
    // A small example: the software adapter takes seconds for a tile.
    let dims = Dims::new(loaded.graph.nodes[0].dims.c, 45, 60);
    let example = to_nhwc(&images(dims, 1), dims);
    let options =
        Options { name: name.to_owned(), example: Some((example, dims)), ..Options::default() };
    let file = web::export(loaded, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
    let path = folder.write(&format!("{name}.html"), &file.html);
    (file, path)
}

/// The results of cases in an open page.
pub fn in_browser(browser: &mut Browser, path: &str, cases: &[Case]) -> Vec<Value> {
    browser.open_page(&address(path));
    assert!(browser.is_complete("window.csae !== undefined"), "{path}: the page has no script");
    let run = |case: &Case| {
        let (pixels, options) = (case.encoded(), case.options());
        browser.value(&format!(
            "csae.run(decodeValues('{pixels}'), {options}).then((y) => Array.from(y))"
        ))
    };
    cases.iter().map(run).collect()
}

/// The address of a file.
pub fn address(path: &str) -> String {
    format!("file://{}", Path::new(path).canonicalize().unwrap().display())
}

/// The driver that Dawn runs on. `None` if there is no Dawn, or none that it accepts.
pub fn driver() -> Option<&'static str> {
    let exists = |path: &&&str| Path::new(path).exists();
    DRIVERS.iter().find(exists).copied().filter(|_| dawn::is_installed())
}

/// The results of cases in Dawn, on a software driver.
pub fn in_dawn(driver: &str, path: &str, cases: &[Case]) -> Vec<Value> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/support/web.mjs");
    let mut node = Command::new("node")
        .arg(program)
        .arg(std::env::var_os(dawn::FOLDER).expect("the variable is set"))
        .arg(path)
        .envs([("VK_DRIVER_FILES", driver), ("VK_ICD_FILENAMES", driver)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node.js runs");
    let given = |case: &Case| json!({ "pixels": case.encoded(), "options": case.options() });
    let given: Vec<Value> = cases.iter().map(given).collect();
    let mut input = node.stdin.take().expect("its input is a pipe");
    input.write_all(&serde_json::to_vec(&given).unwrap()).expect("Node.js reads the cases");
    drop(input);
    let output = node.wait_with_output().expect("Node.js ends");
    assert!(output.status.success(), "{path}: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("results are JSON")
}
