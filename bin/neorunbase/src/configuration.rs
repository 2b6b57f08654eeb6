//! The daemons' TOML files with overrides from the environment.
//!
//! `NEORUNBASE_COORDINATOR_PG_ADDRESS` overrides `pg_address` of a coordinator,
//! `NEORUNBASE_DATANODE_ZOOKEEPER_SERVERS` overrides `servers` in `[zookeeper]` of a data node. Unknown keys
//! are refused in both, so that a misspelt one is noticed. Every key has a default, which also tells its type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use neorunbase_rocksdb_engine::RocksDbOptions;
use neorunbase_server::cluster::DEFAULT_GRACE_PERIOD;
use neorunbase_server::datanode::DataNodeConfig;
use neorunbase_server::datanode::config::ReplicationConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::arguments::label;
use crate::failure::Refusal;

/// How to reach ZooKeeper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZooKeeperConfiguration {
    /// `host:port,host:port`.
    pub servers: String,
    /// Everything of the cluster is kept below this node.
    pub root: String,
    /// A process that is silent for so long has left the cluster.
    pub session_timeout_seconds: u64,
}

impl Default for ZooKeeperConfiguration {
    fn default() -> Self {
        Self {
            servers: "127.0.0.1:2181".to_owned(),
            root: "/neorunbase".to_owned(),
            session_timeout_seconds: 3,
        }
    }
}

/// The file of `neorunbase coordinator`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorConfiguration {
    /// The name in the cluster.
    pub name: String,
    /// Where its files are kept.
    pub data_directory: PathBuf,
    /// Where PostgreSQL clients connect.
    pub pg_address: String,
    /// Where other processes of the cluster connect.
    pub internal_address: String,
    /// Where the admin HTTP server listens.
    pub admin_address: String,
    /// SHARDS of tables that do not say.
    pub shards_default: u32,
    /// REPLICAS of tables that do not say.
    pub replicas_default: u32,
    /// PostgreSQL clients at a time.
    pub max_connections: usize,
    /// A data node that is away for longer is taken to have lost its copies: others are made elsewhere.
    pub data_node_grace_seconds: u64,
    /// How to reach ZooKeeper.
    pub zookeeper: ZooKeeperConfiguration,
}

impl Default for CoordinatorConfiguration {
    fn default() -> Self {
        Self {
            name: "coordinator-1".to_owned(),
            data_directory: PathBuf::from("./data/coordinator-1"),
            pg_address: "127.0.0.1:5433".to_owned(),
            internal_address: "127.0.0.1:7433".to_owned(),
            admin_address: "127.0.0.1:8080".to_owned(),
            shards_default: 4,
            replicas_default: 1,
            max_connections: 1_000,
            data_node_grace_seconds: DEFAULT_GRACE_PERIOD.as_secs(),
            zookeeper: ZooKeeperConfiguration::default(),
        }
    }
}

/// The file of `neorunbase datanode`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataNodeConfiguration {
    /// The name in the cluster.
    pub name: String,
    /// Where its files are kept.
    pub data_directory: PathBuf,
    /// Where other processes of the cluster connect.
    pub internal_address: String,
    /// Where the admin HTTP server listens.
    pub admin_address: String,
    /// The cache of uncompressed blocks of all shards together, in MiB.
    pub block_cache_mebibytes: usize,
    /// Unflushed changes of all shards together, in MiB.
    pub write_buffer_mebibytes: usize,
    /// How long old row versions stay readable.
    pub history_retention_seconds: u64,
    /// Bytes a second that are sent at most in copies of shards, all of them together.
    pub copy_bytes_per_second: u64,
    /// The node fails when its log has waited for the disk for so long; 0: it waits for ever.
    pub disk_patience_seconds: u64,
    /// Where it stands, by `zone` and `rack`.
    pub labels: BTreeMap<String, String>,
    /// How to reach ZooKeeper.
    pub zookeeper: ZooKeeperConfiguration,
}

