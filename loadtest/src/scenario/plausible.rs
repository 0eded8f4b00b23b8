//! What no single key of a scenario can show: whether its parts fit each other.

use super::{Scenario, ScenarioError, Send};
use crate::raw::Transport;

pub(super) fn judge(file: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
    let refuse = |key: String, problem: String| Err(ScenarioError::key(file, key, problem));
    let people = scenario.population.people;
    let transport = &scenario.population.transport;
    if (transport.sum() - 1.0).abs() > 0.001 {
        let problem = format!("the shares sum to {}; allowed: 1", transport.sum());
        return refuse("population.transport".to_owned(), problem);
    }
    if transport.has(Transport::WebSocket) && transport.has(Transport::Tls) {
        let problem =
            "ws and wss together: a node listens either with TLS or without; quic goes with both";
        return refuse("population.transport".to_owned(), problem.to_owned());
    }
    if people < 2 && !scenario.direct.is_empty() {
        let problem = format!("two people for a pair, and there are {people}; allowed: 2 or more");
        return refuse("population.people".to_owned(), problem);
    }
    for (index, group) in scenario.group.iter().enumerate() {
        if group.members > people {
            let problem = format!(
                "{} members, and population.people is {people}; allowed: 2 to {people}",
                group.members
            );
            return refuse(format!("group[{index}].members"), problem);
        }
    }
    names(file, scenario)?;
    for (index, send) in scenario.send.iter().enumerate() {
        judge_send(file, scenario, index, send)?;
    }
    let stored = scenario.direct.iter().map(|it| it.stored);
    let stored = stored.chain(scenario.group.iter().map(|it| it.stored));
    if scenario.check && scenario.send.is_empty() && stored.sum::<usize>() == 0 {
        let problem = "true, and nothing is ever sent that could be checked; allowed: false";
        return refuse("check".to_owned(), problem.to_owned());
    }
    moments(file, scenario)?;
    search(file, scenario)
}

/// Channel sets have names of their own, and what acts on channels names one of them.
fn names(file: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
    let direct = scenario.direct.iter().map(|it| ("direct", &it.name));
    let groups = scenario.group.iter().map(|it| ("group", &it.name));
    let mut known: Vec<&str> = Vec::new();
    for (section, name) in direct.chain(groups) {
        if known.contains(&name.as_str()) {
            let problem = format!("\"{name}\" is the name of two; allowed: one name each");
            return Err(ScenarioError::key(file, format!("{section}.name"), problem));
        }
        known.push(name);
    }
    let sends = scenario.send.iter().map(|it| ("send", &it.to));
    let pages = scenario.history.iter().map(|it| ("history", &it.to));
    let reads = scenario.read.iter().map(|it| ("read", &it.to));
    for (section, to) in sends.chain(pages).chain(reads) {
        if known.is_empty() {
            let problem = "there is no channel to act on; add [[direct]] or [[group]]";
            return Err(ScenarioError::key(file, section, problem));
        }
        if let Some(to) = to.as_ref().filter(|to| !known.contains(&to.as_str())) {
            let problem = format!(
                "no channels are called \"{to}\"; allowed: {}",
                known.join(", ")
            );
            return Err(ScenarioError::key(file, format!("{section}.to"), problem));
        }
    }
    Ok(())
}

fn judge_send(
    file: &str,
    scenario: &Scenario,
    index: usize,
    send: &Send,
) -> Result<(), ScenarioError> {
    let at = |key: &str| format!("send[{index}].{key}");
    match (send.rate, send.window) {
        (None, None) => {
            let problem = "missing; allowed: `rate` (open loop) or `window` (closed loop)";
            return Err(ScenarioError::key(file, at("rate"), problem));
        }
        (Some(_), Some(_)) => {
            let problem = "a rate stands there too; allowed: `rate` (open loop) or `window` (closed loop), not both";
            return Err(ScenarioError::key(file, at("window"), problem));
        }
        _ => {}
    }
    let bytes = send.batch * send.payload_bytes;
    if send.batch > 1 && bytes > conch_wire::limits::SEND_MANY_BYTES_MAX * 9 / 10 {
        let problem = format!(
            "{} messages of {} bytes do not fit one SEND_MANY; allowed: {} bytes together",
            send.batch,
            send.payload_bytes,
            conch_wire::limits::SEND_MANY_BYTES_MAX * 9 / 10
        );
        return Err(ScenarioError::key(file, at("batch"), problem));
    }
    let (from, duration) = (send.at_s.unwrap_or(0.0), scenario.time.duration_s);
    if from + send.for_s.unwrap_or(0.0) > duration {
        let problem = format!("it ends after time.duration_s; allowed: within {duration}");
        return Err(ScenarioError::key(file, at("for_s"), problem));
    }
    Ok(())
}

/// What happens once happens within the time that is measured.
fn moments(file: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
    let duration = scenario.time.duration_s;
    let storms = scenario
        .storm
        .iter()
        .map(|it| ("storm", it.at_s, it.within_s));
    let stalls = scenario.stall.iter().map(|it| ("stall", it.at_s, it.for_s));
    let absences = scenario
        .absence
        .iter()
        .map(|it| ("absence", it.at_s, it.for_s));
    for (section, at, takes) in storms.chain(stalls).chain(absences) {
        if at + takes > duration {
            let problem = format!(
                "{at} s and {takes} s more are beyond time.duration_s; allowed: within {duration}"
            );
            return Err(ScenarioError::key(file, format!("{section}.at_s"), problem));
        }
    }
    Ok(())
}

fn search(file: &str, scenario: &Scenario) -> Result<(), ScenarioError> {
    let Some(search) = &scenario.search else {
        return Ok(());
    };
    let rates: Vec<_> = scenario.send.iter().filter_map(|it| it.rate).collect();
    match rates[..] {
        [rate] if rate > search.rate_max => {
            let problem = format!("below the first rate; allowed: {rate} or more");
            Err(ScenarioError::key(file, "search.rate_max", problem))
        }
        [_] => Ok(()),
        _ => {
            let problem = format!(
                "{} sends have a rate; allowed: exactly one, whose rate is looked for",
                rates.len()
            );
            Err(ScenarioError::key(file, "search", problem))
        }
    }
}
