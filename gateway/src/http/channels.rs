//! Channels over HTTP: making them, their members and titles. Everything through the router, like any device.
//!
//! A group is made under an id that is taken first and remembered with the caller's `Idempotency-Key`, durably, before
//! the owner hears of it: the same request again, after a crash too, names the same id and so makes no second group.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use conch_router::ChannelView;
use conch_store::accounts::{Memory, RequestAnswer, RequestHash};
use conch_wire::event::{ChannelKind, MemberRole};
use conch_wire::limits::{GROUP_MEMBERS_MAX, TITLE_CHARS_MAX};
use conch_wire::{ChannelId, Code, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Api;
use super::caller::Caller;
use super::json::{Body, answer, parse_id, with_text};
use super::problem::{Answer, HttpReason, Problem};

const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectBody {
    user_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBody {
    title: String,
    members: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MembersBody {
    members: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TitleBody {
    title: String,
}

#[derive(Serialize)]
struct ChannelJson<'a> {
    channel_id: String,
    kind: &'static str,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<String>,
    role: &'static str,
    members: u32,
    first_seq: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_seq: Option<u32>,
    head_seq: u32,
    head_ordinal: u32,
    read_seq: u32,
    read_ordinal: u32,
    unread: u32,
}

#[derive(Serialize)]
struct MemberJson {
    user_id: String,
    role: &'static str,
    joined_seq: u32,
    handle: String,
    display_name: String,
}

#[derive(Serialize)]
struct MembersJson {
    members: Vec<MemberJson>,
}

fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Member => "member",
        MemberRole::Admin => "admin",
        MemberRole::Owner => "owner",
    }
}

fn channel_text(view: &ChannelView) -> String {
    let json = ChannelJson {
        channel_id: view.head.channel.to_string(),
        kind: match view.kind {
            ChannelKind::Direct => "direct",
            ChannelKind::Group => "group",
            ChannelKind::SelfLog => "self",
        },
        title: &view.title,
        peer_id: view.peer.map(|peer| peer.to_string()),
        role: role_name(view.role),
        members: view.members,
        first_seq: view.first_seq,
        left_seq: view.left_seq,
        head_seq: view.head.head_seq,
        head_ordinal: view.head.head_ordinal,
        read_seq: view.head.read_seq,
        read_ordinal: view.head.read_ordinal,
        unread: view
            .head
            .head_ordinal
            .saturating_sub(view.head.read_ordinal),
    };
    serde_json::to_string(&json).expect("plain fields")
}

fn channel_answer(status: StatusCode, view: &ChannelView) -> Response {
    with_text(status, channel_text(view))
}

fn parse_channel(text: &str) -> Answer<ChannelId> {
    parse_id(text).ok_or_else(Problem::not_found)
}

/// Ids of people who have accounts. One who has none refuses the whole request.
async fn parse_people(api: &Api, ids: &[String]) -> Answer<Vec<UserId>> {
    if ids.len() > GROUP_MEMBERS_MAX {
        return Err(Problem::wire(Code::LimitReached, "too many members"));
    }
    let no_user = || Problem::wire(Code::NotFound, "one of the users does not exist");
    let mut users: Vec<UserId> = ids
        .iter()
        .map(|id| parse_id(id).ok_or_else(no_user))
        .collect::<Result<_, _>>()?;
    users.sort_unstable();
    users.dedup();
    let found = api
        .accounts
        .accounts(&users)
        .await
        .map_err(|e| Problem::internal(&e))?;
    if found.len() < users.len() {
        return Err(no_user());
    }
    Ok(users)
}

fn parse_title(text: String) -> Answer<String> {
    let title = text.trim();
    let fine = (1..=TITLE_CHARS_MAX).contains(&title.chars().count())
        && !title.chars().any(char::is_control);
    if fine {
        Ok(title.to_owned())
    } else {
        Err(Problem::wire(Code::Invalid, "title: 1 to 100 characters"))
    }
}

/// `POST /v1/channels/direct`
pub(super) async fn direct(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(body, _): Body<DirectBody>,
) -> Answer<Response> {
    let other = parse_people(&api, std::slice::from_ref(&body.user_id)).await?[0];
    let view = api.edge.router.direct(caller.user, other).await?;
    Ok(channel_answer(StatusCode::OK, &view))
}

/// `POST /v1/channels`
pub(super) async fn create_group(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body, bytes): Body<GroupBody>,
) -> Answer<Response> {
    let key = idempotency_key(&headers)?;
    let title = parse_title(body.title)?;
    let members = parse_people(&api, &body.members).await?;
    let fresh = api.edge.router.next_channel_id().await?;
    let Some(key) = key else {
        let view = api
            .edge
            .router
            .create_group(fresh, caller.user, title, members)
            .await?;
        return Ok(channel_answer(StatusCode::CREATED, &view));
    };
    let mut hash = Sha256::new();
    hash.update(b"POST /v1/channels\n");
    hash.update(&bytes);
    let memory = api
        .accounts
        .remember_request(
            caller.user,
            &key,
            RequestHash(hash.finalize().into()),
            fresh.0,
            api.wall_ms(),
        )
        .await
        .map_err(|e| Problem::internal(&e))?;
    let channel = match memory {
        Memory::Fresh => fresh,
        Memory::Unfinished { subject } => ChannelId(subject),
        Memory::Replay(before) => {
            let status = StatusCode::from_u16(before.status).unwrap_or(StatusCode::CREATED);
            return Ok(with_text(status, before.body));
        }
        Memory::Mismatch => {
            return Err(Problem::http(
                HttpReason::IdempotencyMismatch,
                "the key was used for another request",
            ));
        }
    };
    let made = api
        .edge
        .router
        .create_group(channel, caller.user, title, members)
        .await;
    match made {
        Ok(view) => {
            let text = channel_text(&view);
            let kept = RequestAnswer {
                status: StatusCode::CREATED.as_u16(),
                body: text.clone(),
            };
            // Without it the same request again asks the owner, who answers what is there.
            if let Err(error) = api
                .accounts
                .complete_request(caller.user, &key, &kept)
                .await
            {
                tracing::error!(%error, "an answer could not be remembered");
            }
            Ok(with_text(StatusCode::CREATED, text))
        }
        Err(refused) => {
            let problem = Problem::from(refused);
            if problem.is_certain()
                && let Err(error) = api.accounts.forget_request(caller.user, &key).await
            {
                tracing::error!(%error, "a refused request could not be forgotten");
            }
            Err(problem)
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()))
        .map(|key| Some(key.to_owned()))
        .ok_or_else(|| {
            Problem::wire(
                Code::Invalid,
                "Idempotency-Key: 1 to 128 visible ASCII characters",
            )
        })
}

