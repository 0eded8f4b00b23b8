//! Sync tokens: what a client knows of its user's inbox, as opaque bytes.
//!
//! Pure. A token is (store generation, inbox incarnation, position); one of another generation or incarnation, or bytes
//! that are no token, is **void** and starts an explicit full listing. A listing goes from the newest channel to the
//! oldest and remembers where it began, so that channels touched while it ran are found after it:
//!
//! ```text
//! 1      u8  form: 1 after a position, 2 in a listing
//! 2..9   u32 generation, u32 incarnation
//! 10..17 u64 position (form 1: everything up to here is known; form 2: the listing's beginning)
//! 18..25 u64 form 2: list channels at or before this position
//! ```
//! Positions belong to the token's user only because the query does: a token is not a secret and grants nothing.

use conch_router::{SyncQuery, SyncRows};

/// What identifies the inbox that positions belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxIdentity {
    pub generation: u32,
    pub incarnation: u32,
}

/// Where a device stands in its user's inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPlace {
    /// Nothing is known: the beginning of a full listing.
    Fresh,
    /// Everything up to this position is known.
    After(u64),
    /// In a listing that began at `start`: channels at or before `next` are still to come.
    Listing { start: u64, next: u64 },
}

/// Positions are log sequence numbers, which stay below this for ever.
const POSITION_MAX: u64 = (1 << 63) - 1;

impl SyncPlace {
    /// Reads a token; anything void is [`SyncPlace::Fresh`].
    pub fn from_token(token: &[u8], identity: InboxIdentity) -> SyncPlace {
        let Some((&form, rest)) = token.split_first() else {
            return SyncPlace::Fresh;
        };
        let Some((head, rest)) = rest.split_first_chunk::<8>() else {
            return SyncPlace::Fresh;
        };
        if *head != identity_bytes(identity) {
            return SyncPlace::Fresh;
        }
        let numbers: Vec<u64> = rest
            .chunks_exact(8)
            .map(|c| u64::from_le_bytes(c.try_into().expect("chunks of eight")))
            .collect();
        match (form, numbers.as_slice(), rest.len()) {
            (1, &[position], 8) if position <= POSITION_MAX => SyncPlace::After(position),
            (2, &[start, next], 16) if next <= start && start <= POSITION_MAX => {
                SyncPlace::Listing { start, next }
            }
            _ => SyncPlace::Fresh,
        }
    }

    /// Writes a token. Fresh is the empty one.
    pub fn to_token(self, identity: InboxIdentity) -> Vec<u8> {
        let (form, numbers): (u8, &[u64]) = match &self {
            SyncPlace::Fresh => return Vec::new(),
            SyncPlace::After(position) => (1, &[*position]),
            SyncPlace::Listing { start, next } => (2, &[*start, *next]),
        };
        let mut token = vec![form];
        token.extend_from_slice(&identity_bytes(identity));
        for number in numbers {
            token.extend_from_slice(&number.to_le_bytes());
        }
        token
    }

    /// What to ask the user's owner.
    pub fn query(self) -> SyncQuery {
        match self {
            SyncPlace::Fresh => SyncQuery::AtOrBefore(POSITION_MAX),
            SyncPlace::After(position) => SyncQuery::After(position),
            SyncPlace::Listing { next, .. } => SyncQuery::AtOrBefore(next),
        }
    }

    /// The place after this page, and whether more is to be asked for.
    pub fn after_page(self, page: &SyncRows) -> (SyncPlace, bool) {
        let last = page.rows.last().map(|row| row.position);
        match self {
            SyncPlace::After(position) => (SyncPlace::After(last.unwrap_or(position)), page.more),
            SyncPlace::Fresh | SyncPlace::Listing { .. } => {
                let start = match self {
                    SyncPlace::Listing { start, .. } => start,
                    _ => page.rows.first().map_or(0, |row| row.position),
                };
                match last {
                    Some(last) if page.more && last > 0 => (
                        SyncPlace::Listing {
                            start,
                            next: last - 1,
                        },
                        true,
                    ),
                    // Channels touched while the listing ran lie behind its beginning: asked for next, at once.
                    _ => (SyncPlace::After(start), self != SyncPlace::Fresh),
                }
            }
        }
    }
}

fn identity_bytes(identity: InboxIdentity) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&identity.generation.to_le_bytes());
    bytes[4..].copy_from_slice(&identity.incarnation.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: InboxIdentity = InboxIdentity {
        generation: 7,
        incarnation: 3,
    };

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_went(start in 0..=POSITION_MAX, back in 0..=POSITION_MAX, listing: bool) {
            let place = if listing {
                SyncPlace::Listing { start, next: start.saturating_sub(back) }
            } else {
                SyncPlace::After(start)
            };
            prop_assert_eq!(SyncPlace::from_token(&place.to_token(HERE), HERE), place);
            let other = InboxIdentity { incarnation: 4, ..HERE };
            prop_assert_eq!(SyncPlace::from_token(&place.to_token(HERE), other), SyncPlace::Fresh);
        }

        #[test]
        fn any_bytes_are_a_token_or_void(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let place = SyncPlace::from_token(&bytes, HERE);
            if place != SyncPlace::Fresh {
                prop_assert_eq!(place.to_token(HERE), bytes);
            }
        }
    }
}
