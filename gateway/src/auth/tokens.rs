//! Access tokens (JWT, HS256, 15 minutes) and refresh tokens (256 random bits).
//!
//! The algorithm and the key are fixed by this node, never by the token: a header that names another algorithm or key id,
//! or brings a key or an address of one (`jku`, `jwk`, `x5u`, `x5c`), is refused, and nothing is ever fetched. Claims:
//! `iss`, `aud`, `sub` (user), `did` (device), `iat`, `exp`; ids as decimal strings. Time is passed in.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conch_store::accounts::TokenHash;
use conch_wire::limits::TOKEN_BYTES_MAX;
use conch_wire::{DeviceId, UserId};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Life of an access token.
pub const ACCESS_MS: u64 = 15 * 60 * 1_000;
/// Life of a refresh token that is not used.
pub const REFRESH_MS: u64 = 90 * 24 * 3_600 * 1_000;
/// How long the answer of a rotation may have got lost.
pub const REFRESH_GRACE_MS: u64 = 60_000;
/// Clocks of nodes may differ by this much.
const LEEWAY_MS: u64 = 60_000;
/// Media type of access tokens (RFC 9068).
const TYPE: &str = "at+jwt";
/// Name of the one key.
const KEY_ID: &str = "1";
/// Shortest secret: as long as the MAC.
pub const SECRET_BYTES_MIN: usize = 32;

/// Why a token is refused. No more is ever said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TokenError {
    #[error("expired")]
    Expired,
    #[error("not accepted")]
    Invalid,
}

/// What an accepted token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessClaims {
    pub user: UserId,
    pub device: DeviceId,
    /// Ms since 1970.
    pub expires_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    did: String,
    iat: u64,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
}

/// Makes and checks access tokens with one secret.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// `secret` has at least [`SECRET_BYTES_MIN`] bytes: the configuration's check.
    pub fn new(secret: &SecretSlice<u8>, issuer: &str, audience: &str) -> Tokens {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Checked below against the time that is passed in.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Tokens {
            encoding: EncodingKey::from_secret(secret.expose_secret()),
            decoding: DecodingKey::from_secret(secret.expose_secret()),
            validation,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        }
    }

    /// A fresh token of a device, expiring [`ACCESS_MS`] after `wall_ms`.
    pub fn mint(&self, user: UserId, device: DeviceId, wall_ms: u64) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(KEY_ID.to_owned());
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: user.to_string(),
            did: device.to_string(),
            iat: wall_ms / 1_000,
            exp: (wall_ms + ACCESS_MS) / 1_000,
            nbf: None,
        };
        encode(&header, &claims, &self.encoding).expect("a MAC over a small JSON text")
    }

    /// Checks everything about a token but its device.
    pub fn verify(&self, token: &str, wall_ms: u64) -> Result<AccessClaims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let header = decode_header(token).map_err(|_| TokenError::Invalid)?;
        let plain = header.alg == Algorithm::HS256
            && header.typ.as_deref() == Some(TYPE)
            && header.kid.as_deref() == Some(KEY_ID)
            && header.jku.is_none()
            && header.jwk.is_none()
            && header.x5u.is_none()
            && header.x5c.is_none()
            && header.crit.is_none();
        if !plain {
            return Err(TokenError::Invalid);
        }
        let claims = decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        let (issued_ms, expires_ms) = (
            claims.iat.saturating_mul(1_000),
            claims.exp.saturating_mul(1_000),
        );
        let starts_ms = claims
            .nbf
            .map_or(issued_ms, |nbf| nbf.saturating_mul(1_000));
        if expires_ms > issued_ms.saturating_add(ACCESS_MS)
            || issued_ms.max(starts_ms) > wall_ms + LEEWAY_MS
        {
            return Err(TokenError::Invalid);
        }
        if wall_ms >= expires_ms.saturating_add(LEEWAY_MS) {
            return Err(TokenError::Expired);
        }
        Ok(AccessClaims {
            user: claims.sub.parse().map_err(|_| TokenError::Invalid)?,
            device: claims.did.parse().map_err(|_| TokenError::Invalid)?,
            expires_ms,
        })
    }
}

/// A fresh refresh token as the device gets it, and as it is stored.
pub fn fresh_refresh_token() -> (String, TokenHash) {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let hash = refresh_token_hash(&token);
    (token, hash)
}

