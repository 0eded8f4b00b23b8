//! Hash maps of the owners.
//!
//! Several are looked into for every message, and their keys are short: foldhash costs a tenth of the standard hasher. It is
//! seeded by the process, so nobody outside can choose keys that collide.

/// A map with a fast hasher.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
