//! Devices: the installations that a person has logged in on.
//!
//! A device is active until it is revoked, and never becomes active again: logging in anew makes a new one. Revoking takes
//! its refresh tokens with it in the same transaction.

use conch_wire::{DeviceId, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use thiserror::Error;

use super::{Accounts, DatabaseError, Result, sql, unsql};

/// A device to be added. `name` and `platform` are the caller's to bound; they are shown to their owner only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewDevice {
    pub id: DeviceId,
    pub user: UserId,
    pub name: String,
    pub platform: String,
    pub created_ms: u64,
}

/// A stored device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub id: DeviceId,
    pub user: UserId,
    pub name: String,
    pub platform: String,
    pub created_ms: u64,
    /// Last sign of life that was noted.
    pub seen_ms: u64,
    /// When it was revoked; `None` while it is active.
    pub revoked_ms: Option<u64>,
}

impl Device {
    /// Whether it may still be used.
    pub fn is_active(&self) -> bool {
        self.revoked_ms.is_none()
    }
}

/// Why there is no new device. All but `Database` are certain.
#[derive(Debug, Error)]
pub enum CreateDeviceError {
    #[error("the account has as many devices as it may")]
    TooManyDevices,
    #[error("there is no such account")]
    NoSuchAccount,
    #[error("the device id was given out twice")]
    IdTaken,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for CreateDeviceError {
    fn from(error: sqlx::Error) -> CreateDeviceError {
        CreateDeviceError::Database(error.into())
    }
}

impl Accounts {
    /// Adds a device, unless its account has `devices_max` active ones.
    pub async fn create_device(
        &self,
        new: NewDevice,
        devices_max: u32,
    ) -> Result<(), CreateDeviceError> {
        let mut tx = self.write().await?;
        // Changes nothing, but locks the account's row: of two log-ins at once the second counts the first.
        let account = sqlx::query("UPDATE accounts SET created_ms = created_ms WHERE id = $1")
            .bind(sql(new.user.0))
            .execute(&mut *tx)
            .await?;
        if account.rows_affected() == 0 {
            return Err(CreateDeviceError::NoSuchAccount);
        }
        let active: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM devices WHERE account_id = $1 AND revoked_ms IS NULL",
        )
        .bind(sql(new.user.0))
        .fetch_one(&mut *tx)
        .await?;
        if active >= i64::from(devices_max) {
            return Err(CreateDeviceError::TooManyDevices);
        }
        let made = sqlx::query(
            "INSERT INTO devices (id, account_id, name, platform, created_ms, seen_ms, revoked_ms) \
             VALUES ($1, $2, $3, $4, $5, $5, NULL) ON CONFLICT DO NOTHING",
        )
        .bind(sql(new.id.0))
        .bind(sql(new.user.0))
        .bind(&new.name)
        .bind(&new.platform)
        .bind(sql(new.created_ms))
        .execute(&mut *tx)
        .await?;
        if made.rows_affected() == 0 {
            return Err(CreateDeviceError::IdTaken);
        }
        tx.commit().await?;
        Ok(())
    }

    /// The device with this id, active or not.
    pub async fn device(&self, id: DeviceId) -> Result<Option<Device>> {
        let found = sqlx::query("SELECT * FROM devices WHERE id = $1")
            .bind(sql(id.0))
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.as_ref().map(read_device))
    }

    /// All devices of a person, the oldest first, revoked ones too.
    pub async fn devices_of(&self, user: UserId) -> Result<Vec<Device>> {
        let found =
            sqlx::query("SELECT * FROM devices WHERE account_id = $1 ORDER BY created_ms, id")
                .bind(sql(user.0))
                .fetch_all(&self.readers)
                .await?;
        Ok(found.iter().map(read_device).collect())
    }

    /// Ends a device and its refresh tokens. `true`: it was active until now.
    pub async fn revoke_device(&self, id: DeviceId, now_ms: u64) -> Result<bool> {
        let mut tx = self.write().await?;
        let was_active = revoke(&mut tx, id, now_ms).await?;
        tx.commit().await?;
        Ok(was_active)
    }

    /// Notes a sign of life. Costs a durable write: callers do it seldom. Never moves back.
    pub async fn touch_device(&self, id: DeviceId, seen_ms: u64) -> Result<()> {
        sqlx::query("UPDATE devices SET seen_ms = $2 WHERE id = $1 AND seen_ms < $2")
            .bind(sql(id.0))
            .bind(sql(seen_ms))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

/// Marks a device revoked and drops its tokens, as a part of `tx`.
pub(super) async fn revoke(
    tx: &mut Transaction<'_, Sqlite>,
    id: DeviceId,
    now_ms: u64,
) -> Result<bool> {
    let revoked =
        sqlx::query("UPDATE devices SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL")
            .bind(sql(id.0))
            .bind(sql(now_ms))
            .execute(&mut **tx)
            .await?;
    sqlx::query("DELETE FROM refresh_tokens WHERE device_id = $1")
        .bind(sql(id.0))
        .execute(&mut **tx)
        .await?;
    Ok(revoked.rows_affected() == 1)
}

fn read_device(row: &SqliteRow) -> Device {
    Device {
        id: DeviceId(unsql(row.get("id"))),
        user: UserId(unsql(row.get("account_id"))),
        name: row.get("name"),
        platform: row.get("platform"),
        created_ms: unsql(row.get("created_ms")),
        seen_ms: unsql(row.get("seen_ms")),
        revoked_ms: row.get::<Option<i64>, _>("revoked_ms").map(unsql),
    }
}
