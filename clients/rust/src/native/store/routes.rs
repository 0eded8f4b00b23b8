//! What the data folder holds of transports: where each endpoint's QUIC is, and until when it is not tried. See
//! `transport/memory.rs`. It can be lost without harm, so what cannot be read is as if it were not there.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::id;
use super::{Store, StoreError};
use crate::native::transport::{QuicRoute, RouteRow};

impl Store {
    pub(in crate::native) async fn routes(&self) -> Result<Vec<RouteRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM quic_routes")
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().filter_map(|row| read(row).ok()).collect())
    }

    pub(in crate::native) async fn save_route(&self, row: &RouteRow) -> Result<(), StoreError> {
        let route = row.route.as_ref();
        let certificate = route.and_then(|route| route.certificate);
        sqlx::query("INSERT OR REPLACE INTO quic_routes VALUES (?, ?, ?, ?)")
            .bind(&row.endpoint)
            .bind(route.map(|route| route.port))
            .bind(certificate.as_ref().map(|hash| &hash[..]))
            .bind(row.avoid_until_ms as i64)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(in crate::native) async fn forget_route(&self, endpoint: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM quic_routes WHERE endpoint = ?")
            .bind(endpoint)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn read(row: &SqliteRow) -> Result<RouteRow, StoreError> {
    const NOT_A_HASH: StoreError = StoreError::Content("a certificate's hash of another length");
    let port: Option<u16> = row.try_get("port")?;
    let certificate: Option<Vec<u8>> = row.try_get("certificate")?;
    let certificate = certificate
        .map(|hash| hash.try_into().map_err(|_| NOT_A_HASH))
        .transpose()?;
    Ok(RouteRow {
        endpoint: row.try_get("endpoint")?,
        route: port.map(|port| QuicRoute { port, certificate }),
        avoid_until_ms: id(row, "avoid_until_ms")?,
    })
}
