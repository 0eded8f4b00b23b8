//! The generator: one thread, one epoll, any number of connections, whatever protocol their codecs speak.
//!
//! [`Drive::connect`] makes the connections of a topology and waits until all are ready. [`Drive::run`] loads the server: closed
//! (so many messages in flight per channel) or open (fixed arrivals, whatever the answers do), warms up, measures, stops
//! publishing, and waits until everything that was published is acknowledged and delivered. Latency counts from the intended
//! time. Every delivery is checked against its stamp: what was lost, repeated, swapped or damaged makes the outcome invalid, with
//! the reason. Blocking; bounded in time and in what waits.

mod line;
mod outcome;
mod pace;
mod run;
mod tally;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Poll, Token};
use thiserror::Error;

pub use outcome::{Counts, Outcome, WireBytes};

use super::Running;
use super::codec::{Codec, Happening};
use super::topology::{Line, Topology};
use crate::stop::Stop;
use line::Connection;
use pace::Alarm;
use tally::Tally;

/// How long connecting and getting ready may take.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait in one poll.
const SLICE: Duration = Duration::from_millis(20);
/// Token of the alarm clock; lines have those below.
const ALARM: Token = Token(usize::MAX);
const READ_BYTES: usize = 512 << 10;
/// Sockets told of by one poll.
const EVENTS: usize = 1_024;

/// How messages are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shape {
    /// So many messages in flight per channel: published and not yet acknowledged and delivered to all.
    Closed { window: u32 },
    /// So many messages per second, over the channels in turn.
    Open { rate: u32 },
}

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub shape: Shape,
    pub payload_bytes: usize,
    /// Before anything is measured.
    pub warm: Duration,
    pub measured: Duration,
    /// The last line does not read while it is measured, and is not asked what it got.
    pub stalled: bool,
    /// Wait until the server is at rest and count what it used for that, at most this long: index work and compaction belong to
    /// the messages that cause them.
    pub rest_within: Duration,
}

/// A server does not answer as fast as it is asked: not a failure of the run, but of the server at this rate.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("does not hold {rate} messages/s: {behind} were not answered")]
pub struct NotHeld {
    pub rate: u32,
    pub behind: u64,
}

/// What is known of a channel while it is loaded.
#[derive(Debug)]
struct Channel {
    sender: usize,
    published: u64,
    acked: u64,
    /// Of all subscribers together.
    delivered: u64,
    /// Intended times of what is not acknowledged, oldest first, in nanoseconds since the origin.
    unacked_ns: VecDeque<u64>,
    is_dirty: bool,
}

/// Connections to one server.
pub struct Drive {
    poll: Poll,
    events: Events,
    lines: Vec<Connection>,
    channels: Vec<Channel>,
    topology: Topology,
    acknowledges: bool,
    origin: Instant,
    scratch: Vec<u8>,
    /// Channels in which something was answered, each once.
    dirty: Vec<usize>,
    alarm: Alarm,
    tally: Tally,
    stop: Stop,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Drive({})", self.topology)
    }
}

impl Drive {
    /// Connects all lines of `topology` to a server and waits until they are ready.
    pub fn connect(server: &mut Running, topology: Topology, stop: &Stop) -> Result<Drive> {
        let codecs = server.codecs(topology)?;
        let mut drive = Drive::open(
            server.address(),
            topology,
            codecs,
            server.peer.acknowledges(),
            stop.clone(),
        )?;
        let deadline = Instant::now() + READY_WITHIN;
        while !drive.lines.iter().all(|line| line.is_ready) {
            stop.check()?;
            if let Some(why) = server.ended() {
                bail!("{why}");
            }
            let ready = drive.lines.iter().filter(|line| line.is_ready).count();
            ensure!(
                Instant::now() < deadline,
                "{ready} of {} connections were ready within {READY_WITHIN:?}",
                drive.lines.len()
            );
            drive.turn(SLICE)?;
        }
        Ok(drive)
    }

