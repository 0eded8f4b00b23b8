//! Who publishes and who subscribes: the same lines for every server.
//!
//! Channels are numbered from 0, lines in the order of [`Topology::lines`]; every codec maker keeps to that order.

use std::fmt;

/// A shape of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// So many channels of one sender and one receiver, a connection each: lines 2i and 2i + 1 are those of channel i.
    Pairs(u32),
    /// One channel: line 0 sends, so many others receive.
    Fan(u32),
}

/// What one connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    Sender { channel: u32 },
    Receiver { channel: u32 },
}

impl Line {
    pub fn channel(self) -> u32 {
        match self {
            Line::Sender { channel } | Line::Receiver { channel } => channel,
        }
    }

    pub fn sends(self) -> bool {
        matches!(self, Line::Sender { .. })
    }
}

impl Topology {
    pub fn lines(self) -> Vec<Line> {
        match self {
            Topology::Pairs(pairs) => (0..pairs)
                .flat_map(|channel| [Line::Sender { channel }, Line::Receiver { channel }])
                .collect(),
            Topology::Fan(receivers) => std::iter::once(Line::Sender { channel: 0 })
                .chain((0..receivers).map(|_| Line::Receiver { channel: 0 }))
                .collect(),
        }
    }

    pub fn channels(self) -> u32 {
        match self {
            Topology::Pairs(pairs) => pairs,
            Topology::Fan(_) => 1,
        }
    }

    /// Deliveries that one message is due.
    pub fn subscribers(self) -> u32 {
        match self {
            Topology::Pairs(_) => 1,
            Topology::Fan(receivers) => receivers,
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topology::Pairs(pairs) => write!(f, "{pairs} pairs"),
            Topology::Fan(receivers) => write!(f, "one sender and {receivers} receivers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_one_sender_and_its_receivers() {
        for topology in [Topology::Pairs(3), Topology::Fan(5)] {
            for channel in 0..topology.channels() {
                let lines = topology.lines();
                let of = |sends| {
                    let here = |line: &&Line| line.channel() == channel && line.sends() == sends;
                    lines.iter().filter(here).count()
                };
                assert_eq!(of(true), 1);
                assert_eq!(of(false), topology.subscribers() as usize);
            }
        }
    }
}
