//! The web page, put into the program: every file of `clients/web/page/dist`, if the page was built before.
//!
//! Runs no tool and needs none: `make` builds the page with npm first. Without it the program is complete but for the page, and
//! says on `/` how to build it. What is written is one Rust list of paths and `include_bytes!`; see `src/http/page.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let page = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../clients/web/page");
    // The whole folder, because a `dist` that does not exist yet cannot be watched.
    println!("cargo:rerun-if-changed={}", page.display());
    let dist = page.join("dist");
    let mut files = Vec::new();
    collect(&dist, &mut files);
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // Copied, so that building the page again in the middle of a build does no harm.
    let kept = |file: &Path, name: String| {
        let copy = out.join(name);
        fs::copy(file, &copy).expect("a file of the page can be copied");
        copy
    };
    let mut list = String::from("&[\n");
    let plain = files
        .iter()
        .filter(|file| file.extension().is_none_or(|it| it != "gz"));
    for (number, file) in plain.enumerate() {
        let path = file
            .strip_prefix(&dist)
            .expect("it was found there")
            .to_str()
            .expect("the page's files have plain names")
            .replace('\\', "/");
        let packed = PathBuf::from(format!("{}.gz", file.display()));
        let packed = if packed.exists() {
            format!(
                "Some(include_bytes!({:?}))",
                kept(&packed, format!("page-{number}.gz"))
            )
        } else {
            "None".to_owned()
        };
        let bytes = kept(file, format!("page-{number}"));
        writeln!(
            list,
            "    PageFile {{ path: {path:?}, bytes: include_bytes!({bytes:?}), packed: {packed} }},"
        )
        .expect("a String takes all");
    }
    list.push_str("]\n");
    fs::write(out.join("page_files.rs"), list).expect("the folder for output can be written");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
