//! The same key is the same message: after a crash, from another connection, a hundred times at once, after removal.

use anyhow::{Result, ensure};
use conch_e2e::{PASSWORD, Pair, Place, api, connect, enter, key, message, texts};
use conch_loadtest::raw::{Answer, Draft};
use conch_wire::event::{AckFlags, PendingAnswer, PendingSend};
use conch_wire::{Code, limits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resend_after_a_crash_gets_the_same_seq() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let mut first = Vec::new();
    for n in 1..=20 {
        first.push(ann.say(1, &message(n)).await?.seq);
    }
    // Above the index's position at first, below it after the second start.
    drop(ann);
    node.kill();
    for _ in 0..2 {
        // A life that is killed at once: recovery, and a second recovery behind it.
        place.start().await?.kill();
        let node = place.start().await?;
        let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
        for (n, seq) in (1..=20).zip(&first) {
            let ack = ann.say(1, &message(n).again()).await?;
            ensure!(ack.seq == *seq, "message {n}: {ack:?}, first {seq}");
            ensure!(ack.flags == AckFlags::DUP, "{ack:?}");
        }
        let found = texts(&node, &pair.ben, pair.channel).await?;
        ensure!(found.len() == 20, "{found:?}");
        node.kill();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_key_with_other_content_is_a_conflict() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let ack = ann.say(1, &message(1)).await?;
    let other = Draft::text(key(1), "something else").again();
    let error = ann.say(1, &other).await.unwrap_err();
    ensure!(error.code() == Some(Code::Conflict), "{error}");
    drop(ann);
    node.kill();

    let node = place.start().await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let error = ann.say(1, &other).await.unwrap_err();
    ensure!(error.code() == Some(Code::Conflict), "{error}");
    ensure!(ann.say(1, &message(1).again()).await?.seq == ack.seq);
    // A key belongs to its sender: another person's same key is another message.
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    ensure!(ben.say(1, &Draft::text(key(1), "ben's own")).await?.seq == ack.seq + 1);
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["message 1", "ben's own"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_key_a_hundred_times_at_once_is_one_message() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let second = api(&node).log_in("ann", PASSWORD, "second").await?;
    let mut clients = Vec::new();
    for n in 0..10 {
        let login = if n % 2 == 0 { &pair.ann } else { &second };
        clients.push(enter(&node, login, pair.channel, 1).await?);
    }
    let mut tasks = Vec::new();
    for mut client in clients {
        tasks.push(tokio::spawn(async move {
            let requests: Vec<_> = (0..10)
                .map(|_| client.queue_sends(1, &[message(1).again()]))
                .collect();
            client.flush().await?;
            let mut seqs = Vec::new();
            for request in requests {
                match client.sent(request).await? {
                    Answer::Acked(acks) => seqs.push(acks[0].seq),
                    Answer::Refused(error) => anyhow::bail!("{error:?}"),
                }
            }
            Ok(seqs)
        }));
    }
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await??);
    }
    ensure!(seqs.len() == 100);
    seqs.dedup();
    ensure!(seqs.len() == 1, "{seqs:?}");
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["message 1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_message_answers_its_sender_after_removal() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let api = api(&node);
    let owner = api.sign_up("owner", PASSWORD).await?;
    let guest = api.sign_up("guest", PASSWORD).await?;
    let group = api
        .group(&owner.access_token, "house", &[guest.user])
        .await?;
    let mut client = enter(&node, &guest, group, 1).await?;
    let ack = client.say(1, &message(1)).await?;
    api.remove_member(&owner.access_token, group, guest.user)
        .await?;
    let again = client.say(1, &message(1).again()).await;
    match again {
        Ok(again) => ensure!(again.seq == ack.seq, "{again:?}"),
        // The alias may have gone with the membership: then the key is asked about by HELLO.
        Err(error) => ensure!(error.code() == Some(Code::BadAlias), "{error}"),
    }
    let new = client.say(1, &message(2)).await.unwrap_err();
    ensure!(
        matches!(new.code(), Some(Code::NotFound | Code::BadAlias)),
        "{new}"
    );
    drop(client);

    let mut hello = conch_e2e::hello(&guest);
    hello.pending = vec![
        PendingSend {
            channel: group,
            key: key(1),
        },
        PendingSend {
            channel: group,
            key: key(2),
        },
    ];
    let (_, welcome) = conch_loadtest::raw::RawClient::open(node.http(), hello).await?;
    ensure!(
        matches!(welcome.pending[0], PendingAnswer::Stored { seq, .. } if seq == ack.seq),
        "{:?}",
        welcome.pending
    );
    ensure!(
        welcome.pending[1] == PendingAnswer::Absent,
        "{:?}",
        welcome.pending
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_of_the_longest_allowed_length_is_stored_and_one_more_is_refused() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let longest = "ẞ".repeat(limits::TEXT_CHARS_MAX);
    let refused = Draft::text(key(1), format!("{longest}x"));
    let error = ann.say(1, &refused).await.unwrap_err();
    ensure!(
        matches!(error.code(), Some(Code::TooLarge | Code::Invalid)),
        "{error}"
    );
    let (mut ann, _) = {
        drop(ann);
        let (client, welcome) = connect(&node, &pair.ann).await?;
        (client, welcome)
    };
    ann.first_changes().await?;
    let alias = ann.open_fresh(pair.channel, 1).await?.alias;
    ann.say(alias, &Draft::text(key(2), longest.clone()))
        .await?;
    ensure!(texts(&node, &pair.ben, pair.channel).await? == [longest]);
    Ok(())
}
