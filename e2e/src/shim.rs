//! The preloaded shim over fdatasync: builds it once per run, and steers it for one node.
//!
//! Needs a C compiler (`cc`), as building Conch does. The rules are in the C file's header.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// A shim for one node: give [`Shim::env`] to the node, then hold, fail and release by path.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    control: PathBuf,
}

impl Shim {
    /// A shim whose control file lies in `folder`; lets everything pass.
    pub fn new(folder: &Path) -> Result<Shim> {
        let shim = Shim {
            library: library()?,
            control: folder.join("shim-control"),
        };
        shim.write("pass")?;
        Ok(shim)
    }

    /// What the node's environment must hold.
    pub fn env(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".into(), self.library.display().to_string()),
            (
                "CONCH_SHIM_CONTROL".into(),
                self.control.display().to_string(),
            ),
        ]
    }

    /// Syncs of files whose path holds `pattern` do not return from here on.
    pub fn hold(&self, pattern: &str) -> Result<()> {
        self.write(&format!("hold {pattern}"))
    }

    /// Syncs of files whose path holds `pattern` fail with EIO from here on.
    pub fn fail(&self, pattern: &str) -> Result<()> {
        self.write(&format!("fail {pattern}"))
    }

    /// Everything passes, what is held included.
    pub fn release(&self) -> Result<()> {
        self.write("pass")
    }

    /// What the shim did so far: lines `held PATH` and `failed PATH`.
    pub fn events(&self) -> Vec<String> {
        let name = format!("{}.events", self.control.display());
        fs::read_to_string(name)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn write(&self, line: &str) -> Result<()> {
        let next = self.control.with_extension("next");
        fs::write(&next, format!("{line}\n"))?;
        fs::rename(&next, &self.control).context("the shim's control file")
    }
}

/// The shared object, compiled once per test process.
fn library() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/fdatasync.c");
    let folder = std::env::current_exe()?
        .parent()
        .context("the test executable lies in a folder")?
        .to_owned();
    let target = folder.join("conch-fdatasync-shim.so");
    let fresh = folder.join(format!("conch-fdatasync-shim.{}.so", std::process::id()));
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
        .arg(&fresh)
        .arg(&source)
        .output()
        .context("run cc")?;
    ensure!(
        built.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    fs::rename(&fresh, &target)?;
    Ok(target)
}
