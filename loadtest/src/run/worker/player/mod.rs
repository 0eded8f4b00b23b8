//! One device of a load run: the same pure client as a device under test ([`crate::device::state`]), driven so that
//! thousands fit one thread.
//!
//! It takes [`Do`]s, connects again by itself, and tells the tally and the checker what it saw: the checker before bytes
//! leave, and after its own merge (what was collapsed is fetched by HISTORY first, as a real client does).

mod book;
mod connection;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use conch_wire::frame::PushMode;
use conch_wire::{ChannelId, DeviceId, Seq, UserId};
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::device::stamp::Stamp;
use crate::device::state::State;
use crate::http::Login;
use crate::raw::Endpoint;

/// What a device is told to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Do {
    /// Send `batch` messages that were due at `due`.
    Say {
        channel: ChannelId,
        due: Stamp,
        batch: usize,
        payload_bytes: usize,
    },
    /// Keep messages on the way.
    Keep { channel: ChannelId, window: Window },
    /// Ask for the next older page.
    Page { channel: ChannelId, items: u16 },
    /// Move the read mark to what was shown.
    Read { channel: ChannelId },
    /// Drop the connection and come back after a while.
    Vanish(Duration),
    /// Read nothing for a while.
    Stall(Duration),
}

/// A closed loop in one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Messages unanswered at once.
    pub(super) size: usize,
    /// Messages that leave together.
    pub(super) batch: usize,
    pub(super) payload_bytes: usize,
    /// Messages still to be sent; `None`: until sending ends.
    pub(super) left: Option<usize>,
    pub(super) open: usize,
}

/// What others may know of a device.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) login: RefCell<Login>,
    /// Not told to be away or to stall.
    pub(super) is_present: Cell<bool>,
    pub(super) is_connected: Cell<bool>,
    /// Everything that it heard of was shown.
    pub(super) is_current: Cell<bool>,
    pub(super) unsettled: Cell<usize>,
}

/// Handle of a running device.
#[derive(Clone, Debug)]
pub(super) struct Player {
    pub(super) seat: Rc<Seat>,
    orders: mpsc::UnboundedSender<Do>,
}

impl Player {
    /// Starts it; it connects at once.
    pub(super) fn spawn(login: Login, endpoint: Endpoint, shared: Rc<Shared>) -> Player {
        let (orders, inbox) = mpsc::unbounded_channel();
        let seat = Rc::new(Seat {
            user: login.user,
            device: login.device,
            login: RefCell::new(login),
            is_present: Cell::new(true),
            is_connected: Cell::new(false),
            is_current: Cell::new(false),
            unsettled: Cell::new(0),
        });
        let driver = Driver {
            state: State::new(seat.user, PushMode::All),
            seat: Rc::clone(&seat),
            shared,
            endpoint,
            inbox,
            windows: HashMap::new(),
            pages: Pages::default(),
            vanish: None,
            stall: None,
            back_since: None,
            is_excused: false,
            present_from: Stamp(0),
            asks_what_it_missed: false,
            was_connected: false,
        };
        tokio::task::spawn_local(driver.run());
        Player { seat, orders }
    }

    /// Gives an order. Orders are bounded by those who give them: see `crowd` and `pace`.
    pub(super) fn give(&self, order: Do) {
        let _ = self.orders.send(order);
    }
}

#[derive(Default)]
struct Pages {
    /// Asked, by request, with the moment at which it was wanted.
    asked: HashMap<u32, u64>,
    waiting: VecDeque<(ChannelId, u16, u64)>,
    /// The next page's newest event; absent: begin at the newest.
    next_to: HashMap<ChannelId, Seq>,
}

struct Driver {
    state: State,
    seat: Rc<Seat>,
    shared: Rc<Shared>,
    endpoint: Endpoint,
    inbox: mpsc::UnboundedReceiver<Do>,
    windows: HashMap<ChannelId, Window>,
    pages: Pages,
    vanish: Option<Duration>,
    stall: Option<Duration>,
    /// Since when it is catching up.
    back_since: Option<u64>,
    /// It was told to be away or to stall, and has not caught up since: that it is late says nothing of the node.
    is_excused: bool,
    /// What was sent before this moment it was told to miss.
    present_from: Stamp,
    /// It read on after a stall, and does not know yet what it missed.
    asks_what_it_missed: bool,
    was_connected: bool,
}
