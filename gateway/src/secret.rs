//! The secret that signs access tokens: where it comes from, and what is no secret.
//!
//! From the configuration or a file, at least 32 bytes. Under `--dev` one is made at random and kept in the data folder
//! (mode 0600), so that log-ins survive a restart and no two installations share one.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretSlice};

use crate::auth::tokens::SECRET_BYTES_MIN;
use crate::config::{AuthSettings, ConfigError};

/// Name of the generated secret in a data folder.
const FILE: &str = "token_secret";

/// The secret that the configuration names.
pub fn configured(auth: &AuthSettings) -> Result<SecretSlice<u8>, ConfigError> {
    let bytes = match (&auth.token_secret, &auth.token_secret_file) {
        (Some(secret), _) => secret.expose_secret().as_bytes().to_vec(),
        (None, Some(path)) => {
            let bytes = fs::read(path).map_err(|source| ConfigError::SecretFile {
                path: path.clone(),
                source,
            })?;
            bytes.trim_ascii().to_vec()
        }
        (None, None) => return Err(ConfigError::NoSecret),
    };
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(ConfigError::ShortSecret(bytes.len()));
    }
    if looks_like_an_example(&bytes) {
        return Err(ConfigError::DefaultSecret);
    }
    Ok(SecretSlice::from(bytes))
}

/// Words of documentation, and texts of a few repeated bytes.
fn looks_like_an_example(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let words = [
        "change", "example", "secret", "default", "password", "replace",
    ];
    let mut seen = [false; 256];
    bytes.iter().for_each(|b| seen[usize::from(*b)] = true);
    words.iter().any(|word| text.contains(word)) || seen.iter().filter(|s| **s).count() < 8
}

/// The secret of a data folder, made at the first start.
pub fn of_data_folder(dir: &Path) -> std::io::Result<SecretSlice<u8>> {
    let path = dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) if bytes.len() >= SECRET_BYTES_MIN => return Ok(SecretSlice::from(bytes)),
        // A crash may have left it half written: nobody holds a token of it.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; SECRET_BYTES_MIN];
    getrandom::fill(&mut bytes).map_err(|_| std::io::Error::other("no randomness"))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(SecretSlice::from(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_generated_secret_stays_and_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = of_data_folder(folder.path()).unwrap();
        let again = of_data_folder(folder.path()).unwrap();
        assert_eq!(first.expose_secret(), again.expose_secret());
        let mode = fs::metadata(folder.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
