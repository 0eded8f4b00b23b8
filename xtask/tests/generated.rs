//! The committed code is what the schema makes. Builds the pinned compiler when it is not there: half a minute, once.

#[test]
fn generated_code_is_what_the_schema_makes() {
    let findings =
        xtask::codegen::check(&xtask::workspace::root()).expect("the compiler can be built");
    assert!(findings.is_empty(), "{findings:#?}");
}
