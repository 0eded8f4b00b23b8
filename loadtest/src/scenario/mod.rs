//! What a load run does, as a TOML file says it: who is there, for how long, and what they do at the same time.
//!
//! [`Scenario::load`] takes a path or the name of a shipped file. Everything that a file may say stands in [`schema::KEYS`]
//! with what is allowed and what holds without it; the file is compared with that table first, so that each mistake is one
//! line that names file, key and what is allowed. `plausible` judges what no single key can show. Nothing here runs
//! anything. Times count from the beginning of what is measured, after the warm-up.

mod error;
mod plausible;
pub mod schema;
mod shares;
mod shipped;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::ScenarioError;
pub use shares::Shares;
pub use shipped::SHIPPED;

/// A whole scenario.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One line for people.
    #[serde(default)]
    pub about: String,
    /// Whether the checker follows every message.
    #[serde(default = "yes")]
    pub check: bool,
    /// Draws arrivals and who drops out.
    #[serde(default = "one")]
    pub seed: u64,
    pub population: Population,
    #[serde(default)]
    pub time: Time,
    #[serde(default)]
    pub direct: Vec<Direct>,
    #[serde(default)]
    pub group: Vec<Group>,
    #[serde(default)]
    pub send: Vec<Send>,
    #[serde(default)]
    pub history: Vec<History>,
    #[serde(default)]
    pub read: Vec<Read>,
    #[serde(default)]
    pub storm: Vec<Storm>,
    #[serde(default)]
    pub stall: Vec<Stall>,
    #[serde(default)]
    pub absence: Vec<Absence>,
    pub search: Option<Search>,
}

/// Who is there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    pub people: usize,
    /// Of each person, all connected.
    #[serde(default = "one_device")]
    pub devices: usize,
    #[serde(default)]
    pub transport: Shares,
}

/// Channels of two.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direct {
    #[serde(default = "direct_name")]
    pub name: String,
    pub pairs: usize,
    /// Messages in each before the warm-up begins.
    #[serde(default)]
    pub stored: usize,
}

/// Groups of one size.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[serde(default = "group_name")]
    pub name: String,
    #[serde(default = "one_device")]
    pub groups: usize,
    pub members: usize,
    /// Messages in each before the warm-up begins.
    #[serde(default)]
    pub stored: usize,
}

/// How long it takes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    #[serde(default = "warm_up")]
    pub warm_up_s: f64,
    #[serde(default = "duration")]
    pub duration_s: f64,
    /// Longest wait, after the last send, for every answer and delivery.
    #[serde(default = "drain")]
    pub drain_s: f64,
}

impl Default for Time {
    fn default() -> Time {
        Time {
            warm_up_s: warm_up(),
            duration_s: duration(),
            drain_s: drain(),
        }
    }
}

/// How sends of an open loop are spread over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At equal distances.
    Fixed,
    /// Independent of each other, as people are.
    #[default]
    Poisson,
}

/// People write. With a rate the loop is open: sends leave when they are due, whatever the answers do. With a window it
/// is closed: each sender keeps so many messages unanswered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The channels of this name; without it all.
    pub to: Option<String>,
    /// Messages per second, over all channels together.
    pub rate: Option<f64>,
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Messages that each sender keeps unanswered in each channel.
    pub window: Option<usize>,
    /// Messages that leave together in one SEND_MANY.
    #[serde(default = "one_device")]
    pub batch: usize,
    #[serde(default = "payload")]
    pub payload_bytes: usize,
    /// Members of each channel who write; without it all.
    pub senders: Option<usize>,
    /// When it begins and ends; without both it goes on from the warm-up to the end.
    pub at_s: Option<f64>,
    pub for_s: Option<f64>,
}

/// People page back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub to: Option<String>,
    /// Pages per second.
    pub rate: f64,
    /// Events per page.
    #[serde(default = "page_items")]
    pub items: u16,
}

/// People move their read marks to the newest event that they were shown.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    pub to: Option<String>,
    /// Marks per second.
    pub rate: f64,
}