    fn open(
        address: SocketAddr,
        topology: Topology,
        codecs: Vec<Box<dyn Codec>>,
        acknowledges: bool,
        stop: Stop,
    ) -> Result<Drive> {
        let poll = Poll::new().context("make an epoll")?;
        let mut lines = Vec::with_capacity(codecs.len());
        for (at, (line, codec)) in topology.lines().into_iter().zip(codecs).enumerate() {
            let connection = Connection::open(&poll, Token(at), address, line, codec);
            lines.push(connection.with_context(|| format!("connect to {address}"))?);
        }
        let channel_of = |channel| Channel {
            sender: lines
                .iter()
                .position(|it| it.line == Line::Sender { channel })
                .expect("every channel of a topology has a sender"),
            published: 0,
            acked: 0,
            delivered: 0,
            unacked_ns: VecDeque::new(),
            is_dirty: false,
        };
        let channels = (0..topology.channels()).map(channel_of).collect();
        let alarm = Alarm::new(&poll, ALARM).context("make a timer")?;
        Ok(Drive {
            poll,
            events: Events::with_capacity(EVENTS),
            lines,
            channels,
            topology,
            acknowledges,
            origin: Instant::now(),
            scratch: vec![0; READ_BYTES],
            dirty: Vec::new(),
            alarm,
            tally: Tally::default(),
            stop,
        })
    }

    fn flush(&mut self) -> Result<()> {
        for line in &mut self.lines {
            if line.has_published {
                line.flush()?;
            }
        }
        Ok(())
    }

    /// One round of epoll: reads what is there, writes what waits.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(wait));
        let served = match polled {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error).context("wait for sockets"),
            Ok(()) => self.serve(&events),
        };
        self.events = events;
        served
    }

    fn serve(&mut self, events: &Events) -> Result<()> {
        for event in events {
            let Token(at) = event.token();
            if event.token() == ALARM {
                self.alarm.clear();
                continue;
            }
            if event.is_writable() {
                self.lines[at].write()?;
            }
            if (event.is_readable() || event.is_read_closed()) && !self.lines[at].is_stalled {
                self.read(at)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<()> {
        let Drive {
            lines,
            channels,
            tally,
            dirty,
            scratch,
            origin,
            ..
        } = self;
        let connection = &mut lines[at];
        let line = connection.line;
        let next = &mut connection.next_number;
        let channel = &mut channels[line.channel() as usize];
        let mut ready = false;
        // One look at the clock for what was read at once.
        let mut now_ns = None;
        let taken = connection.io.read(scratch, &mut |happening| {
            let now_ns = *now_ns.get_or_insert_with(|| origin.elapsed().as_nanos() as u64);
            match happening {
                Happening::Ready => ready = true,
                Happening::Acked { count } => {
                    channel.acked += u64::from(count);
                    for _ in 0..count {
                        match channel.unacked_ns.pop_front() {
                            Some(intended_ns) => tally.acked(intended_ns, now_ns),
                            None => tally.fault("more acks than messages"),
                        }
                    }
                }
                Happening::Delivered { payload } => {
                    channel.delivered += 1;
                    tally.delivered(payload, line, next, now_ns);
                }
            }
        });
        taken.with_context(|| format!("{line:?}, connection {at}"))?;
        connection.is_ready |= ready;
        if !channel.is_dirty {
            channel.is_dirty = true;
            dirty.push(line.channel() as usize);
        }
        Ok(())
    }

    fn last_line(&mut self) -> &mut Connection {
        self.lines.last_mut().expect("a topology has lines")
    }

    fn wire(&self) -> WireBytes {
        let mut bytes = WireBytes::default();
        for line in &self.lines {
            let (sent, received) = (line.io.bytes_sent, line.io.bytes_received);
            if line.line.sends() {
                bytes.sender_sent += sent;
                bytes.sender_received += received;
            } else {
                bytes.receiver_sent += sent;
                bytes.receiver_received += received;
            }
        }
        bytes
    }

    fn since_origin(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_nanos() as u64
    }
}
