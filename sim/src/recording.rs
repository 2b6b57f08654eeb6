//! A simulation as a file: everything that was decided before it ran, so that it can run again without being drawn.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;

/// The file's name in the folder that a failure writes.
const FILE: &str = "plan.json";

/// What a simulation needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The bug that is planted.
    #[serde(default)]
    pub bug: Option<String>,
    /// Everything else, the fault plan included.
    pub configuration: Configuration,
}

impl Recording {
    /// From a folder that a failure wrote, or from a file of its own.
    ///
    /// # Errors
    /// It is not there, or was written for another configuration.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = file_in(path);
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} was not written by this simulator", file.display()))
    }

    /// Writes it to `path`, a folder or a file.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let file = file_in(path);
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn file_in(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(FILE)
    } else {
        path.to_owned()
    }
}
