//! `conch-load growth`: its arguments, and the sweeps they ask for.
//!
//! Each point is told as it is there; the table and the JSON come at the end, and the JSON after each dimension too, so that
//! a run that is ended early leaves what it measured. The verdicts are figures, not failures: the exit code is 0 whatever
//! grows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use conch_loadtest::growth::report::short;
use conch_loadtest::growth::{self, Dimension, Point, Row, Scale, Table};

use super::say;

#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// What is enlarged; without it everything, one after the other
    #[arg(value_enum)]
    dimensions: Vec<Enlarged>,
    /// Smaller sizes and shorter rounds: all in less than five minutes
    #[arg(long)]
    quick: bool,
    /// Folder on the disk that is meant; what is made there is removed at the end
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Where the rows go
    #[arg(long, default_value = "target/bench/growth.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Enlarged {
    /// Members of a group
    Members,
    /// Connections at rest
    Connections,
    /// Channels in use
    Channels,
    /// Messages stored
    Stored,
    /// Messages of one channel
    Depth,
}

impl From<Enlarged> for Dimension {
    fn from(enlarged: Enlarged) -> Dimension {
        match enlarged {
            Enlarged::Members => Dimension::Members,
            Enlarged::Connections => Dimension::Connections,
            Enlarged::Channels => Dimension::Channels,
            Enlarged::Stored => Dimension::Stored,
            Enlarged::Depth => Dimension::Depth,
        }
    }
}

pub(crate) async fn run(args: GrowthArgs) -> Result<bool> {
    let scale = if args.quick {
        Scale::quick()
    } else {
        Scale::full()
    };
    let dimensions: Vec<Dimension> = if args.dimensions.is_empty() {
        Dimension::ALL.to_vec()
    } else {
        args.dimensions.iter().map(|&it| it.into()).collect()
    };
    let mut sweeps = Vec::new();
    for dimension in dimensions {
        // Its data is removed before the next one begins.
        let temporary = tempfile::Builder::new()
            .prefix("conch-growth-")
            .tempdir_in(&args.folder)
            .with_context(|| format!("make a folder in {}", args.folder.display()))?;
        let folder = temporary.path();
        sweeps.extend(growth::run(folder, &[dimension], &scale, say_point).await?);
        let rows: Vec<Row> = sweeps.iter().flat_map(growth::Sweep::rows).collect();
        write_json(&args.json, &rows)?;
    }
    say(&format_args!("\n{}", Table(&sweeps)));
    Ok(true)
}

fn say_point(dimension: Dimension, point: &Point) {
    let figures: Vec<_> = point
        .figures
        .iter()
        .map(|figure| format!("{} {}", figure.metric, short(figure.median())))
        .collect();
    say(&format_args!(
        "{} {}: {}",
        dimension.name(),
        point.at,
        figures.join(", ")
    ));
}

fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
