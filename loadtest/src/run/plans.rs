//! What each worker is told: its part of the people and of their channels.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::conduct::RunPlan;
use super::machine;
use super::people::People;
use super::population::{self, Layout};
use super::server::{Server, Target};
use super::wire::{ChannelPlan, DevicePlan, PersonPlan, WorkerPlan};
use crate::raw::Transport;

/// Devices of one worker: a process may hold some 20,000 descriptors.
const DEVICES_PER_WORKER: usize = 15_000;
const DEVICES_PER_WORKER_MAX: usize = 19_000;
/// Workers unless told otherwise: half of the cores are the node's.
const WORKERS_DEFAULT_MAX: usize = 8;

/// Whether the node of the run can hold its connections.
pub(super) fn enough_descriptors(plan: &RunPlan) -> Result<()> {
    let Target::Spawn { .. } = plan.target else {
        return Ok(());
    };
    let shares = &plan.scenario.population.transport;
    let on_tcp = (0..plan.scenario.devices())
        .filter(|device| shares.of(*device) != Transport::Quic)
        .count();
    let may = machine::descriptors_max();
    ensure!(
        on_tcp as u64 + 200 < may,
        "{on_tcp} connections over TCP: a process may have {may} files open here (ulimit -n), and the node needs one for each"
    );
    Ok(())
}

/// Devices of a worker.
pub(super) fn devices_of(plan: &WorkerPlan) -> usize {
    plan.people.iter().map(|it| it.devices.len()).sum()
}

/// Cuts the population into plans of workers; workers without people are left out.
pub(super) fn cut(
    plan: &RunPlan,
    server: &Server,
    layout: &[Layout],
    people: &People,
    channels: Vec<u64>,
) -> Result<Vec<WorkerPlan>> {
    let scenario = &plan.scenario;
    let needed = scenario.devices().div_ceil(DEVICES_PER_WORKER);
    let spare = (machine::cores() / 2).clamp(1, WORKERS_DEFAULT_MAX);
    let workers = plan.workers.unwrap_or(needed.max(spare));
    let worker_of = population::cut(people.len(), layout, workers);
    let mut of_all: BTreeMap<String, usize> = BTreeMap::new();
    for channel in layout {
        *of_all.entry(channel.set.clone()).or_default() += 1;
    }
    let mut plans: Vec<WorkerPlan> = (0..workers)
        .map(|worker| WorkerPlan {
            scenario: scenario.clone(),
            worker,
            doors: server.doors.clone(),
            people: Vec::new(),
            channels: Vec::new(),
            channels_of_all: of_all.clone(),
        })
        .collect();
    let mut place = vec![0; people.len()];
    let mut number = 0;
    for (person, devices) in people.iter().enumerate() {
        let of = &mut plans[worker_of[person]].people;
        place[person] = of.len();
        of.push(PersonPlan {
            user: devices[0].user.0,
            devices: devices
                .iter()
                .map(|login| {
                    number += 1;
                    DevicePlan {
                        device: login.device.0,
                        access_token: login.access_token.clone(),
                        refresh_token: login.refresh_token.clone(),
                        number,
                    }
                })
                .collect(),
        });
    }
    for (channel, id) in layout.iter().zip(channels) {
        plans[worker_of[channel.members[0]]]
            .channels
            .push(ChannelPlan {
                id,
                set: channel.set.clone(),
                members: channel.members.iter().map(|it| place[*it]).collect(),
                stored: channel.stored,
            });
    }
    plans.retain(|plan| !plan.people.is_empty());
    for plan in &plans {
        let devices = devices_of(plan);
        ensure!(
            devices <= DEVICES_PER_WORKER_MAX,
            "{devices} devices would be in one worker, because their channels hang together; allowed: {DEVICES_PER_WORKER_MAX}"
        );
    }
    Ok(plans)
}
