//! The subcommands of `conch-load`: one file each, with its arguments and what is done with them.

pub(crate) mod bench;
pub(crate) mod chaos;
pub(crate) mod compare;
pub(crate) mod floor;
pub(crate) mod growth;
pub(crate) mod measure;
pub(crate) mod relay;
pub(crate) mod run;

/// The program's result goes to the standard output.
#[allow(clippy::print_stdout)] // a command-line program answers there
pub(crate) fn say(result: &impl std::fmt::Display) {
    println!("{result}");
}
