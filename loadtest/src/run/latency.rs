//! Distributions of latencies in microseconds: recorded, merged over workers, and carried as text between processes and
//! into reports (HdrHistogram's V2 format with compression, in base64).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::de::Error;

/// Microseconds, to three significant digits, up to an hour. As large as what is in it needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Latencies(Histogram<u64>);

const MAX_US: u64 = 3_600_000_000;

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new(3).expect("three digits are a valid precision"))
    }
}

impl Latencies {
    pub fn record(&mut self, us: u64) {
        // It grows by itself and refuses nothing up to an hour.
        let _ = self.0.record(us.min(MAX_US));
    }

    pub fn merge(&mut self, other: &Latencies) {
        // It grows to what the other holds.
        let _ = self.0.add(&other.0);
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn max_us(&self) -> u64 {
        self.0.max()
    }

    /// The latency that `share` (0 to 1) of all do not exceed; 0 without any.
    pub fn at_us(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    /// The same, `None` without any.
    pub fn at(&self, share: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.at_us(share))
    }
}

impl serde::Serialize for Latencies {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| serde::ser::Error::custom(format!("{error:?}")))?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> serde::Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latencies, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("no histogram: {error:?}")))?;
        let mut latencies = Latencies::default();
        latencies.0.add(&histogram).map_err(D::Error::custom)?;
        Ok(latencies)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::Latencies;

    #[test]
    fn text_brings_the_distribution_back_and_merging_adds() {
        let mut fast = Latencies::default();
        let mut slow = Latencies::default();
        for us in 1..=900 {
            fast.record(us);
        }
        for _ in 0..100 {
            slow.record(50_000);
        }
        let text = serde_json::to_string(&fast).unwrap();
        let back: Latencies = serde_json::from_str(&text).unwrap();
        assert_eq!(back, fast);
        let mut both = back;
        both.merge(&slow);
        assert_eq!(both.count(), 1_000);
        assert_eq!(both.at_us(0.5), 500);
        assert!((49_900..=50_100).contains(&both.at_us(0.99)));
        assert_eq!(Latencies::default().at(0.5), None);
        assert!(serde_json::from_str::<Latencies>("\"AAAA\"").is_err());
    }
}