/// Connections drop at once and come back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    pub at_s: f64,
    #[serde(default = "all")]
    pub share: f64,
    /// They come back at moments spread evenly over this time.
    #[serde(default)]
    pub within_s: f64,
}

/// Devices stop reading and keep their connections: slow consumers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    pub at_s: f64,
    pub for_s: f64,
    pub share: f64,
}

/// Devices go away, and catch up when they come back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Absence {
    pub at_s: f64,
    pub for_s: f64,
    pub share: f64,
}

/// Which p99 an objective is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Latency {
    #[default]
    Delivery,
    Ack,
}

/// Looks for the highest rate of the one open loop at which an objective is met.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// The objective: p99 at most this, no error, and a generator that was in time.
    pub p99_ms: f64,
    #[serde(default)]
    pub of: Latency,
    /// Never more than this; the first probe is at the rate of the send.
    pub rate_max: f64,
    /// Length of a probe.
    #[serde(default = "probe")]
    pub probe_s: f64,
    /// It ends when the highest rate that held and the lowest that did not are so near, as a share.
    #[serde(default = "precision")]
    pub precision: f64,
}

impl Scenario {
    /// Reads a file, or a shipped one by its name.
    pub fn load(name: &str) -> Result<(String, Scenario), ScenarioError> {
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        if let Some((name, text)) = shipped {
            return Ok(((*name).to_owned(), Scenario::parse(name, text)?));
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable {
            file: name.to_owned(),
            source,
        })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok((stem.into_owned(), Scenario::parse(name, &text)?))
    }

    /// A scenario from its text; `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            ScenarioError::NotToml {
                file: file.to_owned(),
                line,
                problem: error.message().replace('\n', " "),
            }
        })?;
        schema::compare(file, &table)?;
        let scenario: Scenario =
            table
                .try_into()
                .map_err(|error: toml::de::Error| ScenarioError::NotToml {
                    file: file.to_owned(),
                    line: 1,
                    problem: error.message().replace('\n', " "),
                })?;
        plausible::judge(file, &scenario)?;
        Ok(scenario)
    }

    /// The same scenario measured for `duration_s`: what happens at a moment happens at the same part of the time.
    pub fn shorten(&mut self, duration_s: f64) {
        let factor = duration_s / self.time.duration_s;
        self.time.duration_s = duration_s;
        let optional = self
            .send
            .iter_mut()
            .flat_map(|it| [&mut it.at_s, &mut it.for_s]);
        optional.flatten().for_each(|time| *time *= factor);
        let storms = self
            .storm
            .iter_mut()
            .flat_map(|it| [&mut it.at_s, &mut it.within_s]);
        let stalls = self
            .stall
            .iter_mut()
            .flat_map(|it| [&mut it.at_s, &mut it.for_s]);
        let absences = self
            .absence
            .iter_mut()
            .flat_map(|it| [&mut it.at_s, &mut it.for_s]);
        for time in storms.chain(stalls).chain(absences) {
            *time *= factor;
        }
    }

    /// Devices of all people.
    pub fn devices(&self) -> usize {
        self.population.people * self.population.devices
    }

    /// Whether everything that is sent is sent at a rate: then the generator can be too late.
    pub fn is_open_loop(&self) -> bool {
        self.send.iter().any(|send| send.rate.is_some())
    }

    /// The largest group.
    pub fn members_max(&self) -> usize {
        let sizes = self.group.iter().map(|group| group.members);
        sizes.max().unwrap_or(2)
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

fn yes() -> bool {
    true
}
fn one() -> u64 {
    1
}
fn one_device() -> usize {
    1
}
fn direct_name() -> String {
    "direct".to_owned()
}
fn group_name() -> String {
    "group".to_owned()
}
fn warm_up() -> f64 {
    3.0
}
fn duration() -> f64 {
    30.0
}
fn drain() -> f64 {
    30.0
}
fn payload() -> usize {
    100
}
fn page_items() -> u16 {
    50
}
fn all() -> f64 {
    1.0
}
fn probe() -> f64 {
    10.0
}
fn precision() -> f64 {
    0.1
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests;
