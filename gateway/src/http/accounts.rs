//! Sign-up, log-in, refresh, log-out.
//!
//! Log-in answers alike, in word and in time, whether the handle is nobody's or the password is wrong. Sign-up has to say
//! that a handle is taken, so it is limited by address like everything before authentication.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use conch_store::accounts::{
    Account, CreateAccountError, CreateDeviceError, DisplayName, Handle, IssueError, NewAccount,
    NewDevice, Rotation, RotationTimes,
};
use conch_wire::{Code, DeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::Api;
use super::caller::{Address, Caller};
use super::json::{Body, answer};
use super::problem::{Answer, HttpReason, Problem};
use crate::auth::passwords::{HashError, Password};
use crate::auth::tokens::{
    ACCESS_MS, REFRESH_GRACE_MS, REFRESH_MS, fresh_refresh_token, refresh_token_hash,
};
use crate::config::SignUp;

/// Longest name of a device, and longest platform, in characters.
const DEVICE_TEXT_CHARS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignUpBody {
    handle: String,
    password: String,
    display_name: Option<String>,
    device_name: Option<String>,
    platform: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogInBody {
    handle: String,
    password: String,
    device_name: Option<String>,
    platform: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshBody {
    refresh_token: String,
}

#[derive(Serialize)]
struct TokensView {
    user_id: String,
    handle: String,
    display_name: String,
    device_id: String,
    access_token: String,
    expires_in_ms: u64,
    refresh_token: String,
    refresh_expires_in_ms: u64,
}

impl From<HashError> for Problem {
    fn from(error: HashError) -> Problem {
        match error {
            HashError::Busy => {
                Problem::wire(Code::Overloaded, "too many log-ins at once").retry_after(2_000)
            }
            HashError::Failed => Problem::internal(&error),
        }
    }
}

fn parse_handle(text: &str) -> Answer<Handle> {
    Handle::parse(text).map_err(|e| Problem::http(HttpReason::InvalidHandle, e.to_string()))
}

fn parse_password(text: &str) -> Answer<Password> {
    Password::parse(text)
        .ok_or_else(|| Problem::http(HttpReason::InvalidPassword, "8 to 256 characters, no NUL"))
}

/// What a device says of itself.
struct DeviceText {
    name: String,
    platform: String,
}

fn parse_device(name: Option<String>, platform: Option<String>) -> Answer<DeviceText> {
    let check = |text: Option<String>, what: &str| {
        let text = text.unwrap_or_default();
        let fine =
            text.chars().count() <= DEVICE_TEXT_CHARS_MAX && !text.chars().any(char::is_control);
        fine.then_some(text).ok_or_else(|| {
            Problem::wire(
                Code::Invalid,
                format!("{what}: at most {DEVICE_TEXT_CHARS_MAX} characters"),
            )
        })
    };
    Ok(DeviceText {
        name: check(name, "device_name")?,
        platform: check(platform, "platform")?,
    })
}

/// `POST /v1/accounts`
pub(super) async fn sign_up(
    State(api): State<Arc<Api>>,
    Address(address): Address,
    Body(body, _): Body<SignUpBody>,
) -> Answer<Response> {
    api.limiter.early(address)?;
    if api.settings.auth.sign_up == SignUp::Closed {
        return Err(Problem::http(
            HttpReason::SignUpClosed,
            "this node makes no accounts on request",
        ));
    }
    let handle = parse_handle(&body.handle)?;
    let password = parse_password(&body.password)?;
    let name = body.display_name.as_deref().unwrap_or(handle.as_str());
    let display_name = DisplayName::parse(name)
        .map_err(|e| Problem::http(HttpReason::InvalidDisplayName, e.to_string()))?;
    let device = parse_device(body.device_name, body.platform)?;
    let taken = || Problem::http(HttpReason::HandleTaken, "the handle belongs to somebody");
    // A hash is dear: not for a name that cannot be had anyway.
    let there = api.accounts.account_by_handle(&handle).await;
    if there.map_err(|e| Problem::internal(&e))?.is_some() {
        return Err(taken());
    }
    let password_hash = api.passwords.hash(password).await?;
    let id = api.edge.router.next_user_id().await?;
    let account = NewAccount {
        id,
        subject: id.to_string(),
        issuer: api.settings.auth.issuer.clone(),
        handle,
        display_name,
        password_hash: Some(password_hash),
        created_ms: api.wall_ms(),
    };
    let view = Account {
        id,
        handle: account.handle.clone(),
        display_name: account.display_name.clone(),
        issuer: account.issuer.clone(),
        subject: account.subject.clone(),
        password_hash: None,
        created_ms: account.created_ms,
    };
    match api.accounts.create_account(account).await {
        Ok(()) => {}
        Err(CreateAccountError::HandleTaken) => return Err(taken()),
        Err(error) => return Err(Problem::internal(&error)),
    }
    begin_device(&api, &view, device).await
}

/// `POST /v1/sessions`
pub(super) async fn log_in(
    State(api): State<Arc<Api>>,
    Address(address): Address,
    Body(body, _): Body<LogInBody>,
) -> Answer<Response> {
    let wrong = || {
        Problem::http(
            HttpReason::WrongCredentials,
            "handle and password do not belong together",
        )
    };
    api.limiter.early(address)?;
    let device = parse_device(body.device_name, body.platform)?;
    // What cannot be a handle or a password is nobody's: the same answer, for free.
    let (Ok(handle), Some(password)) =
        (Handle::parse(&body.handle), Password::parse(&body.password))
    else {
        return Err(wrong());
    };
    api.limiter.log_in(address, handle.as_str())?;
    let account = api
        .accounts
        .account_by_handle(&handle)
        .await
        .map_err(|e| Problem::internal(&e))?;
    let stored = account.as_ref().and_then(|a| a.password_hash.clone());
    let right = api.passwords.verify(password, stored).await?;
    match account {
        Some(account) if right => begin_device(&api, &account, device).await,
        _ => Err(wrong()),
    }
}

/// A new device of the account, with its first tokens.
async fn begin_device(api: &Api, account: &Account, text: DeviceText) -> Answer<Response> {
    let id = api.edge.router.next_device_id().await?;
    let device = NewDevice {
        id,
        user: account.id,
        name: text.name,
        platform: text.platform,
        created_ms: api.wall_ms(),
    };
    match api
        .accounts
        .create_device(device, api.settings.auth.devices_max)
        .await
    {
        Ok(()) => {}
        Err(CreateDeviceError::TooManyDevices) => {
            return Err(Problem::wire(
                Code::LimitReached,
                "the account has as many devices as it may: log one out",
            ));
        }
        Err(error) => return Err(Problem::internal(&error)),
    }
    let (refresh_token, hash) = fresh_refresh_token();
    match api
        .accounts
        .issue_token(id, hash, api.wall_ms() + REFRESH_MS)
        .await
    {
        Ok(()) => {}
        Err(IssueError::NoSuchDevice) => return Err(Problem::not_found()),
        Err(error) => return Err(Problem::internal(&error)),
    }
    Ok(tokens_answer(
        api,
        StatusCode::CREATED,
        account,
        id,
        refresh_token,
    ))
}

fn tokens_answer(
    api: &Api,
    status: StatusCode,
    account: &Account,
    device: DeviceId,
    refresh_token: String,
) -> Response {
    let view = TokensView {
        user_id: account.id.to_string(),
        handle: account.handle.as_str().to_owned(),
        display_name: account.display_name.as_str().to_owned(),
        device_id: device.to_string(),
        access_token: api.edge.gate.tokens.mint(account.id, device, api.wall_ms()),
        expires_in_ms: ACCESS_MS,
        refresh_token,
        refresh_expires_in_ms: REFRESH_MS,
    };
    answer(status, &view)
}

/// `POST /v1/tokens/refresh`
pub(super) async fn refresh(
    State(api): State<Arc<Api>>,
    Address(address): Address,
    Body(body, _): Body<RefreshBody>,
) -> Answer<Response> {
    api.limiter.early(address)?;
    let (new_token, new_hash) = fresh_refresh_token();
    let now_ms = api.wall_ms();
    let times = RotationTimes {
        now_ms,
        expires_ms: now_ms + REFRESH_MS,
        grace_ms: REFRESH_GRACE_MS,
    };
    let old = refresh_token_hash(&body.refresh_token);
    let refused = |code, detail| Err(Problem::wire(code, detail));
    match api.accounts.rotate_token(old, new_hash, times).await {
        Ok(Rotation::Rotated { user, device }) => {
            let account = account_of(&api, user).await?;
            Ok(tokens_answer(
                &api,
                StatusCode::OK,
                &account,
                device,
                new_token,
            ))
        }
        Ok(Rotation::Reused { user, device }) => {
            tracing::warn!(
                user = user.0,
                device = device.0,
                "a refresh token was used twice"
            );
            api.edge
                .router
                .close_device(user, device, Code::DeviceRevoked);
            refused(Code::DeviceRevoked, "the device was logged out")
        }
        Ok(Rotation::Unknown) => refused(Code::Unauthenticated, "the token is not accepted"),
        Ok(Rotation::Expired) => refused(Code::TokenExpired, "the token has expired: log in"),
        Err(error) => Err(Problem::internal(&error)),
    }
}

async fn account_of(api: &Api, user: UserId) -> Answer<Account> {
    match api.accounts.account(user).await {
        Ok(Some(account)) => Ok(account),
        Ok(None) => Err(Problem::wire(
            Code::Unauthenticated,
            "the token is not accepted",
        )),
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// `POST /v1/sessions/logout`
pub(super) async fn log_out(State(api): State<Arc<Api>>, caller: Caller) -> Answer<StatusCode> {
    end_device(&api, caller.user, caller.device).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a device, then closes its connections: none can come back in between.
pub(super) async fn end_device(api: &Api, user: UserId, device: DeviceId) -> Answer<()> {
    api.accounts
        .revoke_device(device, api.wall_ms())
        .await
        .map_err(|e| Problem::internal(&e))?;
    api.edge
        .router
        .close_device(user, device, Code::DeviceRevoked);
    Ok(())
}
