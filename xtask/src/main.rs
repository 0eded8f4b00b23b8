//! The program behind `cargo xtask`: one verb per chore. It prints what it found and fails when there is anything.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use xtask::{codegen, tidy, workspace};

#[derive(Parser)]
#[command(about = "Chores of the workspace")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Generates the Rust code of the schema.
    Gen {
        /// Changes nothing; fails when the committed code is not what the schema makes.
        #[arg(long)]
        check: bool,
    },
    /// Builds the pinned schema compiler if it is not there, and prints where it is.
    Flatc,
    /// Checks crate arrows, purity, file headers, and documents against code.
    Tidy,
    /// Writes the golden vectors and the seeds of the fuzz corpus anew.
    Vectors,
}

fn main() -> Result<()> {
    let root = workspace::root();
    let findings = match Arguments::parse().verb {
        Verb::Gen { check: false } => {
            codegen::generate(&root)?;
            Vec::new()
        }
        Verb::Gen { check: true } => codegen::check(&root)?,
        Verb::Flatc => {
            println!("{}", codegen::flatc(&root)?.display());
            Vec::new()
        }
        Verb::Tidy => tidy::check(&root)?,
        Verb::Vectors => {
            let test = [
                "test",
                "-p",
                "conch-wire",
                "--test",
                "vectors",
                "--",
                "--ignored",
                "write_vectors",
            ];
            workspace::run(workspace::cargo().args(test).current_dir(&root))?;
            Vec::new()
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}
