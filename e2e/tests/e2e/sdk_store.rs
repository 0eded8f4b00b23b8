//! The SDK's data folder with a real node: it opens offline with its last state, keeps what was refused, and is rebuilt from
//! the node when its database is damaged, with what was not sent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use conch_client::{
    Client, ClientBuilder, ClientError, Config, ConnectionState, Event, EventStream, RebuiltReason,
    RefusalAdvice, RefusalReason, SendOutcome, SendState, ViewItem,
};
use conch_e2e::{PASSWORD, Pair, Place, SOON, enter, eventually, message, texts};
use conch_loadtest::node::Node;
use conch_wire::Code;

struct Scene {
    place: Place,
    node: Option<Node>,
    pair: Pair,
    endpoint: String,
}

impl Scene {
    /// Ann's application has been online and holds a channel with `said` messages of Ben's.
    async fn set(said: u64) -> Result<Scene> {
        let place = Place::new()?;
        let node = place.start().await?;
        let pair = Pair::meet(&node).await?;
        let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
        for n in 1..=said {
            ben.say(1, &message(n)).await?;
        }
        let endpoint = node.base_url();
        let scene = Scene {
            place,
            node: Some(node),
            pair,
            endpoint,
        };
        let client = scene.open().await?;
        client.log_in("ann", PASSWORD, "app").await?;
        client.connect().await?;
        scene.holds(&client, said as u32 + 1).await?;
        client.close().await;
        Ok(scene)
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs until the test kills it")
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("app")
    }

    fn database(&self) -> PathBuf {
        self.folder().join("client.db")
    }

    async fn open(&self) -> Result<Client, ClientError> {
        ClientBuilder::new(&self.endpoint, &self.folder())
            .config(Config {
                reconnect_base_ms: 50,
                reconnect_cap_ms: 400,
                ..Config::default()
            })
            .open()
            .await
    }

    async fn holds(&self, client: &Client, seq: u32) -> Result<()> {
        eventually("the channel's events", SOON, || async {
            let info = client.channel_info(self.pair.channel).await;
            info.is_ok_and(|info| info.is_some_and(|info| info.held_to >= seq))
        })
        .await
    }
}

fn own(items: &[ViewItem]) -> Vec<SendState> {
    let state = |item: &ViewItem| match item {
        ViewItem::Outbox(own) => Some(own.state),
        ViewItem::Message(_) => None,
    };
    items.iter().filter_map(state).collect()
}

