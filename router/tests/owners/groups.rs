//! Groups: who may change what, and what is seen by those who come and go.

use conch_wire::event::MemberRole;
use conch_wire::{Code, UserId};

use crate::world::{ANNA, BERT, CARL, World, by, config, everything, memory, texts};

const DORA: UserId = UserId(4004);

#[tokio::test]
async fn roles_rule_who_changes_a_group() {
    let world = World::new();
    let router = &world.router;
    let channel = world.group(ANNA, &[BERT, BERT, ANNA]).await;
    let code = |refused: Result<(), conch_router::Refused>| refused.unwrap_err().code;
    let add = |by, user| async move {
        let added = router.add_members(by, channel, vec![user]).await;
        added.map(|view| view.members)
    };
    assert_eq!(add(BERT, CARL).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(add(CARL, CARL).await.unwrap_err().code, Code::NotFound);
    assert_eq!(add(ANNA, CARL).await.unwrap(), 3);
    assert_eq!(add(ANNA, CARL).await.unwrap(), 3);
    assert_eq!(
        code(router.remove_member(BERT, channel, CARL).await),
        Code::Forbidden
    );
    assert_eq!(
        code(router.remove_member(ANNA, channel, DORA).await),
        Code::NotFound
    );
    assert_eq!(
        code(router.rename(BERT, channel, "no".into()).await),
        Code::Forbidden
    );
    for title in ["", "  ", "a\nb", &"x".repeat(101)] {
        let refused = router.rename(ANNA, channel, title.into()).await;
        assert_eq!(code(refused), Code::Invalid);
    }
    router.rename(ANNA, channel, "ü".repeat(100)).await.unwrap();
    assert_eq!(
        router.view(BERT, channel).await.unwrap().title,
        "ü".repeat(100)
    );

    // The last owner leaves: the longest-standing member inherits, and nobody removes an owner.
    router.leave(ANNA, channel).await.unwrap();
    assert_eq!(
        router.view(BERT, channel).await.unwrap().role,
        MemberRole::Owner
    );
    assert_eq!(
        router.view(CARL, channel).await.unwrap().role,
        MemberRole::Member
    );
    assert_eq!(add(ANNA, DORA).await.unwrap_err().code, Code::NotFound);
    assert_eq!(add(BERT, DORA).await.unwrap(), 3);
    assert_eq!(
        code(router.remove_member(CARL, channel, BERT).await),
        Code::Forbidden
    );
    router.remove_member(BERT, channel, DORA).await.unwrap();
    let members = router.members(BERT, channel).await.unwrap();
    let seen: Vec<_> = members.iter().map(|m| (m.user, m.role)).collect();
    assert_eq!(
        seen,
        [(BERT, MemberRole::Owner), (CARL, MemberRole::Member)]
    );
    world.router.shutdown().await;
}

#[tokio::test]
async fn a_group_holds_as_many_as_configured() {
    let mut small = config();
    small.group_members_max = 3;
    let world = World::with(small, memory());
    let channel = world.router.next_channel_id().await.unwrap();
    let people: Vec<UserId> = (1..=3).map(UserId).collect();
    let title = || "full".to_owned();
    let refused = world
        .router
        .create_group(channel, ANNA, title(), people.clone())
        .await;
    assert_eq!(refused.unwrap_err().code, Code::LimitReached);
    let two = people[..2].to_vec();
    let made = world
        .router
        .create_group(channel, ANNA, title(), two.clone())
        .await
        .unwrap();
    let again = world.router.create_group(channel, ANNA, title(), two).await;
    assert_eq!(again.unwrap(), made);
    let stranger = world
        .router
        .create_group(channel, CARL, title(), vec![])
        .await;
    assert_eq!(stranger.unwrap_err().code, Code::Conflict);
    let refused = world.router.add_members(ANNA, channel, vec![CARL]).await;
    assert_eq!(refused.unwrap_err().code, Code::LimitReached);
    world.router.shutdown().await;
}

/// Guards: membership counts as of the place in the log, sequenced and not merely committed
/// (`Roster::sequenced` in `ChannelState::not_allowed`).
#[tokio::test]
async fn a_send_behind_an_undurable_removal_is_refused() {
    let world = World::new();
    world.register(BERT, 2).await;
    let channel = world.group(ANNA, &[BERT]).await;
    world.event(2, channel, 1).await;
    world.store.hold();
    world
        .router
        .send(by(BERT, 2, channel, 1, "in time").build())
        .unwrap();
    world.until_held(1).await;
    let router = world.router.clone();
    let removal = tokio::spawn(async move { router.remove_member(ANNA, channel, BERT).await });
    // Behind the removal in the queue, as soon as that is in it.
    let mut number = 1;
    let refused = loop {
        number += 1;
        world
            .router
            .send(by(BERT, 2, channel, number, "maybe late").build())
            .unwrap();
        world.router.view(BERT, channel).await.unwrap();
        let told = world.pushed(2).into_iter().find_map(|push| match push {
            conch_router::Push::Refused { refused, .. } => Some(refused),
            _ => None,
        });
        if let Some(refused) = told {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.code, Code::NotFound);
    // Not durable yet: to readers he is still in.
    assert_eq!(
        world.router.view(BERT, channel).await.unwrap().left_seq,
        None
    );
    world.store.release();
    removal.await.unwrap().unwrap();

    let view = world.router.view(BERT, channel).await.unwrap();
    let left = view.left_seq.unwrap();
    assert_eq!(view.head.head_seq, left);
    let last = world.event(2, channel, left).await;
    assert_eq!(last.left.as_slice(), [BERT]);
    let after = world.say(by(ANNA, 1, channel, 1, "after")).await.unwrap();
    assert!(after.seq > left);
    // Nothing behind it, neither pushed nor paged, however it is asked for.
    assert!(world.events(2).iter().all(|event| event.seq <= left));
    let page = world.history(BERT, channel).await;
    assert_eq!(
        (page.covered_from, page.covered_to, page.head_seq),
        (1, left, left)
    );
    let mark = world.router.read(BERT, channel, u32::MAX).await.unwrap();
    assert_eq!((mark.read_seq, mark.head_seq), (left, left));
    assert_eq!(mark.head_ordinal, mark.read_ordinal);
    world.router.shutdown().await;
}

#[tokio::test]
async fn who_joins_sees_from_there_on_and_who_comes_back_from_the_return() {
    let world = World::new();
    let channel = world.group(ANNA, &[BERT]).await;
    world.say(by(ANNA, 1, channel, 1, "old")).await.unwrap();
    world
        .router
        .add_members(ANNA, channel, vec![CARL])
        .await
        .unwrap();
    world.say(by(ANNA, 1, channel, 2, "new")).await.unwrap();
    let view = world.router.view(CARL, channel).await.unwrap();
    assert_eq!((view.first_seq, view.head.read_seq), (3, 2));
    assert_eq!(view.head.head_ordinal - view.head.read_ordinal, 1);
    assert_eq!(world.texts(CARL, channel).await, ["new"]);
    world.router.leave(CARL, channel).await.unwrap();
    world.say(by(ANNA, 1, channel, 3, "away")).await.unwrap();
    assert_eq!(world.texts(CARL, channel).await, ["new"]);
    let added = world.router.add_members(ANNA, channel, vec![CARL]).await;
    let back = added.unwrap().head.head_seq;
    world.say(by(ANNA, 1, channel, 4, "back")).await.unwrap();
    assert_eq!(
        world.router.view(CARL, channel).await.unwrap().first_seq,
        back
    );
    assert_eq!(world.texts(CARL, channel).await, ["back"]);
    world.router.shutdown().await;
}

/// Guards: a former member's head is looked up where they left (`Wanted::View`), after a reload too.
#[tokio::test]
async fn a_former_member_is_told_the_same_by_memory_and_by_the_store() {
    let mut small = config();
    small.tail_events = 1;
    let world = World::with(small.clone(), memory());
    let channel = world.group(ANNA, &[BERT]).await;
    world.say(by(ANNA, 1, channel, 1, "one")).await.unwrap();
    world.router.leave(BERT, channel).await.unwrap();
    for number in 2..6 {
        world.say(by(ANNA, 1, channel, number, "x")).await.unwrap();
    }
    let before = world.router.view(BERT, channel).await.unwrap();
    assert_eq!((before.head.head_seq, before.head.head_ordinal), (3, 1));
    world.router.shutdown().await;
    let world = World::with(small, world.store.reopen());
    assert_eq!(world.router.view(BERT, channel).await.unwrap(), before);
    world.router.shutdown().await;
}

#[tokio::test]
async fn pages_are_the_same_from_memory_and_from_the_store() {
    let pages = |tail_events| async move {
        let mut config = config();
        config.tail_events = tail_events;
        let world = World::with(config, memory());
        let channel = world.group(ANNA, &[BERT]).await;
        for number in 1..=30 {
            let text = number.to_string();
            world
                .say(by(ANNA, 1, channel, number, &text))
                .await
                .unwrap();
        }
        let mut seen = Vec::new();
        for newest_first in [false, true] {
            for (from, to) in [(1, 31), (5, 9), (25, 400), (31, 31), (40, 50), (9, 3)] {
                for (items_max, bytes_max) in [(1, 0), (4, 1 << 20), (100, 64), (100, 1 << 20)] {
                    let request = conch_router::HistoryRequest {
                        from,
                        to,
                        items_max,
                        bytes_max,
                        newest_first,
                        ..everything(channel)
                    };
                    let page = world.router.history(BERT, request).await.unwrap();
                    assert!(page.covered_from > page.covered_to || !page.bodies.is_empty());
                    seen.push((page.covered_from, page.covered_to, texts(&page)));
                }
            }
        }
        world.router.shutdown().await;
        seen
    };
    assert_eq!(pages(64).await, pages(3).await);
}
