//! Who calls: the address, and the device that a token speaks for.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::{header, request::Parts};
use conch_wire::{Code, DeviceId, UserId};

use super::Api;
use super::problem::Problem;

/// The peer of the connection, put into every request by the listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub IpAddr);

/// Where a request comes from. Behind a proxy on this machine: what the proxy says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Address
where
    Arc<Api>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let api = Arc::<Api>::from_ref(state);
        let Some(Peer(peer)) = parts.extensions.get::<Peer>().copied() else {
            return Err(Problem::wire(Code::InternalError, "no peer address"));
        };
        if !api.settings.http.behind_proxy || !peer.is_loopback() {
            return Ok(Address(peer));
        }
        // The last entry is the proxy's own; what stands before it is the client's to invent.
        let forwarded = parts
            .headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.rsplit(',').next())
            .and_then(|v| v.trim().parse().ok());
        Ok(Address(forwarded.unwrap_or(peer)))
    }
}

/// An authenticated device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    pub user: UserId,
    pub device: DeviceId,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Arc<Api>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let api = Arc::<Api>::from_ref(state);
        let missing = || Problem::wire(Code::Unauthenticated, "an access token is needed");
        let mut tokens = parts.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (tokens.next(), tokens.next()) else {
            return Err(missing());
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(missing)?;
        let identity = match api.edge.gate.check(token).await {
            Ok(identity) => identity,
            Err(refused) => {
                // A flood of bad tokens is a flood of nobody's requests.
                let Address(address) = Address::from_request_parts(parts, state).await?;
                api.limiter.early(address)?;
                return Err(refused.into());
            }
        };
        api.limiter.user(identity.user)?;
        Ok(Caller {
            user: identity.user,
            device: identity.device,
        })
    }
}