fn files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_opens_offline_with_its_last_state() -> Result<()> {
    let mut scene = Scene::set(30).await?;
    let client = scene.open().await?;
    client.connect().await?;
    let members = client.members(scene.pair.channel).await?;
    client.close().await;
    drop(scene.node.take());

    let client = scene.open().await?;
    ensure!(
        client
            .account()
            .await
            .is_some_and(|ann| ann.user == scene.pair.ann.user)
    );
    let channels = client.channels().await?;
    let [info] = &channels[..] else {
        anyhow::bail!("{channels:?}")
    };
    ensure!(
        info.peer == Some(scene.pair.ben.user) && info.unread == 30,
        "{info:?}"
    );
    ensure!(
        info.last
            .as_ref()
            .is_some_and(|last| last.text == "message 30"),
        "{info:?}"
    );
    ensure!(client.known_members(scene.pair.channel).await? == members);
    ensure!(members.len() == 2, "{members:?}");
    // What the server is asked for, and cannot be, is what is known.
    ensure!(client.members(scene.pair.channel).await? == members);

    let channel = client.channel(scene.pair.channel);
    let view = channel.view(10).await?;
    ensure!(view.items().await?.len() == 10);
    channel.send("written on a train").await?;
    view.changed().await?;
    let items = view.items().await?;
    ensure!(
        items.len() == 11 && own(&items) == [SendState::Waiting],
        "{items:?}"
    );
    ensure!(view.older(15).await?);
    ensure!(view.items().await?.len() == 26);
    let older = channel.history(Some(10), 5).await?;
    ensure!(older.iter().map(|it| it.seq).eq(5..10), "{older:?}");
    let newer = channel.newer(10, 5).await?;
    ensure!(newer.iter().map(|it| it.seq).eq(11..16), "{newer:?}");
    let range = channel.range(7, 9).await?;
    ensure!(range.iter().map(|it| it.seq).eq(7..10), "{range:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_not_held_are_read_both_ways() -> Result<()> {
    let scene = Scene::set(0).await?;
    let mut ben = enter(scene.node(), &scene.pair.ben, scene.pair.channel, 1).await?;
    for n in 1..=900 {
        ben.say(1, &message(n)).await?;
    }
    let client = scene.open().await?;
    client.connect().await?;
    scene.holds(&client, 901).await?;
    let channel = client.channel(scene.pair.channel);
    let held = channel.info().await?.context("known")?;
    ensure!(
        held.held_to + 1 - held.held_from <= 400,
        "bounded: {held:?}"
    );
    let newer = channel.newer(2, 150).await?;
    ensure!(newer.iter().map(|it| it.seq).eq(3..153));
    let range = channel.range(100, 750).await?;
    ensure!(range.iter().map(|it| it.seq).eq(100..751));
    let still = channel.info().await?.context("known")?;
    ensure!(
        still.held_from == held.held_from,
        "reading a range stores nothing"
    );
    ensure!(matches!(
        channel.range(1, 1_001).await,
        Err(ClientError::Invalid { .. })
    ));
    // Scrolling back stores what it brings, down to the first, while the channel is shown.
    let view = channel.view(50).await?;
    ensure!(view.items().await?.len() == 50);
    let mut shown = 50;
    while view.older(300).await? {
        shown = view.items().await?.len();
    }
    ensure!(shown == 901, "{shown}");
    channel.close().await?;
    eventually("a bounded store", SOON, || async {
        let info = channel.info().await;
        info.is_ok_and(|info| info.is_some_and(|it| it.held_to + 1 - it.held_from == 200))
    })
    .await
}

/// Waits until the message is given up, and says why.
async fn refused(events: &mut EventStream) -> Result<RefusalReason> {
    let found = async {
        while let Some(event) = events.next().await {
            if let Event::SendRefused { reason, .. } = event {
                return Ok(reason);
            }
        }
        anyhow::bail!("the client closed")
    };
    tokio::time::timeout(SOON, found)
        .await
        .context("nothing was refused")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_messages_outlive_the_application_until_they_are_retried_or_cancelled() -> Result<()>
{
    let scene = Scene::set(1).await?;
    let api = conch_e2e::api(scene.node());
    let group = api.group(&scene.pair.ben.access_token, "boat", &[]).await?;
    let client = scene.open().await?;
    let mut events = client.events().await?;
    client.connect().await?;
    let one = client.send(group, "let me in").await?;
    let reason = refused(&mut events).await?;
    ensure!(
        reason == RefusalReason::Server(Code::NotFound),
        "{reason:?}"
    );
    ensure!(reason.advice() == RefusalAdvice::Discard);
    ensure!(one.outcome().await? == SendOutcome::Refused { reason });
    let two = client.send(group, "please").await?;
    refused(&mut events).await?;
    client.close().await;

    let client = scene.open().await?;
    let kept = client.outbox().await?;
    ensure!(
        kept.iter().map(|it| it.key).eq([one.key(), two.key()]),
        "{kept:?}"
    );
    ensure!(
        kept.iter()
            .all(|it| it.state == SendState::Refused { reason }),
        "{kept:?}"
    );
    client.connect().await?;
    let users = [scene.pair.ann.user];
    api.add_members(&scene.pair.ben.access_token, group, &users)
        .await?;
    ensure!(client.cancel(one.key()).await?);
    ensure!(!client.cancel(one.key()).await?, "it is gone");
    ensure!(matches!(
        client.retry(one.key()).await,
        Err(ClientError::NotRefused)
    ));
    let again = client.retry(two.key()).await?;
    ensure!(
        again.key() == two.key(),
        "one message, however often it is tried"
    );
    let outcome = tokio::time::timeout(SOON, again).await??;
    ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
    ensure!(texts(scene.node(), &scene.pair.ben, group).await? == ["please"]);
    eventually("an empty outbox", SOON, || async {
        client.outbox().await.is_ok_and(|outbox| outbox.is_empty())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_that_has_not_left_can_be_taken_back() -> Result<()> {
    let scene = Scene::set(1).await?;
    let client = scene.open().await?;
    let sending = client.send(scene.pair.channel, "in anger").await?;
    ensure!(client.cancel(sending.key()).await?);
    let reason = RefusalReason::Cancelled;
    ensure!(sending.outcome().await? == SendOutcome::Refused { reason });
    client.send(scene.pair.channel, "in peace").await?;
    client.connect().await?;
    eventually("the other one", SOON, || async {
        client.outbox().await.is_ok_and(|outbox| outbox.is_empty())
    })
    .await?;
    let said = texts(scene.node(), &scene.pair.ben, scene.pair.channel).await?;
    ensure!(said == ["message 1", "in peace"], "{said:?}");
    Ok(())
}

/// Writes three messages offline, damages the database, and looks at what comes of it. Returns how many were kept.
async fn damaged(scene: &Scene, damage: impl FnOnce(&Path) -> Result<()>) -> Result<u32> {
    let client = scene.open().await?;
    for n in ["a", "b", "c"] {
        client.send(scene.pair.channel, n).await?;
    }
    client.close().await;
    damage(&scene.database())?;
    let before = fs::read(scene.database())?;

    let client = scene.open().await?;
    let rebuilt = client.rebuilt().context("nothing is said")?;
    let aside = rebuilt.set_aside.context("nothing is set aside")?;
    ensure!(
        fs::read(aside)? == before,
        "what was found is kept as it was found"
    );
    ensure!(client.outbox().await?.len() as u32 == rebuilt.outbox_kept);
    ensure!(client.account().await.is_some() == rebuilt.login_kept);
    if !rebuilt.login_kept {
        client.log_in("ann", PASSWORD, "app").await?;
    }
    let mut events = client.events().await?;
    client.connect().await?;
    while !matches!(
        tokio::time::timeout(SOON, events.next()).await?,
        Some(Event::Connection(ConnectionState::Online))
    ) {}
    // Everything comes from the node again, and what was kept is sent.
    scene.holds(&client, 21 + rebuilt.outbox_kept).await?;
    ensure!(
        client.history(scene.pair.channel, None, 100).await?.len() as u32
            == 21 + rebuilt.outbox_kept
    );
    client.close().await;
    let client = scene.open().await?;
    ensure!(client.rebuilt().is_none(), "once");
    client.close().await;
    let said = texts(scene.node(), &scene.pair.ben, scene.pair.channel).await?;
    let kept = ["a", "b", "c"][..rebuilt.outbox_kept as usize].to_vec();
    ensure!(said[20..] == kept, "{said:?}");
    Ok(rebuilt.outbox_kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_is_rubbish_is_set_aside_and_rebuilt() -> Result<()> {
    let scene = Scene::set(20).await?;
    let kept = damaged(&scene, |database| Ok(fs::write(database, [0x5a; 70_000])?)).await?;
    ensure!(kept == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_was_cut_short_is_set_aside_and_rebuilt() -> Result<()> {
    let scene = Scene::set(20).await?;
    damaged(&scene, |database| {
        let len = fs::metadata(database)?.len();
        Ok(fs::OpenOptions::new()
            .write(true)
            .open(database)?
            .set_len(len / 2)?)
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_a_later_version_is_set_aside_with_its_unsent_messages_kept() -> Result<()> {
    let scene = Scene::set(20).await?;
    let kept = damaged(&scene, |database| {
        // `user_version` is at offset 60 of SQLite's header.
        let mut bytes = fs::read(database)?;
        bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
        Ok(fs::write(database, bytes)?)
    })
    .await?;
    ensure!(kept == 3);
    let names = files(&scene.folder())?;
    let aside = names.iter().filter(|name| name.contains("aside-"));
    let databases = aside.filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    ensure!(
        databases.count() == 1 && !names.iter().any(|name| name.contains("new")),
        "{names:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_is_gone_is_said() -> Result<()> {
    let scene = Scene::set(1).await?;
    fs::remove_file(scene.database())?;
    let client = scene.open().await?;
    let rebuilt = client.rebuilt().context("nothing is said")?;
    ensure!(rebuilt.reason == RebuiltReason::Missing && rebuilt.set_aside.is_none());
    Ok(())
}
