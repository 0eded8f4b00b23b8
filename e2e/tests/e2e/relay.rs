//! The checker fails when it should: each fault of a relay between devices and a real node is told by its own kind of
//! violation and by no other one, and without a fault nothing is.
//!
//! Ann has one device and Ben has two. They talk through plain devices, which show what they are pushed; a fault of one device
//! lies before Ben's second one, a fault of the node before all of them. At the end both read the whole history.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_e2e::plain::PlainDevice;
use conch_e2e::{PASSWORD, Pair, Place, SOON, api, eventually, message};
use conch_loadtest::checker::{Checker, Verdict};
use conch_loadtest::device::{Device, DevicePlan, SharedChecker};
use conch_loadtest::http::Login;
use conch_loadtest::node::Node;
use conch_loadtest::raw::{Answer, Draft, Transport};
use conch_loadtest::relay::{FAULTS, Fault, Plan, Relay};
use conch_wire::frame::PushMode;
use tokio::sync::watch;

/// Messages of the conversation: Ann says the odd ones, Ben's first device the even ones.
const MESSAGES: u64 = 7;
/// A direct channel begins with the event of its creation: message `n` has seq `n + 1`.
const FOURTH: u32 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    Ann,
    Ben,
    BensSecond,
    All,
}

/// A node, a relay, and three devices that have come.
struct Scene {
    /// These end with the scene.
    _place: Place,
    _node: Node,
    relay: Relay,
    checker: SharedChecker,
    second: Login,
    bens_path: String,
    ann: PlainDevice,
    ben: PlainDevice,
    /// `None`: his second device is of another kind.
    bens_second: Option<PlainDevice>,
}

impl Scene {
    async fn new(plan: Plan, before: Before) -> Result<Scene> {
        Scene::with_second(plan, before, true).await
    }

    async fn with_second(plan: Plan, before: Before, is_plain: bool) -> Result<Scene> {
        let place = Place::new()?;
        let node = place.start().await?;
        let pair = Pair::meet(&node).await?;
        let second = api(&node).log_in("ben", PASSWORD, "second").await?;
        let relay = Relay::start(node.http(), plan).await?;
        let checker = Arc::new(Mutex::new(Checker::new()));
        for login in [&pair.ann, &pair.ben, &second] {
            let mut checker = checker.lock().unwrap();
            checker.add_device(login.user, login.device);
            checker.add_member(pair.channel, login.user, 1);
        }
        let way = |who: Before| {
            if who == before || before == Before::All {
                relay.doors().http
            } else {
                node.http().to_owned()
            }
        };
        let enter = |who, login| {
            let (http, checker) = (way(who), Arc::clone(&checker));
            async move { PlainDevice::enter(&http, login, pair.channel, &checker).await }
        };
        let ann = enter(Before::Ann, &pair.ann).await?;
        let ben = enter(Before::Ben, &pair.ben).await?;
        let bens_second = match is_plain {
            true => Some(enter(Before::BensSecond, &second).await?),
            false => None,
        };
        let bens_path = way(Before::BensSecond);
        Ok(Scene {
            _place: place,
            _node: node,
            relay,
            checker,
            second,
            bens_path,
            ann,
            ben,
            bens_second,
        })
    }

    /// Everybody says their messages, each when they have heard the one before; then all hear them up to `heard`.
    async fn talk(&mut self, drafts: impl Fn(u64) -> Draft, heard: u64) -> Result<()> {
        let text = |n: u64| format!("message {n}");
        for n in 1..=MESSAGES {
            let author = match n % 2 {
                1 => &mut self.ann,
                _ => &mut self.ben,
            };
            if n > 1 {
                author.hear(&text(n - 1), SOON).await?;
            }
            author.say(&drafts(n)).await?;
        }
        if heard == MESSAGES {
            self.ben.hear(&text(MESSAGES), SOON).await?;
        }
        if let Some(second) = &mut self.bens_second {
            second.hear(&text(heard), SOON).await?;
        }
        Ok(())
    }

    async fn verdict(mut self) -> Result<Verdict> {
        self.ann.read_history().await?;
        match &mut self.bens_second {
            Some(second) => second.read_history().await?,
            None => self.ben.read_history().await?,
        }
        let checker = std::mem::take(&mut *self.checker.lock().unwrap());
        Ok(checker.verdict())
    }
}

