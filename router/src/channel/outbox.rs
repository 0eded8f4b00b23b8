//! What a channel still has to hand to the owners of its members.
//!
//! One message per user-owner shard and commit, with the users listed; the lists are shared, so a message costs no
//! allocation per recipient. The **mark** is the last seq that every user owner has; when a shard's queue is full the
//! front stays, the mark stays behind, and the shard loop comes back when there is room. Order per channel is kept: what
//! waits at the front holds up what is behind it. Lives beside the channel's state, not in it, so that what was
//! committed is fanned out even when the state is lost to a panic. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use conch_wire::frame::ChannelHead;
use conch_wire::{Seq, UserId};

use crate::Published;
use crate::slot::Slot;

/// Above this many deliveries waiting, the channel refuses sends instead of growing.
pub(crate) const OUTBOX_MAX: usize = 1_024;

/// Recipients of an event, grouped by the shard that owns them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Routes {
    pub(crate) by_shard: Vec<(usize, Arc<[UserId]>)>,
}

impl Routes {
    pub(crate) fn to(users: impl Iterator<Item = UserId>, shards: usize) -> Arc<Routes> {
        let mut lists: Vec<Vec<UserId>> = vec![Vec::new(); shards];
        for user in users {
            lists[Slot::of_user(user).shard(shards)].push(user);
        }
        let by_shard = lists
            .into_iter()
            .enumerate()
            .filter(|(_, users)| !users.is_empty())
            .map(|(shard, users)| (shard, Arc::from(users)))
            .collect();
        Arc::new(Routes { by_shard })
    }
}

/// An event on its way through the log, with those it will go to.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Its position is set when it is durable.
    pub(crate) published: Published,
    pub(crate) routes: Arc<Routes>,
}

/// What a user owner is told.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    Events(Arc<[Published]>),
    Head(ChannelHead),
}

/// One message to one shard.
#[derive(Clone, Debug)]
pub(crate) struct FanOut {
    pub(crate) users: Arc<[UserId]>,
    pub(crate) delivery: Delivery,
}

/// Brings deliveries to the owners of users.
pub(crate) trait Carrier {
    /// `false`: that shard has no room now.
    fn take(&mut self, shard: usize, message: FanOut) -> bool;

    /// Every owner has a delivery; the mark is about to move.
    fn all_have_it(&mut self) {}
}

#[derive(Debug)]
struct Item {
    routes: Arc<Routes>,
    /// Routes that have it already.
    done: usize,
    delivery: Delivery,
    /// The mark when all have it.
    last_seq: Option<Seq>,
}

/// Deliveries of one channel, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    waiting: usize,
    mark: Seq,
}

impl Outbox {
    /// A batch became durable; neighbours with the same recipients travel together.
    pub(crate) fn commit(&mut self, events: Vec<Outgoing>) {
        let mut events = events.into_iter().peekable();
        while let Some(first) = events.next() {
            let routes = first.routes;
            let mut group = vec![first.published];
            while let Some(next) = events.next_if(|next| Arc::ptr_eq(&next.routes, &routes)) {
                group.push(next.published);
            }
            self.waiting += group.len();
            self.items.push_back(Item {
                routes,
                done: 0,
                last_seq: group.last().map(|event| event.seq),
                delivery: Delivery::Events(group.into()),
            });
        }
    }

    /// A read mark became durable.
    pub(crate) fn head(&mut self, user: UserId, head: ChannelHead, shards: usize) {
        self.waiting += 1;
        self.items.push_back(Item {
            routes: Routes::to(std::iter::once(user), shards),
            done: 0,
            delivery: Delivery::Head(head),
            last_seq: None,
        });
    }

    /// Hands over as much as the carrier has room for; `Err` names the shard that had none.
    pub(crate) fn hand_over(&mut self, carrier: &mut impl Carrier) -> Result<(), usize> {
        while let Some(item) = self.items.front_mut() {
            while let Some((shard, users)) = item.routes.by_shard.get(item.done) {
                let message = FanOut {
                    users: users.clone(),
                    delivery: item.delivery.clone(),
                };
                if !carrier.take(*shard, message) {
                    return Err(*shard);
                }
                item.done += 1;
            }
            carrier.all_have_it();
            self.waiting -= match &item.delivery {
                Delivery::Events(events) => events.len(),
                Delivery::Head(_) => 1,
            };
            if let Some(seq) = item.last_seq {
                self.mark = seq;
            }
            self.items.pop_front();
        }
        Ok(())
    }

    /// Events and heads that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Last seq that all user owners have.
    pub(crate) fn mark(&self) -> Seq {
        self.mark
    }
}
