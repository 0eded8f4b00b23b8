//! The workspace is tidy: `cargo xtask tidy` finds nothing.

#[test]
fn tidy() {
    let findings =
        xtask::tidy::check(&xtask::workspace::root()).expect("the workspace can be read");
    assert!(findings.is_empty(), "{findings:#?}");
}
