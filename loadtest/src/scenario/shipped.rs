//! The scenarios that come with the program, compiled in from `loadtest/scenarios/`.

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each.
        pub const SHIPPED: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*
        ];
    };
}

shipped![
    "direct",
    "group-10",
    "group-100",
    "group-1000",
    "hot-channel",
    "idle",
    "reconnect-storm",
    "slow-consumers",
    "catch-up",
    "history",
    "mixed-day",
    "highest-rate",
];

/// Their names, for people.
pub(super) fn names() -> String {
    let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}
