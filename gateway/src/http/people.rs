//! Oneself and others: names by id and by handle.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use conch_store::accounts::{Account, DisplayName, Handle};
use conch_wire::{Code, UserId};
use serde::{Deserialize, Serialize};

use super::Api;
use super::caller::Caller;
use super::json::{Body, answer, parse_id};
use super::problem::{Answer, HttpReason, Problem};

/// Most ids in one lookup.
const IDS_MAX: usize = 100;

/// A person as everybody may see them.
#[derive(Serialize)]
pub(super) struct PersonView {
    pub(super) user_id: String,
    pub(super) handle: String,
    pub(super) display_name: String,
}

impl From<&Account> for PersonView {
    fn from(account: &Account) -> PersonView {
        PersonView {
            user_id: account.id.to_string(),
            handle: account.handle.as_str().to_owned(),
            display_name: account.display_name.as_str().to_owned(),
        }
    }
}

#[derive(Serialize)]
struct MeView {
    #[serde(flatten)]
    person: PersonView,
    device_id: String,
}

#[derive(Serialize)]
struct PeopleView {
    users: Vec<PersonView>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameMeBody {
    display_name: String,
}

/// `GET /v1/me`
pub(super) async fn me(State(api): State<Arc<Api>>, caller: Caller) -> Answer<Response> {
    let account = api
        .accounts
        .account(caller.user)
        .await
        .map_err(|e| Problem::internal(&e))?
        .ok_or_else(Problem::not_found)?;
    let view = MeView {
        person: (&account).into(),
        device_id: caller.device.to_string(),
    };
    Ok(answer(StatusCode::OK, &view))
}

/// `PATCH /v1/me`
pub(super) async fn rename_me(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(body, _): Body<RenameMeBody>,
) -> Answer<Response> {
    let name = DisplayName::parse(&body.display_name)
        .map_err(|e| Problem::http(HttpReason::InvalidDisplayName, e.to_string()))?;
    api.accounts
        .set_display_name(caller.user, &name)
        .await
        .map_err(|e| Problem::internal(&e))?;
    me(State(api), caller).await
}

/// `GET /v1/users/by-handle/{handle}`
pub(super) async fn by_handle(
    State(api): State<Arc<Api>>,
    _caller: Caller,
    Path(handle): Path<String>,
) -> Answer<Response> {
    let handle = Handle::parse(&handle).map_err(|_| Problem::not_found())?;
    let account = api
        .accounts
        .account_by_handle(&handle)
        .await
        .map_err(|e| Problem::internal(&e))?
        .ok_or_else(Problem::not_found)?;
    Ok(answer(StatusCode::OK, &PersonView::from(&account)))
}

/// `GET /v1/users?ids=…`
pub(super) async fn by_ids(
    State(api): State<Arc<Api>>,
    _caller: Caller,
    RawQuery(query): RawQuery,
) -> Answer<Response> {
    let bad = || Problem::wire(Code::Invalid, "ids: 1 to 100 user ids, separated by commas");
    let query = query.ok_or_else(bad)?;
    let list = query.strip_prefix("ids=").ok_or_else(bad)?;
    let ids: Vec<UserId> = list
        .replace("%2C", ",")
        .replace("%2c", ",")
        .split(',')
        .take(IDS_MAX + 1)
        .map(|id| parse_id(id).ok_or_else(bad))
        .collect::<Result<_, _>>()?;
    if ids.len() > IDS_MAX {
        return Err(bad());
    }
    let accounts = api
        .accounts
        .accounts(&ids)
        .await
        .map_err(|e| Problem::internal(&e))?;
    let users = accounts.iter().map(PersonView::from).collect();
    Ok(answer(StatusCode::OK, &PeopleView { users }))
}
