//! Code from the schema: `wire/schema/conch.fbs` → `wire/src/generated` and `clients/web/sdk/src/generated`, committed.
//!
//! The compiler is built from the pinned source that `tools/flatc/Cargo.toml` names, once per target folder (about half a
//! minute; cmake and ninja must be there), because the output of flatc belongs to one exact version of the `flatbuffers`
//! crate and no prebuilt one can be counted on. Never called by a build script: a build needs no C++ toolchain.
//! `check` also compares with every released schema: fields may be appended, nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{self, run};

/// What the pinned compiler says of itself; the `flatbuffers` crate has the same number.
const FLATC_VERSION: &str = "flatc version 25.12.19";
const SCHEMA: &str = "wire/schema/conch.fbs";
const RELEASED: &str = "wire/schema/released";

/// A language that the schema is compiled to.
struct Target {
    /// Of the generated code; nothing else lies there.
    folder: &'static str,
    options: &'static [&'static str],
}

const TARGETS: &[Target] = &[
    Target {
        folder: "wire/src/generated",
        options: &["--rust", "--rust-module-root-file"],
    },
    Target {
        folder: "clients/web/sdk/src/generated",
        options: &["--ts"],
    },
];

/// Replaces the committed code.
pub fn generate(root: &Path) -> Result<()> {
    for target in TARGETS {
        let made = make(root, target)?;
        let committed = root.join(target.folder);
        if committed.exists() {
            fs::remove_dir_all(&committed)?;
        }
        for file in workspace::files(&made)? {
            let to = committed.join(&file);
            fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
            fs::copy(made.join(&file), to)?;
        }
    }
    Ok(())
}

/// What differs between the committed code and what the schema makes, and between the schema and its releases.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for target in TARGETS {
        let made = make(root, target)?;
        findings.extend(difference(&made, root, target.folder)?);
    }
    let released = root.join(RELEASED);
    if released.exists() {
        let flatc = flatc(root)?;
        for old in workspace::files(&released)? {
            let conform = run(Command::new(&flatc)
                .arg("--conform")
                .arg(released.join(&old))
                .arg(root.join(SCHEMA)));
            findings.extend(
                conform
                    .err()
                    .map(|error| format!("{SCHEMA} breaks {}: {error}", old.display())),
            );
        }
    }
    Ok(findings)
}

/// Files that are missing, superfluous or different.
fn difference(made: &Path, root: &Path, folder: &str) -> Result<Vec<String>> {
    let committed = &root.join(folder);
    let in_made = workspace::files(made)?;
    let in_committed = if committed.exists() {
        workspace::files(committed)?
    } else {
        Vec::new()
    };
    let all: BTreeSet<&PathBuf> = in_made.iter().chain(&in_committed).collect();
    let mut findings = Vec::new();
    for file in all {
        if fs::read(made.join(file)).ok() != fs::read(committed.join(file)).ok() {
            findings.push(format!(
                "{folder}/{} is not what {SCHEMA} makes: run `cargo xtask gen`",
                file.display()
            ));
        }
    }
    Ok(findings)
}

/// Generates into a fresh folder and returns it.
fn make(root: &Path, target: &Target) -> Result<PathBuf> {
    let flatc = flatc(root)?;
    let out = build_folder(root)?.join("out");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    run(Command::new(flatc)
        .args(target.options)
        .arg("-o")
        .arg(&out)
        .arg(root.join(SCHEMA)))?;
    Ok(out)
}

/// The compiler, built if it is not there.
pub fn flatc(root: &Path) -> Result<PathBuf> {
    let build = build_folder(root)?;
    let flatc = build.join("flatc");
    if flatc.exists() && is_pinned(&flatc) {
        return Ok(flatc);
    }
    let source = flatc_source(root)?;
    if build.exists() {
        fs::remove_dir_all(&build).context("cannot clear the folder of flatc")?;
    }
    run(Command::new("cmake")
        .arg("-S")
        .arg(source)
        .arg("-B")
        .arg(&build)
        .args([
            "-G",
            "Ninja",
            "-DCMAKE_BUILD_TYPE=Debug",
            "-DCMAKE_CXX_FLAGS_DEBUG=-O0 -g0",
            "-DFLATBUFFERS_BUILD_TESTS=OFF",
            "-DFLATBUFFERS_BUILD_FLATHASH=OFF",
            "-DFLATBUFFERS_INSTALL=OFF",
        ]))?;
    run(Command::new("cmake")
        .arg("--build")
        .arg(&build)
        .args(["--target", "flatc"]))?;
    ensure!(
        is_pinned(&flatc),
        "the compiler that was built is not {FLATC_VERSION}"
    );
    Ok(flatc)
}

fn build_folder(root: &Path) -> Result<PathBuf> {
    Ok(workspace::metadata(&root.join("Cargo.toml"), true)?
        .target_directory
        .join("flatc"))
}

fn is_pinned(flatc: &Path) -> bool {
    run(Command::new(flatc).arg("--version"))
        .is_ok_and(|version| String::from_utf8_lossy(&version).trim() == FLATC_VERSION)
}

/// The C++ source inside the pinned crate; cargo fetches it if it must.
fn flatc_source(root: &Path) -> Result<PathBuf> {
    let metadata = workspace::metadata(&root.join("tools/flatc/Cargo.toml"), false)?;
    for package in metadata.packages {
        if package.name == "flatc-fork" {
            return Ok(package.manifest_path.with_file_name("flatbuffers"));
        }
    }
    bail!("tools/flatc does not name the source of flatc");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn missing_superfluous_and_different_files_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (made, committed) = (folder.path().join("made"), folder.path().join("committed"));
        for (side, name, text) in [
            (&made, "same", "1"),
            (&committed, "same", "1"),
            (&made, "changed", "1"),
            (&committed, "changed", "2"),
            (&made, "missing", "1"),
            (&committed, "superfluous", "1"),
        ] {
            fs::create_dir_all(side).unwrap();
            fs::write(side.join(name), text).unwrap();
        }
        let findings = difference(&made, folder.path(), "committed").unwrap();
        assert_eq!(findings.len(), 3, "{findings:?}");
        for (finding, name) in findings.iter().zip(["changed", "missing", "superfluous"]) {
            assert!(finding.contains(name), "{finding}");
        }
    }
}
