//! Opens and removes engines below a node's data directory.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use neorunbase_world::shard_engine::{EngineError, EngineKey};
use neorunbase_world::{ShardEngine, ShardEngineFactory};
use rocksdb::DB;

use crate::encrypted_env::encrypted_env;
use crate::engine::RocksDbEngine;
use crate::engine_error;
use crate::keyspaces::KeyspaceFile;
use crate::options::{RocksDbOptions, SharedResources};

/// Opens one RocksDB a shard; all of them share one block cache, one memory account and one set of threads.
pub struct RocksDbEngineFactory {
    root: PathBuf,
    shared: Arc<SharedResources>,
}

impl RocksDbEngineFactory {
    /// A factory for engines below `root`, the node's data directory.
    pub fn new(root: PathBuf, options: RocksDbOptions) -> Self {
        Self {
            root,
            shared: Arc::new(SharedResources::new(options)),
        }
    }

    fn resolve(&self, path: &str) -> Result<PathBuf, EngineError> {
        let relative = Path::new(path);
        let is_plain = relative
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        if !is_plain || path.is_empty() || path.contains('\0') {
            return Err(EngineError::Io(format!(
                "path {path:?} is not relative to the data directory"
            )));
        }
        Ok(self.root.join(relative))
    }
}

impl std::fmt::Debug for RocksDbEngineFactory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RocksDbEngineFactory({})", self.root.display())
    }
}

#[async_trait]
impl ShardEngineFactory for RocksDbEngineFactory {
    async fn open(&self, path: &str, key: &EngineKey) -> Result<Arc<dyn ShardEngine>, EngineError> {
        let directory = self.resolve(path)?;
        let (root, name, key, shared) = (
            self.root.clone(),
            Arc::<str>::from(path),
            key.clone(),
            Arc::clone(&self.shared),
        );
        blocking(move || open(&root, &directory, name, &key, &shared)).await
    }

    async fn destroy(&self, path: &str) -> Result<(), EngineError> {
        let directory = self.resolve(path)?;
        let name = path.to_owned();
        blocking(move || match std::fs::remove_dir_all(&directory) {
            Ok(()) => sync_parent(&directory).map_err(|error| io_error(&name, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error(&name, &error)),
        })
        .await
    }
}

fn open(
    root: &Path,
    directory: &Path,
    name: Arc<str>,
    key: &EngineKey,
    shared: &SharedResources,
) -> Result<Arc<dyn ShardEngine>, EngineError> {
    create_durably(root, directory).map_err(|error| io_error(&name, &error))?;
    refuse_remains(&name, directory)?;
    let options = shared.database_options(&encrypted_env(key));
    let database = DB::open(&options, directory).map_err(|error| open_error(&name, error))?;
    let keyspaces = KeyspaceFile::new(directory, &name, key);
    Ok(Arc::new(RocksDbEngine::new(name, database, keyspaces)?))
}

/// Creates `directory`, if it is not there, so that its name survives a power loss.
fn create_durably(root: &Path, directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut ancestor = directory;
    while ancestor != root {
        sync_parent(ancestor)?;
        let Some(parent) = ancestor.parent() else { break };
        ancestor = parent;
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// An error if `directory` holds the rest of a database. RocksDB would take a directory without the file `CURRENT` for a new
/// database, and a shard would silently be empty.
fn refuse_remains(name: &str, directory: &Path) -> Result<(), EngineError> {
    if directory
        .join("CURRENT")
        .try_exists()
        .map_err(|error| io_error(name, &error))?
    {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).map_err(|error| io_error(name, &error))? {
        let file = entry.map_err(|error| io_error(name, &error))?.path();
        if file.extension().is_some_and(|extension| extension == "sst") {
            return Err(EngineError::Corrupt {
                path: name.to_owned(),
                reason: format!("{} is there, but the file CURRENT is missing", file.display()),
            });
        }
    }
    Ok(())
}

fn io_error(name: &str, error: &io::Error) -> EngineError {
    EngineError::Io(format!("{name}: {error}"))
}

/// While opening, a file that is named but missing is damage, not a device's failure.
fn open_error(name: &str, error: rocksdb::Error) -> EngineError {
    if error.as_ref().contains("No such file or directory") {
        return EngineError::Corrupt {
            path: name.to_owned(),
            reason: error.into_string(),
        };
    }
    engine_error(name, error)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(EngineError::Io(format!("a blocking call was cut short: {error}"))),
    }
}
