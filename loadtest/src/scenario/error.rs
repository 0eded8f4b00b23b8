//! Why a scenario is refused: always one line, with the file and what to write in its place.

use thiserror::Error;

/// A refused scenario.
#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error(
        "{file}: cannot be read ({source}); a path, or one of: {}",
        super::shipped::names()
    )]
    Unreadable {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{file}: line {line}: {problem}")]
    NotToml {
        file: String,
        line: usize,
        problem: String,
    },
    /// `key` with its path, e.g. `send[0].rate`.
    #[error("{file}: {key}: {problem}")]
    Key {
        file: String,
        key: String,
        problem: String,
    },
}

impl ScenarioError {
    pub(super) fn key(file: &str, key: impl Into<String>, problem: impl Into<String>) -> Self {
        ScenarioError::Key {
            file: file.to_owned(),
            key: key.into(),
            problem: problem.into(),
        }
    }
}