impl Default for DataNodeConfiguration {
    fn default() -> Self {
        let engines = RocksDbOptions::default();
        Self {
            name: "datanode-1".to_owned(),
            data_directory: PathBuf::from("./data/datanode-1"),
            internal_address: "127.0.0.1:7441".to_owned(),
            admin_address: "127.0.0.1:8081".to_owned(),
            block_cache_mebibytes: engines.block_cache_bytes >> 20,
            write_buffer_mebibytes: engines.total_write_buffer_bytes >> 20,
            history_retention_seconds: DataNodeConfig::new("").history_retention.as_secs(),
            copy_bytes_per_second: ReplicationConfig::default().copy_bytes_per_second,
            disk_patience_seconds: DataNodeConfig::new("").disk_patience.as_secs(),
            labels: BTreeMap::new(),
            zookeeper: ZooKeeperConfiguration::default(),
        }
    }
}

impl CoordinatorConfiguration {
    /// Reads `file` and the environment.
    ///
    /// # Errors
    /// [`Refusal`] that names what is wrong.
    pub fn load(file: &Path) -> Result<Self, Refusal> {
        let configuration: Self = load(file, "NEORUNBASE_COORDINATOR_")?;
        if !(1..=16).contains(&configuration.replicas_default) {
            return Err(Refusal("replicas_default must be between 1 and 16".to_owned()));
        }
        if !(1..=1024).contains(&configuration.shards_default) {
            return Err(Refusal("shards_default must be between 1 and 1024".to_owned()));
        }
        if configuration.data_node_grace_seconds == 0 {
            return Err(Refusal("data_node_grace_seconds must not be 0".to_owned()));
        }
        Ok(configuration)
    }
}

impl DataNodeConfiguration {
    /// Reads `file` and the environment.
    ///
    /// # Errors
    /// [`Refusal`] that names what is wrong.
    pub fn load(file: &Path) -> Result<Self, Refusal> {
        let configuration: Self = load(file, "NEORUNBASE_DATANODE_")?;
        if configuration.copy_bytes_per_second == 0 {
            return Err(Refusal("copy_bytes_per_second must not be 0".to_owned()));
        }
        Ok(configuration)
    }
}

fn load<T: Serialize + DeserializeOwned + Default>(file: &Path, prefix: &str) -> Result<T, Refusal> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Refusal(format!("configuration {}: {error}", file.display())))?;
    // The environment may hold variables that are not text; those cannot be meant.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    merge(&text, prefix, variables).map_err(|reason| {
        Refusal(format!(
            "configuration {}: {}",
            file.display(),
            reason.trim().replace('\n', " ")
        ))
    })
}

