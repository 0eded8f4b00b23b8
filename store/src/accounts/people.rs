//! Accounts: who a person is, how others find and see them, and what proves it is them.
//!
//! An account is unique by its handle and by (issuer, subject), so that an operator's own identity provider fits beside the
//! node's passwords. Ids are minted by the caller.

use std::fmt;

use conch_wire::UserId;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, Transaction};
use thiserror::Error;

use super::{Accounts, DatabaseError, DisplayName, Handle, Result, sql, unsql};

/// Accounts named by one statement: well below SQLite's 32,766 placeholders.
const NAMES_AT_ONCE: usize = 500;

/// A password's hash in PHC form. Does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes the hash function's output, as text.
    pub fn new(phc: impl Into<String>) -> PasswordHash {
        PasswordHash(phc.into())
    }

    /// The text, for the hash function.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// An account to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewAccount {
    pub id: UserId,
    pub handle: Handle,
    pub display_name: DisplayName,
    /// Who vouches for the person: the node itself, or an identity provider.
    pub issuer: String,
    /// The issuer's name for the person.
    pub subject: String,
    /// `None`: the person does not log in by password.
    pub password_hash: Option<PasswordHash>,
    pub created_ms: u64,
}

/// A stored account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub id: UserId,
    pub handle: Handle,
    pub display_name: DisplayName,
    pub issuer: String,
    pub subject: String,
    pub password_hash: Option<PasswordHash>,
    pub created_ms: u64,
}

/// Why there is no new account. All but `Database` are certain: nothing was stored.
#[derive(Debug, Error)]
pub enum CreateAccountError {
    /// By whomever, the same person too: said first when both are taken.
    #[error("the handle is taken")]
    HandleTaken,
    /// The issuer's subject has an account already, under another handle.
    #[error("this person has an account")]
    SubjectTaken,
    #[error("the account id was given out twice")]
    IdTaken,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for CreateAccountError {
    fn from(error: sqlx::Error) -> CreateAccountError {
        CreateAccountError::Database(error.into())
    }
}

impl Accounts {
    /// Makes an account. Of several at once for one handle or one subject, exactly one is made.
    pub async fn create_account(&self, new: NewAccount) -> Result<(), CreateAccountError> {
        let mut tx = self.write().await?;
        let made = sqlx::query(
            "INSERT INTO accounts (id, handle, display_name, issuer, subject, password_hash, created_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(sql(new.id.0))
        .bind(new.handle.as_str())
        .bind(new.display_name.as_str())
        .bind(&new.issuer)
        .bind(&new.subject)
        .bind(new.password_hash.as_ref().map(PasswordHash::as_str))
        .bind(sql(new.created_ms))
        .execute(&mut *tx)
        .await?;
        if made.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(());
        }
        Err(what_is_taken(&mut tx, &new).await?)
    }

    /// The account with this handle.
    pub async fn account_by_handle(&self, handle: &Handle) -> Result<Option<Account>> {
        let found = sqlx::query("SELECT * FROM accounts WHERE handle = $1")
            .bind(handle.as_str())
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.as_ref().map(read_account))
    }

    /// The account of an issuer's subject.
    pub async fn account_by_subject(&self, issuer: &str, subject: &str) -> Result<Option<Account>> {
        let found = sqlx::query("SELECT * FROM accounts WHERE issuer = $1 AND subject = $2")
            .bind(issuer)
            .bind(subject)
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.as_ref().map(read_account))
    }

    /// The account with this id.
    pub async fn account(&self, id: UserId) -> Result<Option<Account>> {
        let found = sqlx::query("SELECT * FROM accounts WHERE id = $1")
            .bind(sql(id.0))
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.as_ref().map(read_account))
    }

    /// The accounts with these ids, ascending by id; ids that nobody has are left out, repeated ones come once.
    pub async fn accounts(&self, ids: &[UserId]) -> Result<Vec<Account>> {
        let mut wanted = ids.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(NAMES_AT_ONCE) {
            let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM accounts WHERE id IN (");
            let mut list = query.separated(", ");
            for id in some {
                list.push_bind(sql(id.0));
            }
            query.push(") ORDER BY id");
            let rows = query.build().fetch_all(&self.readers).await?;
            found.extend(rows.iter().map(read_account));
        }
        Ok(found)
    }

    /// Changes what others see. `false`: there is no such account.
    pub async fn set_display_name(&self, id: UserId, name: &DisplayName) -> Result<bool> {
        let changed = sqlx::query("UPDATE accounts SET display_name = $2 WHERE id = $1")
            .bind(sql(id.0))
            .bind(name.as_str())
            .execute(&self.writer)
            .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Replaces the password's hash: a new password, or the same one hashed with today's cost. `false`: no such account.
    pub async fn set_password_hash(&self, id: UserId, hash: &PasswordHash) -> Result<bool> {
        let changed = sqlx::query("UPDATE accounts SET password_hash = $2 WHERE id = $1")
            .bind(sql(id.0))
            .bind(hash.as_str())
            .execute(&self.writer)
            .await?;
        Ok(changed.rows_affected() == 1)
    }
}

async fn what_is_taken(
    tx: &mut Transaction<'_, Sqlite>,
    new: &NewAccount,
) -> Result<CreateAccountError> {
    let in_the_way = sqlx::query(
        "SELECT handle FROM accounts WHERE handle = $1 OR (issuer = $2 AND subject = $3)",
    )
    .bind(new.handle.as_str())
    .bind(&new.issuer)
    .bind(&new.subject)
    .fetch_all(&mut **tx)
    .await?;
    let is_handle = |row: &SqliteRow| row.get::<&str, _>("handle") == new.handle.as_str();
    Ok(if in_the_way.is_empty() {
        CreateAccountError::IdTaken
    } else if in_the_way.iter().any(is_handle) {
        CreateAccountError::HandleTaken
    } else {
        CreateAccountError::SubjectTaken
    })
}

fn read_account(row: &SqliteRow) -> Account {
    Account {
        id: UserId(unsql(row.get("id"))),
        handle: Handle::stored(row.get("handle")),
        display_name: DisplayName::stored(row.get("display_name")),
        issuer: row.get("issuer"),
        subject: row.get("subject"),
        password_hash: row
            .get::<Option<String>, _>("password_hash")
            .map(PasswordHash),
        created_ms: unsql(row.get("created_ms")),
    }
}
