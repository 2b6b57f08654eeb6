//! Secrets come from the environment only: an option would show in the process list.

use neorunbase_kms::{KeyError, MasterKey};

use crate::failure::Refusal;

const MASTER_KEY: &str = "NEORUNBASE_MASTER_KEY";
const ADMIN_PASSWORD: &str = "NEORUNBASE_ADMIN_PASSWORD";

/// The master key.
///
/// # Errors
/// [`Refusal`] if it is missing, not text, or too short.
pub fn master_key() -> Result<MasterKey, Refusal> {
    parse_master_key(std::env::var(MASTER_KEY).ok().as_deref())
}

fn parse_master_key(text: Option<&str>) -> Result<MasterKey, Refusal> {
    let text = text.filter(|text| !text.trim().is_empty()).ok_or_else(|| {
        Refusal(format!(
            "{MASTER_KEY} is not set: it takes the master key, at least 32 characters (such as the output of `openssl rand -hex 32`)"
        ))
    })?;
    MasterKey::from_text(text).map_err(|error: KeyError| Refusal(format!("{MASTER_KEY}: {error}")))
}

/// The first user's password for a new cluster, if one is given.
///
/// # Errors
/// [`Refusal`] if it is empty or not text.
pub fn admin_password() -> Result<Option<String>, Refusal> {
    match std::env::var(ADMIN_PASSWORD) {
        Ok(password) if password.is_empty() => Err(Refusal(format!("{ADMIN_PASSWORD} is empty"))),
        Ok(password) => Ok(Some(password)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Refusal(format!("{ADMIN_PASSWORD} is not valid UTF-8")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_short_master_key_is_refused_without_showing_it() {
        let missing = parse_master_key(None).expect_err("there is none");
        assert!(missing.to_string().contains("is not set"));
        let short = parse_master_key(Some("tooshortsecret")).expect_err("14 characters");
        assert!(short.to_string().contains("at least 32"), "{short}");
        assert!(!short.to_string().contains("tooshortsecret"));
        assert!(parse_master_key(Some(&"k".repeat(32))).is_ok());
    }
}
