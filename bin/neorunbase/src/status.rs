//! `neorunbase status`.

use std::io::Write;

use anyhow::{Context, bail};

use crate::arguments::AdminOptions;
use crate::http_request;

/// Prints what the coordinator's admin server knows about the cluster.
///
/// # Errors
/// If there is no such server or it is not ready.
pub fn run(options: &AdminOptions) -> anyhow::Result<()> {
    let (code, body) = http_request::get(&options.admin_addr, "/api/v1/status")?;
    if code != 200 {
        bail!("{} answered {code}: {}", options.admin_addr, body.trim());
    }
    let status: serde_json::Value = serde_json::from_str(&body).context("the status is not JSON")?;
    writeln!(std::io::stdout(), "{status:#}")?;
    Ok(())
}
