//! Where things are: the root of the workspace, its files, what cargo knows of it, and running programs.
//!
//! Called by every chore. Walks the tree itself instead of asking git, so that it works in an unpacked archive too; skips
//! what is built, fetched or hidden.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &[
    "target",
    "node_modules",
    "dist",
    "corpus",
    "artifacts",
    "coverage",
    "data",
];

/// What `cargo metadata` says, as far as it is used here.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub kind: Option<String>,
}

/// The root of the workspace that this program was built in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}

/// The cargo that runs us, or the one in the path.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What cargo knows of `manifest`; with `members_only` nothing is fetched and dependencies are not listed as packages.
pub fn metadata(manifest: &Path, members_only: bool) -> Result<Metadata> {
    let mut command = cargo();
    command
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--manifest-path",
        ])
        .arg(manifest);
    if members_only {
        command.arg("--no-deps");
    }
    serde_json::from_slice(&run(&mut command)?).context("cargo metadata is not what was expected")
}

/// Runs a program to its end and returns what it printed; fails with its errors when it fails.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}: is it installed?", program.display()))?;
    if !output.status.success() {
        let printed = [output.stdout, output.stderr].concat();
        bail!(
            "{command:?} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&printed)
        );
    }
    Ok(output.stdout)
}

/// All files below `root` that are ours, as paths relative to it, sorted.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || SKIPPED.contains(&&*name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
