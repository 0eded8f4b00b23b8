//! A user's owner: which sessions a person has and what is pushed to them. Pure half in [`state`].

#[cfg(test)]
mod properties;
pub(crate) mod state;
