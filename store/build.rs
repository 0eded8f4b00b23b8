//! Tells cargo that the migrations are sources: `sqlx::migrate!` sees the files there are, but not that one was added.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