/// The kinds of violations of a verdict, by name.
fn kinds(verdict: &Verdict) -> BTreeSet<String> {
    let name = |text: String| text.split([' ', '{']).next().unwrap_or_default().to_owned();
    let found = verdict.violations.iter();
    found
        .map(|violation| name(format!("{violation:?}")))
        .collect()
}

fn told_as(verdict: &Verdict, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
    ensure!(kinds(verdict) == wanted, "wanted {wanted:?}: {verdict}");
    ensure!(verdict.is_clean() == wanted.is_empty(), "{verdict}");
    Ok(())
}

fn plan(fault: Fault, at: u32) -> Plan {
    Plan {
        fault: Some(fault),
        at,
    }
}

/// The conversation with this fault, and how it must be told.
async fn conversation(fault: Fault, at: u32, before: Before, wanted: &[&str]) -> Result<()> {
    let mut scene = Scene::new(plan(fault, at), before).await?;
    scene.talk(message, MESSAGES).await?;
    told_as(&scene.verdict().await?, wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_without_a_fault_is_told_clean() -> Result<()> {
    let mut scene = Scene::new(Plan::default(), Before::All).await?;
    scene.talk(message, MESSAGES).await?;
    let path = scene.bens_path.clone();
    let mut second = scene.bens_second.take().context("a plain device")?;
    second.read(SOON).await?;
    let mut second = second.again(&path).await?;
    second.ping().await?;
    scene.bens_second = Some(second);
    let verdict = scene.verdict().await?;
    told_as(&verdict, &[])?;
    ensure!(verdict.counts.acked_messages == MESSAGES, "{verdict}");
    ensure!(verdict.counts.deliveries == 3 * (MESSAGES + 1), "{verdict}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_drops_a_delivery_is_told() -> Result<()> {
    conversation(Fault::Drop, FOURTH, Before::BensSecond, &["NotShown"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_repeats_a_delivery_is_told() -> Result<()> {
    conversation(Fault::Repeat, FOURTH, Before::BensSecond, &["ShownTwice"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_swaps_two_messages_is_told() -> Result<()> {
    conversation(Fault::Swap, FOURTH, Before::BensSecond, &["SeqTwice"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_shows_one_member_another_order_is_told() -> Result<()> {
    conversation(Fault::OtherOrder, FOURTH, Before::BensSecond, &["SeqTwice"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_delivers_late_is_no_fault() -> Result<()> {
    conversation(Fault::Reorder, FOURTH, Before::BensSecond, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_forges_a_message_is_told() -> Result<()> {
    conversation(Fault::Forge, FOURTH, Before::BensSecond, &["Forged"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_acknowledges_and_loses_is_told() -> Result<()> {
    let mut scene = Scene::new(plan(Fault::Lose, 4), Before::Ann).await?;
    scene.talk(message, MESSAGES - 1).await?;
    told_as(&scene.verdict().await?, &["Lost"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_forgets_what_was_shown_is_told() -> Result<()> {
    conversation(Fault::Forget, FOURTH, Before::All, &["Lost"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_gives_a_seq_twice_is_told() -> Result<()> {
    conversation(Fault::SeqTwice, FOURTH, Before::All, &["SeqTwice"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_leaves_a_gap_is_told() -> Result<()> {
    conversation(Fault::Gap, FOURTH, Before::All, &["Gap", "Hole"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_stores_a_message_twice_is_told() -> Result<()> {
    let mut scene = Scene::new(plan(Fault::StoreTwice, 2), Before::Ann).await?;
    scene.talk(message, MESSAGES).await?;
    // The node takes the second one for hers, and does not push it to her.
    scene.ann.pull().await?;
    told_as(&scene.verdict().await?, &["Duplicate"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_stores_two_messages_of_one_key_is_told() -> Result<()> {
    let mut scene = Scene::new(plan(Fault::ChangeKey, 0), Before::Ann).await?;
    let drafts = |n| Draft {
        key: message(if n == 5 { 1 } else { n }).key,
        ..message(n)
    };
    scene.talk(drafts, MESSAGES).await?;
    told_as(&scene.verdict().await?, &["KeyTwice"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_lets_a_message_overtake_is_told() -> Result<()> {
    let mut scene = Scene::new(plan(Fault::Overtake, 1), Before::Ann).await?;
    let [first, second] = [1, 3].map(message);
    let requests = [
        scene.ann.start(&first).await?,
        scene.ann.start(&second).await?,
    ];
    scene.ann.answer(requests[1], &second).await?;
    scene.ann.answer(requests[0], &first).await?;
    scene.ben.hear("message 1", SOON).await?;
    let bens_second = scene.bens_second.as_mut().context("a plain device")?;
    bens_second.hear("message 1", SOON).await?;
    told_as(&scene.verdict().await?, &["Overtaken"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_acknowledges_elsewhere_is_told() -> Result<()> {
    let mut scene = Scene::new(plan(Fault::MoveAck, 0), Before::Ann).await?;
    scene.talk(message, MESSAGES).await?;
    scene.ann.say(&message(3).again()).await?;
    told_as(&scene.verdict().await?, &["AckMoved"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_refuses_what_it_stores_is_told() -> Result<()> {
    let mut scene = Scene::new(plan(Fault::Refuse, 2), Before::Ann).await?;
    scene.ann.say(&message(1)).await?;
    let answer = scene.ann.say(&message(3)).await?;
    ensure!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    scene.ben.hear("message 3", SOON).await?;
    let bens_second = scene.bens_second.as_mut().context("a plain device")?;
    bens_second.hear("message 3", SOON).await?;
    scene.ann.pull().await?;
    told_as(&scene.verdict().await?, &["RefusedButPresent"])
}

/// Ben's second device reads everything and comes again through the relay.
async fn read_and_come_again(fault: Fault) -> Result<(Scene, PlainDevice)> {
    let mut scene = Scene::new(plan(fault, 0), Before::BensSecond).await?;
    scene.talk(message, MESSAGES).await?;
    let mut second = scene.bens_second.take().context("a plain device")?;
    second.read(SOON).await?;
    let path = scene.bens_path.clone();
    let second = second.again(&path).await?;
    Ok((scene, second))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_takes_a_read_mark_back_is_told() -> Result<()> {
    let (scene, _second) = read_and_come_again(Fault::ReadBack).await?;
    told_as(&scene.verdict().await?, &["ReadMarkBack"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_loses_a_read_mark_is_told() -> Result<()> {
    let (scene, _second) = read_and_come_again(Fault::ReadLost).await?;
    told_as(&scene.verdict().await?, &["ReadLost"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_takes_an_inbox_position_back_is_told() -> Result<()> {
    let (scene, mut second) = read_and_come_again(Fault::InboxBack).await?;
    second.ping().await?;
    told_as(&scene.verdict().await?, &["InboxPositionBack"])
}

/// What a device that keeps to the protocol hides on purpose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_drops_repeats_or_reorders_is_mended_by_a_client() -> Result<()> {
    for fault in [Fault::Drop, Fault::Repeat, Fault::Reorder] {
        let plan = plan(fault, FOURTH);
        let mut scene = Scene::with_second(plan, Before::BensSecond, false).await?;
        let (_doors, open_doors) = watch::channel(Some(scene.relay.doors()));
        let plan = DevicePlan {
            login: scene.second.clone(),
            push: PushMode::All,
            heartbeat: Duration::from_secs(5),
            silence: SOON,
            transport: Transport::WebSocket,
            doors: open_doors,
        };
        let device = Device::spawn(plan, Arc::clone(&scene.checker));
        let is_there = || async { device.tally().connections > 0 };
        eventually("the second device", SOON, is_there).await?;
        scene.talk(message, MESSAGES).await?;
        let checker = Arc::clone(&scene.checker);
        let is_complete = || async { checker.lock().unwrap().missing_at(device.device) == 0 };
        eventually("everything on the second device", SOON, is_complete).await?;
        drop(device);
        let verdict = scene.verdict().await?;
        told_as(&verdict, &[]).with_context(|| format!("{fault:?}"))?;
    }
    Ok(())
}

#[test]
fn relay_faults_are_known_by_their_names() {
    for (name, fault) in FAULTS {
        assert_eq!(name.parse(), Ok(fault));
    }
    let unknown = "drip".parse::<Fault>().unwrap_err().to_string();
    assert!(
        unknown.contains("\"drip\"") && unknown.contains("drop, repeat"),
        "{unknown}"
    );
}
