//! Clients that share nothing with this repository but `docs/protocol.md`: Python programs in `e2e/interop`, on foreign
//! libraries, with readers that flatc makes of the schema as the document prints it.
//!
//! The programs check every answer by themselves; here the log is compared with what they say they wrote. Python and its
//! packages come from `make setup-test`; a test without them fails.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_e2e::{PASSWORD, Place, api, metric, texts};
use conch_loadtest::node::{Node, program};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// Longest that a program may take; each of its own waits is shorter.
const PROGRAM_WITHIN: Duration = Duration::from_secs(120);

/// What a program says that must be in the log.
#[derive(Deserialize)]
struct Said {
    channel: String,
    texts: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python that has the packages of `e2e/interop/requirements.txt`.
fn python() -> Result<PathBuf> {
    let python = match std::env::var_os("CONCH_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => root().join("target/python/bin/python3"),
    };
    ensure!(
        python.exists(),
        "no Python at {}: run `make setup-test`, or set CONCH_PYTHON",
        python.display()
    );
    Ok(python)
}

/// The schema in a Markdown document: its one block of that language.
fn schema(document: &str) -> Result<&str> {
    let (_, rest) = document
        .split_once("```fbs\n")
        .context("the document has no schema")?;
    let (schema, rest) = rest.split_once("```").context("the schema has no end")?;
    ensure!(!rest.contains("```fbs"), "the document has two schemas");
    Ok(schema)
}

/// Makes the Python package `conch` of the documented schema in `folder`.
fn generate(folder: &Path) -> Result<()> {
    // One test at a time: the first may have to build the compiler.
    static BUILDING: Mutex<()> = Mutex::new(());
    let flatc = {
        let _one = BUILDING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let asked = std::process::Command::new(program("xtask")?)
            .arg("flatc")
            .output()?;
        ensure!(asked.status.success(), "xtask flatc: {asked:?}");
        String::from_utf8(asked.stdout)?.trim().to_owned()
    };
    let document = std::fs::read_to_string(root().join("docs/protocol.md"))?;
    std::fs::create_dir_all(folder)?;
    let file = folder.join("conch.fbs");
    std::fs::write(&file, schema(&document)?)?;
    let made = std::process::Command::new(flatc)
        .arg("--python")
        .arg("-o")
        .arg(folder)
        .arg(file)
        .output()?;
    ensure!(made.status.success(), "flatc: {made:?}");
    Ok(())
}

/// Runs a program of `e2e/interop` to its end.
async fn run(place: &Place, script: &str, arguments: &[&str]) -> Result<Output> {
    let readers = place.path().join("schema");
    generate(&readers)?;
    let script = root().join("e2e/interop").join(script);
    let ran = Command::new(python()?)
        .arg(script)
        .args(arguments)
        .env("PYTHONPATH", readers)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PROGRAM_WITHIN, ran)
        .await
        .context("the program does not end")??;
    ensure!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// The log, read by a device of ours, is what the program says.
async fn holds_what_was_said(node: &Node, output: &Output) -> Result<()> {
    let last = String::from_utf8_lossy(&output.stdout);
    let last = last.lines().last().context("the program said nothing")?;
    let said: Said = serde_json::from_str(last).with_context(|| last.to_owned())?;
    let ann = api(node).log_in("ann", PASSWORD, "witness").await?;
    let found = texts(node, &ann, said.channel.parse()?).await?;
    ensure!(found == said.texts, "{found:?}, not {:?}", said.texts);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_client_talks_over_websocket() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let output = run(&place, "talk.py", &["websocket", &node.base_url()]).await?;
    holds_what_was_said(&node, &output).await
}

/// A node that speaks QUIC too, with a certificate for development.
async fn with_quic() -> Result<(Place, Node)> {
    let mut place = Place::new()?;
    let quic = ["--quic", "127.0.0.1:0"].map(str::to_owned);
    place.plan.args.extend(quic);
    let node = place.start().await?;
    Ok((place, node))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_client_talks_over_quic() -> Result<()> {
    let (place, node) = with_quic().await?;
    let output = run(&place, "talk.py", &["quic", &node.base_url()]).await?;
    holds_what_was_said(&node, &output).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f39_foreign_client_changes_address_and_connection_ids_in_the_middle_of_sends() -> Result<()>
{
    let (place, node) = with_quic().await?;
    let output = run(&place, "move.py", &[&node.base_url()]).await?;
    // Two people, two connections: nobody came back or was authenticated again.
    let connections = metric(&node, "conch_gateway_connections_total").await?;
    ensure!(connections == 2.0, "{connections} connections");
    holds_what_was_said(&node, &output).await
}
