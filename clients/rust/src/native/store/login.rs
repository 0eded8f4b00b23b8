//! The login of this device, and the names of people.

use conch_wire::UserId;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use super::rows::{id, read_login};
use super::{Store, StoreError, end_write};
use crate::native::http::Person;
use crate::native::login::StoredLogin;

impl Store {
    pub(super) async fn load_login(&self) -> Result<Option<StoredLogin>, StoreError> {
        let row = sqlx::query("SELECT * FROM login")
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read_login).transpose()
    }

    pub(in crate::native) async fn save_login(
        &self,
        login: Option<&StoredLogin>,
    ) -> Result<(), StoreError> {
        match login {
            Some(login) => put_login(&mut *self.pool.acquire().await?, login).await,
            None => {
                sqlx::query("DELETE FROM login").execute(&self.pool).await?;
                Ok(())
            }
        }
    }

    pub(super) async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let rows = sqlx::query("SELECT * FROM people")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Person {
                    user: UserId(id(row, "user_id")?),
                    handle: row.try_get("handle")?,
                    display_name: row.try_get("display_name")?,
                })
            })
            .collect()
    }

    pub(in crate::native) async fn save_people(&self, people: &[Person]) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let written = put_people(&mut connection, people).await;
        end_write(connection, written).await
    }
}

async fn put_people(
    connection: &mut SqliteConnection,
    people: &[Person],
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for person in people {
        sqlx::query("INSERT OR REPLACE INTO people VALUES (?, ?, ?)")
            .bind(person.user.0 as i64)
            .bind(&person.handle)
            .bind(&person.display_name)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

pub(super) async fn put_login(
    connection: &mut SqliteConnection,
    login: &StoredLogin,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO login VALUES (1, ?, ?, ?, ?, ?, ?, ?)")
        .bind(login.account.user.0 as i64)
        .bind(login.account.device.0 as i64)
        .bind(&login.account.handle)
        .bind(&login.account.display_name)
        .bind(&login.access_token)
        .bind(login.expires_ms as i64)
        .bind(&login.refresh_token)
        .execute(connection)
        .await?;
    Ok(())
}
