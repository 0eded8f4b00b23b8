//! Makes the people and channels of a run over HTTP, under names that no other run uses.
//!
//! They stay on the node when the run is over: accounts `load-…` with a password that nobody keeps.

use anyhow::{Context, Result};
use conch_wire::{ChannelId, UserId};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use rand::Rng;
use rand::distr::Alphanumeric;

use super::population::Layout;
use super::progress::Progress;
use crate::http::{Api, Login};
use crate::patience::patiently;
use crate::scenario::Scenario;

/// Calls in flight; password hashing bounds it, not this.
const CALLS_AT_ONCE: usize = 8;

/// The people of a run: the devices of each, logged in.
pub(super) type People = Vec<Vec<Login>>;

/// The names of a run's people begin with it.
pub(super) fn prefix() -> String {
    let mut rng = rand::rng();
    let letters = (0..6).map(|_| char::from(rng.random_range(b'a'..=b'z')));
    format!("load-{}-", letters.collect::<String>())
}

/// Signs people up and logs their other devices in.
pub(super) async fn sign_up(
    api: &Api,
    scenario: &Scenario,
    prefix: &str,
    progress: &Progress,
) -> Result<People> {
    let password: String = rand::rng()
        .sample_iter(Alphanumeric)
        .take(24)
        .map(char::from)
        .collect();
    let people = scenario.population.people;
    let mut made = Vec::with_capacity(people);
    let mut coming = stream::iter(0..people)
        .map(|number| {
            let (api, password) = (api.clone(), password.clone());
            let handle = format!("{prefix}{number}");
            async move {
                let mut devices = vec![patiently(|| api.sign_up(&handle, &password)).await?];
                for device in 1..scenario.population.devices {
                    let name = format!("device {device}");
                    devices.push(patiently(|| api.log_in(&handle, &password, &name)).await?);
                }
                Ok::<_, anyhow::Error>(devices)
            }
        })
        .buffered(CALLS_AT_ONCE);
    while let Some(devices) = coming.try_next().await.context("sign people up")? {
        made.push(devices);
        progress.setup("people signed up", made.len() as u64, people as u64);
    }
    Ok(made)
}

/// Makes the channels.
pub(super) async fn make_channels(
    api: &Api,
    people: &People,
    layout: &[Layout],
    progress: &Progress,
) -> Result<Vec<ChannelId>> {
    let mut made = Vec::with_capacity(layout.len());
    let mut coming = stream::iter(layout)
        .map(|channel| {
            let token = &people[channel.members[0]][0].access_token;
            let others: Vec<UserId> = channel.members[1..]
                .iter()
                .map(|it| people[*it][0].user)
                .collect();
            async move {
                if channel.is_direct {
                    patiently(|| api.direct(token, others[0])).await
                } else {
                    patiently(|| api.group(token, &channel.set, &others)).await
                }
            }
        })
        .buffered(CALLS_AT_ONCE);
    while let Some(channel) = coming.try_next().await.context("make channels")? {
        made.push(channel);
        progress.setup("channels made", made.len() as u64, layout.len() as u64);
    }
    Ok(made)
}
