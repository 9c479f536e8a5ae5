//! Files of a release: they exist, and versions that are written twice agree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::text;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table `[package.metadata.deb]` of the manifest.
fn manifest() -> toml::Table {
    toml::from_str(&text(root().join("Cargo.toml"))).unwrap()
}

/// The files of the repository that the Debian package contains. Those below `target/` are built.
fn debian_files() -> Vec<PathBuf> {
    let manifest = manifest();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let sources = assets.iter().map(|asset| asset[0].as_str().unwrap());
    sources.filter(|source| !source.starts_with("target/")).map(|path| root().join(path)).collect()
}

#[test]
fn files_of_the_debian_package_exist() {
    let files = debian_files();
    assert!(files.len() > 3, "{files:?}");
    files.iter().for_each(|file| assert!(file.is_file(), "{}", file.display()));
}

#[test]
fn packed_files_exist() {
    let script = text(root().join(".github/pack"));
    let line = script.lines().find(|line| line.starts_with("cp \"$program\"")).unwrap();
    let files: Vec<&str> = line.split(' ').skip(2).filter(|word| !word.contains('$')).collect();
    assert!(files.len() > 3, "{files:?}");
    files.iter().for_each(|file| assert!(root().join(file).is_file(), "{file}"));
}

/// The oldest supported version of Rust is in the manifest, the workflow and the guide.
#[test]
fn versions_agree() {
    let rust = env!("CARGO_PKG_RUST_VERSION");
    let has = |file: &str, words: &str| {
        assert!(text(root().join(file)).contains(words), "{file} has no {words:?}");
    };
    has(".github/workflows/ci.yml", &format!("toolchain: \"{rust}\""));
    has("src/guide/getting-started.md", &format!("{rust} or newer"));
    has("CITATION.cff", &format!("version: {}", env!("CARGO_PKG_VERSION")));
    has("CHANGELOG.md", env!("CARGO_PKG_VERSION"));
}

/// The packages of a lock file, with their versions.
fn locked(file: &str) -> BTreeSet<(String, String)> {
    let lock: toml::Table = toml::from_str(&text(root().join(file))).unwrap();
    let word = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
    let packages = lock["package"].as_array().unwrap().iter();
    packages.map(|package| (word(package, "name"), word(package, "version"))).collect()
}

/// The wheel is the same program: it is built from the same versions with the same profiles.
#[test]
fn the_python_crate_is_built_as_this_one() {
    let (own, python) = (locked("Cargo.lock"), locked("python/Cargo.lock"));
    let is_here = |name: &str| own.iter().any(|(known, _)| known == name);
    let others: Vec<_> = python.difference(&own).filter(|(name, _)| is_here(name)).collect();
    assert!(others.is_empty(), "copy Cargo.lock to python/ and build there: {others:?}");
    assert!(python.len() > 100 && !is_here("pyo3") && python.iter().any(|one| one.0 == "pyo3"));
    let crate_of_python: toml::Table =
        toml::from_str(&text(root().join("python/Cargo.toml"))).unwrap();
    let own = manifest();
    for key in ["version", "edition", "rust-version", "license"] {
        assert_eq!(crate_of_python["package"][key], own["package"][key], "{key}");
    }
    let profile = |table: &toml::Table, name: &str, key: &str| table["profile"][name][key].clone();
    for key in ["inherits", "lto", "codegen-units"] {
        assert_eq!(profile(&crate_of_python, "dist", key), profile(&own, "dist", key), "{key}");
    }
    let of_release = |table| profile(table, "release", "strip");
    assert_eq!(of_release(&crate_of_python), of_release(&own));
}

/// The crate has what it compiles in, and is far below the limit of the registry (10 MB).
#[test]
fn the_crate_is_small() {
    fn size(path: &Path) -> u64 {
        if path.is_file() {
            return path.metadata().unwrap().len();
        }
        let inside = std::fs::read_dir(path).unwrap();
        inside.map(|entry| size(&entry.unwrap().path())).sum()
    }
    let manifest = manifest();
    let include = manifest["package"]["include"].as_array().unwrap();
    let names = include.iter().map(|name| name.as_str().unwrap().trim_matches('/'));
    let paths: Vec<PathBuf> =
        names.filter(|name| !name.contains('*')).map(|name| root().join(name)).collect();
    let bytes: u64 = paths.iter().map(|path| size(path)).sum();
    // Compressed it has six tenths of its size: images and models do not compress.
    assert!((2 << 20..16 << 20).contains(&bytes), "{bytes} bytes");
    for needed in ["src", "shaders", "assets"] {
        assert!(paths.contains(&root().join(needed)), "{needed} is left out");
    }
}
