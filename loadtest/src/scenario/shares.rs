//! Which transports devices use: one of them, or a share of each.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::raw::Transport;

/// The transports by the names that a scenario uses.
pub(super) const TRANSPORTS: [(&str, Transport); 3] = [
    ("ws", Transport::WebSocket),
    ("wss", Transport::Tls),
    ("quic", Transport::Quic),
];

/// Transports and their shares, which sum to 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Shares(Vec<(Transport, f64)>);

impl Default for Shares {
    fn default() -> Shares {
        Shares(vec![(Transport::WebSocket, 1.0)])
    }
}

impl Shares {
    /// All on one.
    pub fn only(transport: Transport) -> Shares {
        Shares(vec![(transport, 1.0)])
    }

    /// Whether anybody is on it.
    pub fn has(&self, transport: Transport) -> bool {
        self.0
            .iter()
            .any(|(of, share)| *of == transport && *share > 0.0)
    }

    /// The transport of the `index`-th device: any run of devices is divided as the shares say.
    pub fn of(&self, index: usize) -> Transport {
        // The golden ratio's multiples fall evenly into 0..1, however many are taken.
        let place = (index as f64 * 0.618_033_988_749_895).fract();
        let mut below = 0.0;
        for (transport, share) in &self.0 {
            below += share;
            if place < below {
                return *transport;
            }
        }
        self.0.last().map_or(Transport::WebSocket, |(it, _)| *it)
    }

    pub(super) fn sum(&self) -> f64 {
        self.0.iter().map(|(_, share)| share).sum()
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (transport, share)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if *share < 1.0 {
                write!(f, "{comma}{transport} {:.0} %", share * 100.0)?;
            } else {
                write!(f, "{comma}{transport}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Shares {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (transport, share) in &self.0 {
            map.serialize_entry(&transport.to_string(), share)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Shares {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shares, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Shares;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a transport, or a table of transports and shares")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Shares, E> {
                Ok(Shares::only(named(name)?))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Shares, M::Error> {
                let mut shares = Vec::new();
                while let Some((name, share)) = map.next_entry::<String, f64>()? {
                    shares.push((named(&name)?, share));
                }
                Ok(Shares(shares))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn named<E: Error>(name: &str) -> Result<Transport, E> {
    TRANSPORTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, transport)| *transport)
        .ok_or_else(|| E::custom(format!("`{name}` is no transport: ws, wss, quic")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_divided_as_the_shares_say() {
        let shares = Shares(vec![(Transport::Tls, 0.25), (Transport::Quic, 0.75)]);
        for count in [40, 400] {
            let on_tls = (0..count)
                .filter(|i| shares.of(*i) == Transport::Tls)
                .count();
            assert!((on_tls as f64 / f64::from(count as u32) - 0.25).abs() < 0.05);
        }
    }
}
