//! Structured logs on the standard error. The standard output is for what the user asked for.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;
use crate::failure::Refusal;

const FILTER: &str = "NEORUNBASE_LOG";
const DEFAULT_FILTER: &str = "info";

/// Starts logging.
///
/// # Errors
/// [`Refusal`] if the filter in the environment makes no sense.
pub fn initialise(format: LogFormat) -> anyhow::Result<()> {
    let directives = std::env::var(FILTER).unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::builder()
        .parse(&directives)
        .map_err(|error| Refusal(format!("{FILTER}: {error}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!(error))
    .context("cannot start logging")
}