/// `GET /v1/channels/{channel}`
pub(super) async fn view(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel): Path<String>,
) -> Answer<Response> {
    let channel = parse_channel(&channel)?;
    let view = api.edge.router.view(caller.user, channel).await?;
    Ok(channel_answer(StatusCode::OK, &view))
}

/// `PATCH /v1/channels/{channel}`
pub(super) async fn rename(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel): Path<String>,
    Body(body, _): Body<TitleBody>,
) -> Answer<Response> {
    let channel = parse_channel(&channel)?;
    let title = parse_title(body.title)?;
    let router = &api.edge.router;
    router.rename(caller.user, channel, title).await?;
    let view = router.view(caller.user, channel).await?;
    Ok(channel_answer(StatusCode::OK, &view))
}

/// `GET /v1/channels/{channel}/members`
pub(super) async fn members(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel): Path<String>,
) -> Answer<Response> {
    let channel = parse_channel(&channel)?;
    let members = api.edge.router.members(caller.user, channel).await?;
    let ids: Vec<UserId> = members.iter().map(|m| m.user).collect();
    let names = api
        .accounts
        .accounts(&ids)
        .await
        .map_err(|e| Problem::internal(&e))?;
    let members = members
        .into_iter()
        .map(|member| {
            // Ascending by id.
            let person = names
                .binary_search_by_key(&member.user, |a| a.id)
                .ok()
                .map(|i| &names[i]);
            MemberJson {
                user_id: member.user.to_string(),
                role: role_name(member.role),
                joined_seq: member.joined_seq,
                handle: person.map_or_else(String::new, |p| p.handle.as_str().to_owned()),
                display_name: person
                    .map_or_else(String::new, |p| p.display_name.as_str().to_owned()),
            }
        })
        .collect();
    Ok(answer(StatusCode::OK, &MembersJson { members }))
}

/// `POST /v1/channels/{channel}/members`
pub(super) async fn add_members(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(channel): Path<String>,
    Body(body, _): Body<MembersBody>,
) -> Answer<Response> {
    let channel = parse_channel(&channel)?;
    let users = parse_people(&api, &body.members).await?;
    if users.is_empty() {
        return Err(Problem::wire(Code::Invalid, "members: at least one"));
    }
    let view = api
        .edge
        .router
        .add_members(caller.user, channel, users)
        .await?;
    Ok(channel_answer(StatusCode::OK, &view))
}

/// `DELETE /v1/channels/{channel}/members/{user}`
pub(super) async fn remove_member(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path((channel, user)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let channel = parse_channel(&channel)?;
    let user: UserId = parse_id(&user).ok_or_else(Problem::not_found)?;
    let router = &api.edge.router;
    if user == caller.user {
        router.leave(user, channel).await?;
    } else {
        router.remove_member(caller.user, channel, user).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
