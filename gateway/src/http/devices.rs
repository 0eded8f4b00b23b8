//! A person's devices: which there are, and ending one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use conch_wire::DeviceId;
use serde::Serialize;

use super::Api;
use super::accounts::end_device;
use super::caller::Caller;
use super::json::{answer, parse_id};
use super::problem::{Answer, Problem};

#[derive(Serialize)]
struct DeviceView {
    device_id: String,
    name: String,
    platform: String,
    created_ms: u64,
    seen_ms: u64,
    /// The one that asks.
    current: bool,
}

#[derive(Serialize)]
struct DevicesView {
    devices: Vec<DeviceView>,
}

/// `GET /v1/devices`
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Answer<Response> {
    let devices = api
        .accounts
        .devices_of(caller.user)
        .await
        .map_err(|e| Problem::internal(&e))?
        .into_iter()
        .filter(conch_store::accounts::Device::is_active)
        .map(|device| DeviceView {
            device_id: device.id.to_string(),
            name: device.name,
            platform: device.platform,
            created_ms: device.created_ms,
            seen_ms: device.seen_ms,
            current: device.id == caller.device,
        })
        .collect();
    Ok(answer(StatusCode::OK, &DevicesView { devices }))
}

/// `DELETE /v1/devices/{device}`
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<String>,
) -> Answer<StatusCode> {
    let id: DeviceId = parse_id(&device).ok_or_else(Problem::not_found)?;
    let device = api
        .accounts
        .device(id)
        .await
        .map_err(|e| Problem::internal(&e))?;
    // Somebody else's device and none at all answer alike.
    if !device.is_some_and(|d| d.user == caller.user && d.is_active()) {
        return Err(Problem::not_found());
    }
    end_device(&api, caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
