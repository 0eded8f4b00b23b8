//! Who may depend on whom, as `docs/ARCHITECTURE.md` draws it: the arrows are closed, dev-dependencies included.
//!
//! A new crate needs a row here before it builds green. Crates that may use anything are used by nobody.

use crate::workspace::Metadata;

/// Crates and the crates of ours that each may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("conch-wire", &[]),
    ("conch-websocket", &[]),
    ("conch-store", &["conch-wire"]),
    ("conch-router", &["conch-wire", "conch-store"]),
    (
        "conch-gateway",
        &[
            "conch-wire",
            "conch-websocket",
            "conch-store",
            "conch-router",
        ],
    ),
    ("conch-client", &["conch-wire"]),
    ("conch-chat", &["conch-client"]),
    ("conch-impair", &[]),
    (
        "conch-loadtest",
        &["conch-wire", "conch-client", "conch-impair"],
    ),
    // The client is a dev-dependency there: its host is one of the clients under test.
    ("conch-conformance", &["conch-wire", "conch-client"]),
];

/// Crates that may use anything and that nothing uses.
const FREE: &[&str] = &["conch-e2e", "conch-sim", "conch-fuzz", "xtask"];

/// Arrows that are not in the plan, and crates that have no place in it.
pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let ours: Vec<&str> = metadata
        .packages
        .iter()
        .map(|package| &*package.name)
        .collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let name = &*package.name;
        let allowed = ARROWS
            .iter()
            .find(|(from, _)| *from == name)
            .map(|(_, to)| *to);
        if allowed.is_none() && !FREE.contains(&name) {
            findings.push(format!("crate {name} has no place among the arrows"));
            continue;
        }
        for dependency in package
            .dependencies
            .iter()
            .map(|dependency| &*dependency.name)
        {
            let permitted = allowed.is_none_or(|allowed| allowed.contains(&dependency))
                && !FREE.contains(&dependency);
            if ours.contains(&dependency) && !permitted {
                findings.push(format!("arrow {name} → {dependency} is not in the plan"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Package};

    fn crates(list: &[(&str, &[&str])]) -> Metadata {
        let package = |(name, uses): &(&str, &[&str])| Package {
            name: (*name).to_owned(),
            manifest_path: "Cargo.toml".into(),
            dependencies: uses
                .iter()
                .map(|name| Dependency {
                    name: (*name).to_owned(),
                    kind: None,
                })
                .collect(),
        };
        Metadata {
            packages: list.iter().map(package).collect(),
            target_directory: "target".into(),
        }
    }

    #[test]
    fn the_plan_is_permitted() {
        let planned: Vec<(&str, &[&str])> = ARROWS
            .iter()
            .copied()
            .chain([("xtask", &["conch-wire"][..])])
            .collect();
        assert_eq!(check(&crates(&planned)), Vec::<String>::new());
        assert_eq!(
            check(&crates(&[("conch-wire", &["bytes", "thiserror"])])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn other_arrows_are_found() {
        let back = [("conch-wire", &["conch-store"][..]), ("conch-store", &[])];
        assert_eq!(
            check(&crates(&back)),
            ["arrow conch-wire → conch-store is not in the plan"]
        );
        let short_cut = [("conch-chat", &["conch-wire"][..]), ("conch-wire", &[])];
        assert_eq!(check(&crates(&short_cut)).len(), 1);
        let used = [("conch-e2e", &["xtask"][..]), ("xtask", &[])];
        assert_eq!(
            check(&crates(&used)),
            ["arrow conch-e2e → xtask is not in the plan"]
        );
        assert_eq!(
            check(&crates(&[("conch-new", &[])])),
            ["crate conch-new has no place among the arrows"]
        );
    }
}