/// What is stored of a refresh token.
pub fn refresh_token_hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;
    use serde_json::{Value, json};

    const NOW_MS: u64 = 1_800_000_000_000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn tokens() -> Tokens {
        Tokens::new(&SecretSlice::from(SECRET.to_vec()), "conch", "conch")
    }

    fn good_header() -> Value {
        json!({"alg": "HS256", "typ": TYPE, "kid": KEY_ID})
    }

    fn good_claims() -> Value {
        let now = NOW_MS / 1_000;
        json!({"iss": "conch", "aud": "conch", "sub": "5", "did": "7", "iat": now, "exp": now + 900})
    }

    /// Signs whatever it is given with the right secret.
    fn forge(header: &Value, claims: &Value) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_secret(SECRET);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    fn with(mut value: Value, key: &str, to: Value) -> Value {
        if to.is_null() {
            value.as_object_mut().unwrap().remove(key);
        } else {
            value[key] = to;
        }
        value
    }

    fn outcome(header: &Value, claims: &Value) -> Result<AccessClaims, TokenError> {
        tokens().verify(&forge(header, claims), NOW_MS)
    }

    #[test]
    fn a_minted_token_is_accepted_until_a_minute_after_its_end() {
        let token = tokens().mint(UserId(5), DeviceId(7), NOW_MS);
        let claims = tokens().verify(&token, NOW_MS).unwrap();
        assert_eq!((claims.user, claims.device), (UserId(5), DeviceId(7)));
        assert_eq!(claims.expires_ms, NOW_MS + ACCESS_MS);
        assert!(
            tokens()
                .verify(&token, NOW_MS + ACCESS_MS + LEEWAY_MS - 1)
                .is_ok()
        );
        assert_eq!(
            tokens().verify(&token, NOW_MS + ACCESS_MS + LEEWAY_MS),
            Err(TokenError::Expired)
        );
        assert!(outcome(&good_header(), &good_claims()).is_ok());
    }

    #[test]
    fn a21_another_algorithm_is_refused() {
        for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
            let header = with(good_header(), "alg", json!(alg));
            assert_eq!(
                outcome(&header, &good_claims()),
                Err(TokenError::Invalid),
                "{alg}"
            );
        }
        // Without any signature.
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let bare = format!(
            "{}.{}.",
            part(&with(good_header(), "alg", json!("none"))),
            part(&good_claims())
        );
        assert_eq!(tokens().verify(&bare, NOW_MS), Err(TokenError::Invalid));
    }

    #[test]
    fn a21_another_secret_or_a_changed_token_is_refused() {
        let token = forge(&good_header(), &good_claims());
        let other = Tokens::new(
            &SecretSlice::from(b"another secret of thirty-two byte".to_vec()),
            "conch",
            "conch",
        );
        assert_eq!(other.verify(&token, NOW_MS), Err(TokenError::Invalid));
        let claims = with(good_claims(), "sub", json!("6"));
        let swapped = forge(&good_header(), &claims);
        let mixed = format!(
            "{}.{}",
            swapped.rsplit_once('.').unwrap().0,
            token.rsplit_once('.').unwrap().1
        );
        assert_eq!(tokens().verify(&mixed, NOW_MS), Err(TokenError::Invalid));
    }

    #[test]
    fn a21_wrong_issuer_audience_type_or_claims_are_refused() {
        for (key, value) in [
            ("iss", json!("evil")),
            ("iss", Value::Null),
            ("aud", json!("other")),
            ("aud", Value::Null),
            ("sub", json!("-1")),
            ("sub", json!("abc")),
            ("sub", json!("9223372036854775808")),
            ("sub", Value::Null),
            ("did", Value::Null),
            ("exp", Value::Null),
            ("exp", json!("soon")),
            ("exp", json!(NOW_MS / 1_000 + 901)),
            ("exp", json!(u64::MAX)),
            ("iat", json!(NOW_MS / 1_000 + 61)),
            ("iat", Value::Null),
            ("nbf", json!(NOW_MS / 1_000 + 61)),
        ] {
            let claims = with(good_claims(), key, value.clone());
            assert_eq!(
                outcome(&good_header(), &claims),
                Err(TokenError::Invalid),
                "{key} = {value}"
            );
        }
        for typ in [json!("JWT"), json!("rt+jwt"), Value::Null] {
            let header = with(good_header(), "typ", typ.clone());
            assert_eq!(
                outcome(&header, &good_claims()),
                Err(TokenError::Invalid),
                "{typ}"
            );
        }
    }

    #[test]
    fn a21_a_key_named_or_brought_by_the_token_is_refused() {
        for (key, value) in [
            ("kid", json!("../../dev/null")),
            ("kid", json!("1' OR '1'='1")),
            ("kid", Value::Null),
            ("jku", json!("http://127.0.0.1/keys")),
            ("x5u", json!("http://127.0.0.1/cert")),
            ("x5c", json!(["MIIB"])),
            ("jwk", json!({"kty": "oct", "k": "AAAA"})),
            ("crit", json!(["exp"])),
        ] {
            let header = with(good_header(), key, value.clone());
            assert_eq!(
                outcome(&header, &good_claims()),
                Err(TokenError::Invalid),
                "{key} = {value}"
            );
        }
    }

    #[test]
    fn a21_any_text_is_no_token_and_nothing_breaks() {
        for text in ["", ".", "..", "a.b.c", "😀.😀.😀", &"x".repeat(10_000)] {
            assert_eq!(tokens().verify(text, NOW_MS), Err(TokenError::Invalid));
        }
    }
}
