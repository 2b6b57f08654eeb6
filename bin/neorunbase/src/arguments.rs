//! The command line. Names here are kept stable: scripts and service units use them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const ENVIRONMENT: &str = "\
Environment:
  NEORUNBASE_MASTER_KEY      at least 32 characters; every file is encrypted under keys derived from it (required)
  NEORUNBASE_ADMIN_PASSWORD  password of the first user `admin` of a new cluster (without it: `admin`, to be changed
                             at the first login)
  NEORUNBASE_LOG             what to log, such as `info` or `neorunbase_server=debug,warn`
  NEORUNBASE_LOG_FORMAT      `text` or `json`";

/// A distributed SQL database that speaks the PostgreSQL protocol and encrypts everything at rest.
#[derive(Debug, Parser)]
#[command(name = "neorunbase", version, after_help = ENVIRONMENT)]
pub struct Arguments {
    /// How log lines look; they go to the standard error.
    #[arg(long, global = true, env = "NEORUNBASE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster in this process: one coordinator, data nodes and the embedded coordination service.
    #[command(after_help = ENVIRONMENT)]
    Start(StartOptions),
    /// Run one coordinator of a cluster that is held together by ZooKeeper.
    #[command(after_help = ENVIRONMENT)]
    Coordinator(DaemonOptions),
    /// Run one data node of a cluster that is held together by ZooKeeper.
    #[command(after_help = ENVIRONMENT)]
    Datanode(DataNodeOptions),
    /// Look after the data nodes of a running cluster.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Print the state of a running cluster as JSON.
    Status(AdminOptions),
}

/// Options of `neorunbase start`.
#[derive(Clone, Debug, Args)]
pub struct StartOptions {
    /// Where everything is kept; created if missing.
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub data_dir: PathBuf,
    /// Where PostgreSQL clients connect.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5433")]
    pub pg_addr: String,
    /// Where the admin HTTP server listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub admin_addr: String,
    /// How many data nodes to run. A cluster keeps the ones that it has.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub data_nodes: u32,
    /// SHARDS of tables that do not say.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub shards_default: u32,
    /// REPLICAS of tables that do not say: copies of each shard, on as many data nodes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub replicas_default: u32,
    /// Where the data nodes of this process stand, such as `zone=a` and `rack=r1`; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<Label>,
}

/// A label's name and value.
pub type Label = (String, String);

/// Takes `NAME=VALUE` apart.
///
/// # Errors
/// Why that is no label.
pub fn label(text: &str) -> Result<Label, String> {
    let is_word = |word: &str| !word.is_empty() && !word.contains(['=', ',']);
    match text
        .split_once('=')
        .map(|(name, value)| (name.trim(), value.trim()))
    {
        Some((name, value)) if is_word(name) && is_word(value) => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a label is NAME=VALUE, without commas".to_owned()),
    }
}

/// Options of `neorunbase datanode`.
#[derive(Clone, Debug, Args)]
pub struct DataNodeOptions {
    /// The TOML configuration file; see the commented examples beside the source of this program.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where the data node stands, such as `zone=a`; may be given several times. Overrides the file.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<Label>,
}

/// The subcommands of `neorunbase node`.
#[derive(Clone, Debug, Subcommand)]
pub enum NodeCommand {
    /// List the data nodes and what they hold.
    List(AdminOptions),
    /// Move all copies of shards away from a data node, and put none there any more.
    Drain(DrainOptions),
    /// Let a data node take copies of shards again.
    Undrain(UndrainOptions),
}

/// Options of `neorunbase node drain`.
#[derive(Clone, Debug, Args)]
pub struct DrainOptions {
    /// The data node's name.
    pub name: String,
    /// Return only when it holds nothing any more, and show how far that is.
    #[arg(long)]
    pub wait: bool,
    /// Which cluster.
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// Options of `neorunbase node undrain`.
#[derive(Clone, Debug, Args)]
pub struct UndrainOptions {
    /// The data node's name.
    pub name: String,
    /// Which cluster.
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// How to reach a running cluster.
#[derive(Clone, Debug, Args)]
pub struct AdminOptions {
    /// The admin address of any coordinator.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub admin_addr: String,
}

/// Options of `neorunbase coordinator`.
#[derive(Clone, Debug, Args)]
pub struct DaemonOptions {
    /// The TOML configuration file; see the commented examples beside the source of this program.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn start_has_defaults() {
        let arguments = Arguments::try_parse_from(["neorunbase", "start"]).expect("no option is required");
        let Command::Start(options) = arguments.command else {
            panic!("not start: {:?}", arguments.command);
        };
        assert_eq!(
            (options.pg_addr.as_str(), options.data_nodes),
            ("127.0.0.1:5433", 2)
        );
    }

    #[test]
    fn labels_are_taken_apart() {
        assert_eq!(label("zone=a"), Ok(("zone".to_owned(), "a".to_owned())));
        for text in ["zone", "=a", "zone=", "zone=a,rack=b", "a=b=c"] {
            assert!(label(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_of_copies_that_make_no_sense_are_refused() {
        for (copies, is_fine) in [("0", false), ("1", true), ("3", true), ("17", false)] {
            let parsed = Arguments::try_parse_from(["neorunbase", "start", "--replicas-default", copies]);
            assert_eq!(parsed.is_ok(), is_fine, "{copies}");
        }
    }
}
