//! Compresses the shaders for the program, in which they take a fifth of their size.
//! `src/gpu/kernels.rs` reads them.

use std::io::Write;
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    for (folder, prefix) in [("shaders", ""), ("shaders/common", "common/")] {
        let files = fs::read_dir(folder).expect("the shaders are beside the build script");
        let mut files: Vec<_> = files.map(|file| file.expect("a shader").path()).collect();
        // The program must not depend on the order of a folder.
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "wgsl")) {
            let name = file.file_stem().expect("a shader has a name").to_string_lossy();
            let text = fs::read_to_string(file).expect("a shader is a text");
            write!(encoder, "{prefix}{name}\0{text}\0").expect("memory takes all bytes");
        }
    }
    let packed = encoder.finish().expect("memory takes all bytes");
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("shaders.deflate"), packed).expect("cargo made the folder");
}
