//! What no compiler checks, as one list of findings; an empty list is tidy.
//!
//! `arrows` holds the crates to the house's plan; `sources` looks into every file of ours: purity of state machines,
//! opening docs, words that mark unfinished work; `documents` compares tables in `docs/` with the code that they describe.
//! Each rule is a function over text, so that its own tests can show it both sides. The test `tidy` runs the whole.

mod arrows;
mod documents;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace;

/// Extensions of files that people write here.
const WRITTEN: &[&str] = &[
    "rs", "md", "toml", "fbs", "sh", "yml", "yaml", "json", "c", "ts", "js", "html", "css",
];

/// A file of ours, read.
struct Source {
    path: PathBuf,
    text: String,
}

/// Every finding in the workspace at `root`.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = arrows::check(&workspace::metadata(&root.join("Cargo.toml"), true)?);
    let sources = read_sources(root)?;
    for source in &sources {
        findings.extend(sources::check(&source.path, &source.text));
    }
    findings.extend(documents::check(&sources));
    Ok(findings)
}

fn read_sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in workspace::files(root)? {
        let written = path
            .extension()
            .is_some_and(|extension| WRITTEN.iter().any(|known| extension == *known));
        if written || path.file_name().is_some_and(|name| name == "Makefile") {
            let text = fs::read_to_string(root.join(&path))
                .with_context(|| format!("{} is not text", path.display()))?;
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}