fn merge<T: Serialize + DeserializeOwned + Default>(
    text: &str,
    prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<T, String> {
    let defaults = Table::try_from(T::default()).map_err(|error| error.to_string())?;
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    for (name, value) in variables {
        if let Some(key) = name.strip_prefix(prefix) {
            set(&mut table, &defaults, &key.to_ascii_lowercase(), &value)
                .map_err(|reason| format!("environment variable {name}: {reason}"))?;
        }
    }
    table
        .try_into()
        .map_err(|error: toml::de::Error| error.to_string())
}

fn set(table: &mut Table, defaults: &Table, key: &str, value: &str) -> Result<(), String> {
    let parsed = match defaults.get(key) {
        Some(Value::String(_)) => Value::String(value.to_owned()),
        Some(Value::Integer(_)) => Value::Integer(value.parse().map_err(|_| "not an integer")?),
        // A table whose keys are the user's own: `name=value,name=value`.
        Some(Value::Table(default)) if default.is_empty() => {
            let labels = value.split(',').filter(|part| !part.trim().is_empty());
            let labels = labels.map(|part| label(part).map(|(name, value)| (name, Value::String(value))));
            Value::Table(labels.collect::<Result<Table, String>>()?)
        }
        Some(_) => return Err("cannot be set from the environment".to_owned()),
        None => {
            for (section, inner) in defaults {
                if let Value::Table(inner) = inner
                    && let Some(rest) = key
                        .strip_prefix(section.as_str())
                        .and_then(|rest| rest.strip_prefix('_'))
                {
                    let entry = table
                        .entry(section.clone())
                        .or_insert_with(|| Value::Table(Table::new()));
                    let Value::Table(entry) = entry else {
                        return Err(format!("{section} is not a table"));
                    };
                    return set(entry, inner, rest, value);
                }
            }
            return Err("there is no such setting".to_owned());
        }
    };
    table.insert(key.to_owned(), parsed);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn coordinator(text: &str, variables: &[(&str, &str)]) -> Result<CoordinatorConfiguration, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        merge(text, "NEORUNBASE_COORDINATOR_", variables)
    }

    #[test]
    fn the_examples_show_every_key_with_its_default() {
        let example: CoordinatorConfiguration =
            toml::from_str(include_str!("../coordinator.example.toml")).unwrap();
        assert_eq!(example, CoordinatorConfiguration::default());
        let example: DataNodeConfiguration =
            toml::from_str(include_str!("../datanode.example.toml")).unwrap();
        assert_eq!(example, DataNodeConfiguration::default());
        for (text, defaults) in [
            (
                include_str!("../coordinator.example.toml"),
                Table::try_from(CoordinatorConfiguration::default()).unwrap(),
            ),
            (
                include_str!("../datanode.example.toml"),
                Table::try_from(DataNodeConfiguration::default()).unwrap(),
            ),
        ] {
            assert_eq!(text.parse::<Table>().unwrap(), defaults);
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let text = "name = \"c7\"\nshards_default = 2\n[zookeeper]\nroot = \"/x\"\n";
        let read = coordinator(
            text,
            &[
                ("NEORUNBASE_COORDINATOR_SHARDS_DEFAULT", "9"),
                ("NEORUNBASE_COORDINATOR_ZOOKEEPER_SERVERS", "zk:1"),
                ("NEORUNBASE_MASTER_KEY", "not looked at"),
            ],
        )
        .unwrap();
        assert_eq!((read.name.as_str(), read.shards_default), ("c7", 9));
        assert_eq!(
            (read.zookeeper.servers.as_str(), read.zookeeper.root.as_str()),
            ("zk:1", "/x")
        );
    }

    #[test]
    fn labels_come_from_the_file_or_the_environment() {
        let read = |variables: &[(&str, &str)]| -> Result<DataNodeConfiguration, String> {
            let variables = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            merge("[labels]\nzone = \"a\"\n", "NEORUNBASE_DATANODE_", variables)
        };
        assert_eq!(read(&[]).unwrap().labels["zone"], "a");
        let labels = read(&[("NEORUNBASE_DATANODE_LABELS", "zone=b, rack=r1")])
            .unwrap()
            .labels;
        assert_eq!((labels["zone"].as_str(), labels["rack"].as_str()), ("b", "r1"));
        assert!(read(&[("NEORUNBASE_DATANODE_LABELS", "zone")]).is_err());
    }

    #[test]
    fn what_is_not_a_setting_is_refused_by_name() {
        assert!(
            coordinator("pg_adress = \"x\"", &[])
                .unwrap_err()
                .contains("pg_adress")
        );
        let refused = coordinator("", &[("NEORUNBASE_COORDINATOR_PG_ADRESS", "x")]).unwrap_err();
        assert!(refused.contains("NEORUNBASE_COORDINATOR_PG_ADRESS"), "{refused}");
        let refused = coordinator("", &[("NEORUNBASE_COORDINATOR_MAX_CONNECTIONS", "many")]).unwrap_err();
        assert!(refused.contains("not an integer"), "{refused}");
        assert!(coordinator("shards_default = -1", &[]).is_err());
    }
}
